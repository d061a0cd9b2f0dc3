"""Splits of a data set before they are stacked, and how they are read from parquet files, `datasets` folders and the Hub.

    Table      pictures one after the other or all at once, a label of each, their source, the classes' order if there is one

A label is text or a whole number; anything else is refused, as are missing ones (null, "", -1 of a `ClassLabel`).  Of several
columns of images, the one called image or img is meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sleepkit.errors import SleepkitError, first_line
from sleepkit.vision.data.pictures import Picture, decoded

__all__ = ["SPLITS", "Table", "read_datasets", "read_parquet", "sorted_splits"]

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "y", "fine_label", "class", "wnid")


@dataclass
class Table:
    """Table of one split, as it was read.

    Attributes:
        images: `Tensor` of all, ``(n, channels, height, width)`` or features ``(n, size)``; or one after the other, each decoded
            when it is asked for.
        labels: text or whole numbers, ``n`` of them.
        source: for messages.
        order: the classes in order, if the source has one; then labels are among them.
    """

    images: Tensor | Iterator[Picture]
    labels: list[str] | list[int]
    source: str
    order: list[str] | None = None


def sorted_splits(found: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    """Sort things by split, those whose name is in `SPLITS`.

    Raises:
        SleepkitError: two are the same split.
    """
    splits: dict[str, Any] = {}
    for split, names in SPLITS.items():
        named = [name for name in found if name.lower() in names]
        if len(named) > 1:
            raise SleepkitError(f"{source} has both {' and '.join(named)}, which are one split; remove or rename one of them")
        if named:
            splits[split] = found[named[0]]
    return splits


def read_parquet(path: Path, label_column: str | None) -> Table:
    """Read one split from a file, with its columns as `datasets` wrote them."""
    import datasets

    try:
        table = datasets.Dataset.from_parquet(str(path))
    except Exception as error:  # pyarrow and datasets each raise their own
        raise SleepkitError(f"{path} cannot be read ({first_line(error)}); write it again with datasets' to_parquet") from None
    return _from_rows(table, str(path), label_column)


def read_datasets(source: Path | str, label_column: str | None) -> dict[str, Table]:
    """All splits of a folder that `datasets` has saved, of one as on the Hub or with a metadata file, or of a Hub id."""
    import datasets

    try:
        if isinstance(source, str):
            loaded = datasets.load_dataset(source)
        elif (source / "dataset_dict.json").is_file() or (source / "state.json").is_file():
            loaded = datasets.load_from_disk(str(source))
        elif any(source.glob("*.parquet")) or any(source.glob("data/*.parquet")):
            loaded = datasets.load_dataset(str(source))
        else:
            loaded = datasets.load_dataset("imagefolder", data_dir=str(source))
    except Exception as error:  # the Hub, the network and data set builders each raise their own
        raise SleepkitError(
            f"dataset {str(source)!r} cannot be loaded ({first_line(error)}); give a folder with train.npz, train.parquet or "
            "train/<class>/*.png, or the id of a data set on the Hub, and check the network"
        ) from None
    loaded = loaded if isinstance(loaded, Mapping) else {"train": loaded}
    splits = sorted_splits(loaded, source)
    if not splits:
        raise SleepkitError(f"{source} has the splits {sorted(loaded)}; name them train, validation and test")
    return {split: _from_rows(table, f"{source} ({split})", label_column) for split, table in splits.items()}


def _from_rows(table: Any, source: str, label_column: str | None) -> Table:
    import datasets

    kinds = table.features
    image, label = _image_column(kinds, source), label_column or next((name for name in LABEL_COLUMNS if name in kinds), "")
    if image is None or label not in kinds:
        raise SleepkitError(f"{source} has the columns {sorted(kinds)}; it needs one of images and a label (--label_column)")
    order = list(kinds[label].names) if isinstance(kinds[label], datasets.ClassLabel) else None
    labels = [_label(value, order, f"{source} row {row}", label) for row, value in enumerate(table[label])]
    encoded = table.cast_column(image, datasets.Image(decode=False))[image]
    return Table(_decoded(encoded, source), labels, source, order)  # type: ignore[arg-type]


def _image_column(kinds: Mapping[str, Any], source: str) -> str | None:
    import datasets

    def holds_images(kind: Any) -> bool:
        plain = isinstance(kind, Mapping) and set(kind) == {"bytes", "path"}  # as other writers leave an `Image`
        return plain or isinstance(kind, datasets.Image) or kind == datasets.Value("binary")

    images = [name for name, kind in kinds.items() if holds_images(kind)]
    named = [name for name in IMAGE_COLUMNS if name in images]
    if len(images) > 1 and not named:
        raise SleepkitError(f"{source} has the columns of images {images}; rename the one that is meant to 'image'")
    return next(iter(named or images), None)


def _label(value: Any, order: list[str] | None, place: str, column: str) -> str | int:
    if order is not None and isinstance(value, int):
        value = order[value] if 0 <= value < len(order) else None
    if value is None or value == "":
        raise SleepkitError(f"{place} has no {column}; give it one, or remove the row")
    if not isinstance(value, (str, int)):
        raise SleepkitError(f"{place} has the {column} {value!r:.60} ({type(value).__name__}); give whole numbers or names")
    return value


def _decoded(encoded: Iterable[Mapping[str, Any] | None], source: str) -> Iterator[Picture]:
    for row, image in enumerate(encoded):
        place = f"{source} row {row}"
        if image is None or (image["bytes"] is None and image["path"] is None):
            raise SleepkitError(f"{place} has no image; give it one, or remove the row")
        content = image["bytes"] if image["bytes"] is not None else Path(image["path"])
        yield decoded(content, f"{place} ({image['path']})" if image["path"] else place)
