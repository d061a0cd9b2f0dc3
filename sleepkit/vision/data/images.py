"""Labelled images in memory, from a local folder or file or from the Hub.

    Images(pixels, labels)      uint8 (N, channels, height, width), int64 (N,); or features, float (N, size), in place of pixels
    ImageData                   train, validation and test `Images`, and the name of each class

`load_images` reads, by the form of its argument::

    digits/               train.npz, val.npz, test.npz      see data/arrays.py
    rows/                 train.parquet, val.parquet, ...   or data/*.parquet as on the Hub, or what `datasets.save_to_disk` wrote
    photos/               train/<class>/*.png, val/..., ... see data/folders.py; or <class>/*.png alone, one split
    owner/name            Hub id, through `datasets.load_dataset`
    procedural            no file: drawn by procedural_world.py, other pictures with each seed; "procedural_others" are the
                          classes that this stream does not have

and, for a single split (``test_dataset``), also one .npz or .parquet file.  `SPLITS` of data/tables.py has the names of splits.
Without a test split, the validation split is held out as the test and a tenth of the training images becomes the validation
split; without a validation split, a tenth of the training images does.  With ``test_share``, one split is all that is used,
and the test images are drawn from it.  Shares are drawn class by class.

All images are decoded once, as a person sees them (data/pictures.py), and kept as uint8: 60,000 of 28 x 28 take 47 MB.  What of a
source is skipped or left out is printed.  Left out: data sets larger than the memory.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sleepkit.errors import SleepkitError, first_line
from sleepkit.utils.paths import existing
from sleepkit.utils.ram import require_memory
from sleepkit.utils.remarks import Remarks
from sleepkit.vision.data.arrays import read_npz
from sleepkit.vision.data.folders import read_class_folders
from sleepkit.vision.data.image_data import ImageData, Images
from sleepkit.vision.data.pictures import Picture, fitted, fitted_shape
from sleepkit.vision.data.tables import Table, read_datasets, read_parquet, sorted_splits

__all__ = ["load_images"]

HELD_OUT = 0.1  # of the training images of each class, where there is no validation split
READERS = (".npz", ".parquet")
SAVED = ("dataset_dict.json", "state.json", "*.parquet", "metadata.csv", "metadata.jsonl")  # of `datasets`
CHUNK = 64  # images that are resized at a time


def load_images(
    dataset: str | Path,
    test_dataset: str | Path | None = None,
    *,
    image_size: int | None = None,
    channels: int | None = None,
    label_column: str | None = None,
    test_share: float | None = None,
    seed: int = 0,
) -> ImageData:
    """Read labelled images from a folder, a file or the Hub.

    Args:
        dataset: folder with ``train.npz`` (``val.npz``, ``test.npz``), parquet files or class folders, a Hub id, or
            ``procedural``; the module sleepkit.vision.data.images lists all forms.
        test_dataset: evaluate on this instead of the data set's own test split.
        image_size: resize to this height and width, bilinearly; None keeps the size, which must be one.
        channels: turn into 1 (grey) or 3 (RGB); None keeps them, which must be one number.
        label_column: column of the label, where the source is a table; None finds it.
        test_share: draw this share of each class as the test split, from the training split or the only one, and leave
            other splits aside; for data sets whose splits have other classes, or that have one split.
        seed: of the splits that are drawn.

    Returns:
        `ImageData`: train, validation and test images, uint8 ``(N, channels, height, width)`` with labels ``(N,)``, and the name
        of each class.

    Raises:
        SleepkitError: a source that cannot be read, images that cannot be decoded or do not have one size and number of channels,
            or classes that are missing in a split.

    Example:

        >>> data = load_images("digits/", image_size=28, channels=1)
    """
    if str(dataset) in ("procedural", "procedural_others"):
        from sleepkit.vision.data.procedural_world import other_images, stream_images

        given = {"test_dataset": test_dataset, "image_size": image_size, "channels": channels, "test_share": test_share}
        for name, value in {**given, "label_column": label_column}.items():
            if value is not None:
                raise SleepkitError(f"{name} is {value} and the data set {dataset!r} is drawn as it is; leave it out")
        return (stream_images if dataset == "procedural" else other_images)(seed)
    remarks = Remarks()
    tables = _tables(dataset, test_dataset, label_column, test_share, remarks)
    names = _names(tables["train"])
    labels = {name: _ids(table, names) for name, table in tables.items()}
    splits = {name: Images(_stacked(table, image_size, channels, remarks), labels[name]) for name, table in tables.items()}
    if test_share is not None:
        splits["train"], splits["test"] = held_out(splits["train"], test_share, seed)
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
    if "test" not in splits:
        raise SleepkitError(f"{dataset} has no test and no validation split; give --test_dataset with held-out images")
    if "validation" not in splits:
        splits["train"], splits["validation"] = held_out(splits["train"], HELD_OUT, seed)
    _require_alike(splits, names, {name: table.source for name, table in tables.items()})
    remarks.say()
    return ImageData(splits["train"], splits["validation"], splits["test"], names)


def held_out(images: Images, share: float, seed: int) -> tuple[Images, Images]:
    """Two parts, the second with ``share`` of each class (one image at least), drawn by ``seed``; both keep the order."""
    generator = np.random.default_rng(seed)
    labels = images.labels.numpy()
    chosen = np.zeros(len(labels), dtype=bool)
    order = np.argsort(labels, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):  # one class after the other
        chosen[generator.permutation(rows)[: max(1, round(share * len(rows)))]] = True
    parts = (torch.from_numpy(rows) for rows in (np.flatnonzero(~chosen), np.flatnonzero(chosen)))
    first, second = (Images(images.pixels[rows], images.labels[rows]) for rows in parts)
    return first, second


# Sources


def _tables(
    dataset: str | Path, test_dataset: str | Path | None, label_column: str | None, test_share: float | None, remarks: Remarks
) -> dict[str, Table]:
    """Splits by name, a training split at least."""
    tables = _read(dataset, "dataset", label_column, remarks)
    if test_share is not None:
        if not 0 < test_share < 1 or test_dataset is not None:
            remedy = "leave it out, as test_dataset is given" if test_dataset is not None else "give a number between 0 and 1"
            raise SleepkitError(f"test_share is {test_share}; {remedy}")
        tables = dict(zip(["train"], [tables[name] for name in ("train", *tables) if name in tables], strict=False))
    if "train" not in tables:
        raise SleepkitError(f"{dataset} has no training split (found {sorted(tables) or 'nothing'}); name it train")
    if test_dataset is not None:
        other = _read(test_dataset, "test_dataset", label_column, remarks)
        if len(other) != 1 and "test" not in other:
            raise SleepkitError(
                f"test_dataset {test_dataset} has the splits {sorted(other)}; give one with a test split, or a file"
            )
        tables["test"] = other["test"] if "test" in other else next(iter(other.values()))
    return tables


def _read(dataset: str | Path, name: str, label_column: str | None, remarks: Remarks) -> dict[str, Table]:
    """Splits by name; ``name`` is that of the option, for messages."""
    path = existing(dataset, name)
    try:
        if path is not None and path.is_dir():
            return _read_folder(path, label_column, remarks)
        if path is not None:
            if path.suffix not in READERS:
                raise SleepkitError(f"{path} is not a .npz or .parquet file; convert it, or give a folder or a Hub id")
            return {"train": _read_file(path, label_column)}
    except OSError as error:
        raise SleepkitError(f"{path} cannot be read ({first_line(error)}); check its permissions") from None
    given = Path(dataset)
    if given.is_absolute() or str(dataset).startswith((".", "~")) or given.suffix in READERS or len(given.parts) > 2:
        raise SleepkitError(
            f"{name} {str(dataset)!r} does not exist; give an existing folder or file, or a Hub id such as ylecun/mnist"
        )
    return read_datasets(str(dataset), label_column)


def _read_folder(folder: Path, label_column: str | None, remarks: Remarks) -> dict[str, Table]:
    files = [path for path in sorted(folder.iterdir()) if path.suffix in READERS and path.is_file()]
    splits: dict[str, Path] = sorted_splits({path.stem: path for path in files}, folder)
    if splits:
        for path in files:
            if path not in splits.values():
                remarks.add("not read, as it has the name of no split", path.name)
        return {split: _read_file(path, label_column) for split, path in splits.items()}
    if any(any(folder.glob(pattern)) for name in SAVED for pattern in (name, f"*/{name}")):
        return read_datasets(folder, label_column)
    tables = read_class_folders(folder, remarks)
    if not tables:
        raise SleepkitError(f"{folder} has no images; give a folder with train.npz, train.parquet or train/<class>/*.png")
    _require_no_column(label_column, folder)
    return tables


def _read_file(path: Path, label_column: str | None) -> Table:
    if path.suffix == ".parquet":
        return read_parquet(path, label_column)
    _require_no_column(label_column, path)
    return read_npz(path)


def _require_no_column(label_column: str | None, path: Path) -> None:
    if label_column is not None:
        raise SleepkitError(f"label_column is {label_column!r} and {path} has no columns; leave it out")


# Checks and conversion


def _names(table: Table) -> list[str]:
    """Classes of the training split, in the order of the source, their numbers or the alphabet; numbers have no gap."""
    present: set[Any] = set(table.labels)
    if table.order:
        found = [name for name in table.order if name in present]
    else:
        found = sorted(present)
        if found and isinstance(found[0], int) and (found[0] != 0 or found[-1] != len(found) - 1):
            missing = list(islice((label for label in count() if label not in present), 5))
            missing = [label for label in missing if label < found[-1]]
            without = f" without {missing}" if missing else ""
            raise SleepkitError(f"{table.source} has labels from {found[0]} to {found[-1]}{without}; number the classes from 0")
    names = [str(name) for name in found]
    for name in names:
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise SleepkitError(f"{table.source} has the class {ascii(name):.60}, whose name cannot be printed; rename it")
    return names


def _ids(table: Table, names: list[str]) -> Tensor:
    """Label of each image, counted from 0 as the training split's classes are."""
    index = {name: label for label, name in enumerate(names)}
    unknown = sorted({str(label) for label in table.labels} - set(index))
    if unknown:
        raise SleepkitError(
            f"{table.source} has the class {unknown[0]!r}, which is missing in the training split; remove it there"
        )
    return torch.tensor([index[str(label)] for label in table.labels], dtype=torch.int64)


def _stacked(table: Table, image_size: int | None, channels: int | None, remarks: Remarks) -> Tensor:
    """``(n, channels, height, width)`` uint8, or features ``(n, size)``."""
    if not table.labels:
        raise SleepkitError(f"{table.source} has no images; give at least one of each class")
    if isinstance(table.images, Tensor):
        if table.images.dim() == 2 and (image_size or channels):
            raise SleepkitError(f"{table.source} has features, not images; leave image_size and channels out")
        if not image_size and not channels:
            return table.images
    pixels, row = torch.empty(0), 0
    for part, place in _parts(table.images, remarks):
        shape = fitted_shape(part.shape[1:], image_size, channels)
        if not row:
            size = len(table.labels) * math.prod(shape)
            shown = f"{len(table.labels)} images of {'x'.join(map(str, shape))}"
            require_memory(size, shown, "lower --image_size, or give fewer images")
            pixels = torch.empty(len(table.labels), *shape, dtype=torch.uint8)
        _require_same(pixels.shape[1:], shape, row, place, table.source)
        pixels[row : row + len(part)] = fitted(part, image_size, channels)
        row += len(part)
    return pixels


def _parts(images: Tensor | Iterator[Picture], remarks: Remarks) -> Iterator[tuple[Tensor, str]]:
    """Some images at a time, and where they are from."""
    if isinstance(images, Tensor):
        yield from ((part, "") for part in images.split(CHUNK))
        return
    for picture in images:
        for remark in picture.remarks:
            remarks.add(f"images {remark}", picture.place)
        yield picture.pixels[None], picture.place


def _require_same(first: Sequence[int], other: Sequence[int], row: int, place: str, source: str) -> None:
    if other[1:] != first[1:]:
        sizes = " and ".join(f"{shape[1]}x{shape[2]}" for shape in (first, other))
        raise SleepkitError(
            f"{source} has images of {sizes} (rows 0 and {row}); give --image_size to resize them, or remove {place}"
        )
    if other[0] != first[0]:
        raise SleepkitError(
            f"{source} has grey and RGB images (rows 0 and {row}); give --channels 1 or 3 to convert them, or remove {place}"
        )


def _require_alike(splits: Mapping[str, Images], names: list[str], sources: Mapping[str, str]) -> None:
    shape = splits["train"].pixels.shape[1:]
    for split, images in splits.items():
        source = sources.get(split, split)
        if images.pixels.shape[1:] != shape:
            shown = " and ".join("x".join(map(str, found)) for found in (shape, images.pixels.shape[1:]))
            raise SleepkitError(
                f"the training images and those of {source} are {shown} (channels, height, width); set --channels or image_size"
            )
        missing = [names[label] for label in _missing(images.labels, len(names))]
        if missing:
            shown = ", ".join(missing[:5])
            raise SleepkitError(
                f"the {split} split has no image of {len(missing)} classes ({shown}); add some or remove the classes"
            )


def _missing(labels: Tensor, classes: int) -> Iterable[int]:
    return (torch.bincount(labels, minlength=classes) == 0).nonzero().flatten().tolist()
