"""Labelled images in memory, from a local folder or file or from the Hub.

    Images(pixels, labels)      uint8 (N, channels, height, width), int64 (N,); or features, float (N, size), in place of pixels
    ImageData                   train, validation and test `Images`, and the name of each class

`load_images` reads, by the form of its argument::

    digits/               train.npz, val.npz, test.npz      x uint8 (N, H, W[, C]) or float (N, size), y int,
                                                            names? (one text per class)
    rows/                 train.parquet, val.parquet, ...   or data/*.parquet as on the Hub, or what `datasets.save_to_disk` wrote
    photos/               train/<class>/*.png, val/..., ... folders of images
    owner/name            Hub id, through `datasets.load_dataset`
    procedural            no file: drawn by procedural_world.py, other pictures with each seed; "procedural_others" are the
                          classes that this stream does not have

and, for a single split (``test_dataset``), also one .npz or .parquet file.  `SPLITS` has the names of splits.  Without
a test split, the validation split is held out as the test and a tenth of the training images becomes the validation
split; without a validation split, a tenth of the training images does.  With ``test_share``, one split is all that is used,
and the test images are drawn from it.  Shares are drawn class by class.

All images are decoded once and kept as uint8: 60,000 of 28 x 28 take 47 MB.  Left out: data sets larger than the memory.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sleepkit.errors import SleepkitError, first_line

__all__ = ["ImageData", "Images", "as_bytes", "load_images"]

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}
LABEL_COLUMNS = ("label", "labels", "y", "fine_label", "class", "wnid")
HELD_OUT = 0.1  # of the training images of each class, where there is no validation split


class Images(NamedTuple):
    """``pixels`` uint8 (N, channels, height, width) or float (N, size), ``labels`` int64 (N,), ids that count from 0."""

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ImageData:
    """Three splits with the same classes, channels and size; ``names[label]`` is the name of a class."""

    train: Images
    validation: Images
    test: Images
    names: list[str]


class _Table(NamedTuple):
    """One split as it was read: images of any size, labels, the source for messages, and the classes in order if it has one."""

    images: list[Tensor]
    labels: list[Any]
    source: str
    order: list[str] | None = None


def as_bytes(images: Tensor) -> Tensor:
    """Images from 0 to 1 as uint8, rounded."""
    return (images.clamp(0, 1) * 255).round_().to(torch.uint8)


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
    """Read a data set; the forms that ``dataset`` and ``test_dataset`` may have are in the module's docstring.

    Args:
        test_dataset: evaluate on this instead of the data set's own test split.
        image_size: resize to this height and width, bilinearly; None keeps the size, which must be one.
        channels: turn into 1 (grey) or 3 (RGB); None keeps them, which must be one number.
        label_column: column of the label, where the source is a table; None finds it.
        test_share: draw this share of each class as the test split, from the training split or the only one, and leave
            other splits aside; for data sets whose splits have other classes, or that have one split.
        seed: of the splits that are drawn.

    Raises `SleepkitError`, in one line with the value and the remedy, for a source that cannot be read, images that cannot be
    decoded or do not have one size and number of channels, and classes that are missing in a split.
    """
    if str(dataset) in ("procedural", "procedural_others"):
        from sleepkit.vision.procedural_world import other_images, stream_images

        given = {"test_dataset": test_dataset, "image_size": image_size, "channels": channels, "test_share": test_share}
        for name, value in given.items():
            if value is not None:
                raise SleepkitError(f"{name} is {value} and the data set {dataset!r} is drawn as it is; leave it out")
        return (stream_images if dataset == "procedural" else other_images)(seed)
    tables = _read(dataset, label_column)
    if test_share is not None:
        if not 0 < test_share < 1 or test_dataset is not None:
            remedy = "leave it out, as test_dataset is given" if test_dataset is not None else "give a number between 0 and 1"
            raise SleepkitError(f"test_share is {test_share}; {remedy}")
        tables = dict(zip(["train"], [tables[name] for name in ("train", *tables) if name in tables], strict=False))
    if "train" not in tables:
        raise SleepkitError(f"{dataset} has no training split (found {sorted(tables) or 'nothing'}); name it train")
    if test_dataset is not None:
        other = _read(test_dataset, label_column)
        if len(other) != 1 and "test" not in other:
            raise SleepkitError(
                f"test_dataset {test_dataset} has the splits {sorted(other)}; give one with a test split, or a file"
            )
        tables["test"] = other["test"] if "test" in other else next(iter(other.values()))
    names = _names(tables["train"])
    splits = {name: _stacked(table, image_size, channels, names) for name, table in tables.items()}
    if test_share is not None:
        splits["train"], splits["test"] = held_out(splits["train"], test_share, seed)
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
    if "test" not in splits:
        raise SleepkitError(f"{dataset} has no test and no validation split; give --test_dataset with held-out images")
    if "validation" not in splits:
        splits["train"], splits["validation"] = held_out(splits["train"], HELD_OUT, seed)
    _require_alike(splits, names, {name: table.source for name, table in tables.items()})
    return ImageData(splits["train"], splits["validation"], splits["test"], names)


def held_out(images: Images, share: float, seed: int) -> tuple[Images, Images]:
    """Two parts, the second with ``share`` of each class (one image at least), drawn by ``seed``; both keep the order."""
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(images.labels), dtype=bool)
    for label in images.labels.unique().tolist():
        rows = np.flatnonzero(images.labels.numpy() == label)
        chosen[generator.permutation(rows)[: max(1, round(share * len(rows)))]] = True
    parts = (torch.from_numpy(rows) for rows in (np.flatnonzero(~chosen), np.flatnonzero(chosen)))
    first, second = (Images(images.pixels[rows], images.labels[rows]) for rows in parts)
    return first, second


# Sources


def _read(dataset: str | Path, label_column: str | None) -> dict[str, _Table]:
    """Splits by name."""
    path = Path(dataset).expanduser()
    if path.is_dir():
        for suffix, read in ((".npz", _read_npz), (".parquet", lambda one: _read_parquet(one, label_column))):
            files = _split_files(path, suffix)
            if files:
                return {split: read(file) for split, file in files.items()}
        return _read_datasets(path, label_column)
    if path.is_file():
        readers: dict[str, Callable[[Path], _Table]] = {
            ".npz": _read_npz,
            ".parquet": lambda one: _read_parquet(one, label_column),
        }
        if path.suffix not in readers:
            raise SleepkitError(f"{path} is not a .npz or .parquet file; convert it, or give a folder or a Hub id")
        return {"train": readers[path.suffix](path)}
    if path.is_absolute() or str(dataset).startswith((".", "~")) or path.suffix in (".npz", ".parquet") or not str(dataset):
        raise SleepkitError(
            f"dataset {str(dataset)!r} does not exist; give an existing folder or file, or a Hub id such as ylecun/mnist"
        )
    return _read_datasets(str(dataset), label_column)


def _split_files(folder: Path, suffix: str) -> dict[str, Path]:
    named = {split: [folder / f"{name}{suffix}" for name in names] for split, names in SPLITS.items()}
    return {split: path for split, paths in named.items() for path in paths if path.is_file()}


def _read_npz(path: Path) -> _Table:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SleepkitError(f"{path} cannot be read ({first_line(error)}); write it again with numpy.savez") from None
    if not {"x", "y"} <= set(arrays):
        raise SleepkitError(f"{path} has the arrays {sorted(arrays)}; it needs x (images) and y (labels)")
    x, y = arrays["x"], arrays["y"]
    features = x.ndim == 2 and np.issubdtype(x.dtype, np.floating)
    if not features and (x.dtype != np.uint8 or x.ndim not in (3, 4)):
        raise SleepkitError(
            f"{path} has x of {x.dtype} and shape {x.shape}; give images, uint8 (N, height, width[, channels]), or features, "
            "float (N, size)"
        )
    if features and not np.isfinite(x).all():
        raise SleepkitError(f"{path} has features that are not finite; remove these rows")
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise SleepkitError(f"{path} has y of {y.dtype} and shape {y.shape} for {len(x)} images; give one whole number each")
    pixels = torch.from_numpy(x[..., None] if x.ndim == 3 else x)
    pixels = pixels if features else pixels.permute(0, 3, 1, 2).contiguous()
    if "names" not in arrays:
        return _Table(list(pixels), y.tolist(), str(path))
    names = arrays["names"].tolist()
    if len(y) and (y.min() < 0 or y.max() >= len(names)):
        raise SleepkitError(f"{path} has labels from {y.min()} to {y.max()} and {len(names)} names; give one name for each class")
    return _Table(list(pixels), [names[label] for label in y], str(path), names)


def _read_parquet(path: Path, label_column: str | None) -> _Table:
    import datasets

    try:
        table = datasets.Dataset.from_parquet(str(path))
    except Exception as error:  # pyarrow and datasets each raise their own
        raise SleepkitError(f"{path} cannot be read ({first_line(error)}); write it again with datasets' to_parquet") from None
    return _from_rows(table, str(path), label_column)


def _read_datasets(source: Path | str, label_column: str | None) -> dict[str, _Table]:
    import datasets

    try:
        if isinstance(source, str):
            loaded = datasets.load_dataset(source)
        elif (source / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(str(source))
        elif any(source.glob("data/*.parquet")):  # as the Hub lays them out
            loaded = datasets.load_dataset(str(source))
        else:
            loaded = datasets.load_dataset("imagefolder", data_dir=str(source))
    except Exception as error:  # the Hub, the network and data set builders each raise their own
        raise SleepkitError(
            f"dataset {str(source)!r} cannot be loaded ({first_line(error)}); give a folder with train.npz, train.parquet or "
            "train/<class>/*.png, or the id of a data set on the Hub, and check the network"
        ) from None
    names = {name: split for split, names in SPLITS.items() for name in names}
    return {names[name]: _from_rows(table, f"{source} ({name})", label_column) for name, table in loaded.items() if name in names}


def _from_rows(table: Any, source: str, label_column: str | None) -> _Table:
    import datasets

    kinds = table.features
    images = [name for name, kind in kinds.items() if isinstance(kind, datasets.Image)]
    labels = [label_column] if label_column else [name for name in LABEL_COLUMNS if name in kinds]
    if not images or not labels or labels[0] not in kinds:
        raise SleepkitError(f"{source} has the columns {sorted(kinds)}; it needs one of images and a label (--label_column)")
    column = kinds[labels[0]]
    order = list(column.names) if isinstance(column, datasets.ClassLabel) else None
    values = [order[value] if order else value for value in table[labels[0]]]
    encoded = table.cast_column(images[0], datasets.Image(decode=False))[images[0]]
    decoded = [_decode(image, f"{source} row {row}") for row, image in enumerate(encoded)]
    return _Table(decoded, values, source, order)


def _decode(image: Mapping[str, Any], place: str) -> Tensor:
    """``(channels, height, width)`` uint8."""
    from PIL import Image

    place = f"{place} ({image['path']})" if image.get("path") else place
    try:
        opened = Image.open(io.BytesIO(image["bytes"]) if image.get("bytes") is not None else image["path"])
        picture = opened if opened.mode in ("L", "RGB") else opened.convert("RGB")
        pixels = np.array(picture, dtype=np.uint8)
    except (OSError, ValueError, SyntaxError) as error:
        raise SleepkitError(f"{place} is not an image that can be decoded ({first_line(error)}); replace or remove it") from None
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()


# Checks and conversion


def _names(table: _Table) -> list[str]:
    """Classes of the training split, in the order of the source, their numbers or the alphabet; numbers have no gap."""
    if table.order:
        present = set(table.labels)
        return [name for name in table.order if name in present]
    found = sorted(set(table.labels))
    if found and isinstance(found[0], int) and found != list(range(len(found))):
        missing = sorted(set(range(found[-1])) - set(found))[:5]
        raise SleepkitError(
            f"{table.source} has labels from {found[0]} to {found[-1]} without {missing}; number the classes from 0"
        )
    return [str(name) for name in found]


def _stacked(table: _Table, image_size: int | None, channels: int | None, names: list[str]) -> Images:
    if table.images and table.images[0].dim() == 1 and (image_size or channels):
        raise SleepkitError(f"{table.source} has features, not images; leave image_size and channels out")
    if not table.images:
        raise SleepkitError(f"{table.source} has no images; give at least one of each class")
    images = [_fitted(image, image_size, channels) for image in table.images] if image_size or channels else table.images
    first = images[0].shape
    for row, image in enumerate(images):
        if image.shape[1:] != first[1:]:
            sizes = " and ".join(f"{shape[1]}x{shape[2]}" for shape in (first, image.shape))
            raise SleepkitError(f"{table.source} has images of {sizes} (rows 0 and {row}); give --image_size to resize them")
        if image.shape[0] != first[0]:
            raise SleepkitError(
                f"{table.source} has grey and RGB images (rows 0 and {row}); give --channels 1 or 3 to convert them"
            )
    index = {name: label for label, name in enumerate(names)}
    unknown = sorted({str(label) for label in table.labels} - set(index))
    if unknown:
        raise SleepkitError(
            f"{table.source} has the class {unknown[0]!r}, which is missing in the training split; remove it there"
        )
    return Images(torch.stack(images), torch.tensor([index[str(label)] for label in table.labels], dtype=torch.int64))


def _fitted(image: Tensor, image_size: int | None, channels: int | None) -> Tensor:
    if channels == 3 and image.shape[0] == 1:
        image = image.expand(3, -1, -1)
    elif channels == 1 and image.shape[0] == 3:
        weights = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)  # ITU-R 601, as in PIL
        image = (image * weights).sum(0, keepdim=True).round().to(torch.uint8)
    if image_size and tuple(image.shape[1:]) != (image_size, image_size):
        size = (image_size, image_size)
        resized = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True, align_corners=False)
        image = resized[0].round().clamp(0, 255).to(torch.uint8)
    return image


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
