"""A split in an .npz file: images or features, a label of each, and names of the classes.

    x        uint8 (n, height, width[, 1 or 3]), or float (n, size), which float64 becomes float32
    y        whole numbers (n,) or (n, 1)
    names    one text per class, optional

What an array says of itself is compared with the file and with the free memory before any of it is unpacked, so that a file that
unpacks to more than it should is refused at once.
"""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sleepkit.errors import SleepkitError, first_line
from sleepkit.utils.ram import require_memory
from sleepkit.vision.data.tables import Table

__all__ = ["read_npz"]

Array = npt.NDArray[Any]
LARGEST = 1e15  # of a feature, whose square a float32 holds
NEEDED, OPTIONAL = ("x", "y"), ("names",)


def read_npz(path: Path) -> Table:
    """Read the split that an .npz file holds, as the module describes.  Raises `SleepkitError` for anything else."""
    arrays = _arrays(path)
    x, y = arrays["x"], arrays["y"]
    pixels = _features(x, path) if x.ndim == 2 and np.issubdtype(x.dtype, np.floating) else _images(x, path)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise SleepkitError(f"{path} has y of {y.dtype} and shape {y.shape} for {len(x)} images; give one whole number each")
    if "names" not in arrays:
        return Table(pixels, y.tolist(), str(path))
    names = _names(arrays["names"], path)
    if len(y) and (y.min() < 0 or y.max() >= len(names)):
        raise SleepkitError(f"{path} has labels from {y.min()} to {y.max()} and {len(names)} names; give one name for each class")
    return Table(pixels, [names[label] for label in y], str(path), names)


def _arrays(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if not set(NEEDED) <= set(names):
                raise SleepkitError(f"{path} has the arrays {sorted(names)}; it needs x (images) and y (labels)")
            wanted = [name for name in (*NEEDED, *OPTIONAL) if name in names]
            _require_sizes(archive, wanted, path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in wanted}
    except SleepkitError:
        raise
    except Exception as error:  # zipfile, zlib, lzma and numpy each raise their own
        raise SleepkitError(f"{path} cannot be read ({first_line(error)}); write it again with numpy.savez") from None


def _require_sizes(archive: zipfile.ZipFile, names: list[str], path: Path) -> None:
    """Raise unless each array is as long as the archive says, holds no Python objects, and all fit into the memory."""
    total = 0
    for name in names:
        member = archive.getinfo(f"{name}.npy")
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            rest = member.file_size - file.tell()
        if dtype.hasobject:
            raise SleepkitError(f"{path} has Python objects in {name}, which are not loaded; save numbers or texts of one length")
        size = math.prod(shape) * dtype.itemsize
        if size != rest:
            raise SleepkitError(f"{path} has {rest} bytes in {name} for {shape} of {dtype}; write it again with numpy.savez")
        total += size
    require_memory(2 * total, f"{path}", "split it, or store smaller images")


def _features(x: Array, path: Path) -> Tensor:
    if x.dtype.itemsize > 8 or not x.shape[1]:
        raise SleepkitError(f"{path} has features of {x.dtype} and shape {x.shape}; give float32 (N, size)")
    short = x.dtype.itemsize == 2  # float16, which holds nothing beyond
    bad = np.flatnonzero(~(np.isfinite(x) if short else np.abs(x) <= LARGEST).all(axis=1))  # also NaN
    if len(bad):
        raise SleepkitError(
            f"{path} has features that are not finite or beyond {LARGEST:g} (row {bad[0]}, and {len(bad) - 1} more); scale them, "
            "or remove these rows"
        )
    return torch.from_numpy(x.astype(np.float16 if short else np.float32, copy=False))


def _images(x: Array, path: Path) -> Tensor:
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        raise SleepkitError(
            f"{path} has x of {x.dtype} and shape {x.shape}; give images, uint8 (N, height, width[, channels]), or features, "
            f"float (N, size){_range(x)}"
        )
    if x.ndim == 4 and x.shape[3] not in (1, 3):
        where = "; channels stand last, as in x.transpose(0, 2, 3, 1)" if x.shape[1] in (1, 3) else ""
        raise SleepkitError(f"{path} has x of shape {x.shape}, of {x.shape[3]} channels; give 1 (grey) or 3 (RGB){where}")
    if 0 in x.shape[1:]:
        raise SleepkitError(f"{path} has x of shape {x.shape}, images without a pixel; write it again")
    return torch.from_numpy(x[..., None] if x.ndim == 3 else x).permute(0, 3, 1, 2).contiguous()


def _range(x: Array) -> str:
    """How values of another kind become bytes."""
    if x.ndim not in (3, 4) or not x.size or x.dtype.kind not in "iuf":
        return ""
    low, high = x.min(), x.max()
    scaled = x.dtype.kind == "f" and 0 <= low <= high <= 1
    return f" (it runs from {low:g} to {high:g}" + ("; (255 * x).round().astype('uint8') makes bytes)" if scaled else ")")


def _names(names: Array, path: Path) -> list[str]:
    found = [str(name) for name in names.tolist()] if names.ndim == 1 and names.dtype.kind == "U" else []
    again = [name for name, times in Counter(found).items() if times > 1]
    if not found or again:
        why = f"the name {again[0]!r} twice" if again else f"names of {names.dtype} and shape {names.shape}"
        raise SleepkitError(f"{path} has {why}; give one text for each class, and none twice")
    return found
