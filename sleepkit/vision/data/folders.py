"""Folders of images: photos/<split>/<class>/*.png, or photos/<class>/*.png as one split.

A file is an image by its ending or, whatever its ending, by its first bytes; other files (Thumbs.db, README) and what begins
with a dot are skipped, and said to be.  A damaged image is an error that names it.
"""

from __future__ import annotations

from pathlib import Path

from sleepkit.errors import SleepkitError
from sleepkit.utils.remarks import Remarks
from sleepkit.vision.data.pictures import decoded, is_picture, picture_suffixes
from sleepkit.vision.data.tables import Table, sorted_splits

__all__ = ["read_class_folders"]

SKIPPED = "skipped, as no image of a class"


def read_class_folders(folder: Path, remarks: Remarks) -> dict[str, Table]:
    """Splits by name; none if it has no folders.  Raises `SleepkitError` for a class without images, or in folders of its own."""
    splits = sorted_splits(_folders(folder, None, folder), folder)
    if not splits:
        return {"train": _split(folder, folder, remarks)} if _folders(folder, None, folder) else {}
    for entry in sorted(folder.iterdir()):
        if entry not in splits.values():
            remarks.add(SKIPPED, entry.name)
    return {split: _split(path, folder, remarks) for split, path in splits.items()}


def _split(folder: Path, top: Path, remarks: Remarks) -> Table:
    classes = _folders(folder, remarks, top)
    if not classes:
        raise SleepkitError(f"{folder} has no folders; put the images of each class into one, as in {folder}/cat/1.png")
    suffixes = picture_suffixes()
    files = [(path, name) for name, inside in classes.items() for path in _pictures(inside, top, suffixes, remarks)]
    files.sort(key=lambda item: item[0].as_posix())
    pictures = (decoded(path, f"{folder} row {row} ({path})") for row, (path, _) in enumerate(files))
    return Table(pictures, [name for _, name in files], str(folder))


def _folders(folder: Path, remarks: Remarks | None, top: Path) -> dict[str, Path]:
    """Folders in a folder by name; the rest is remarked."""
    found = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith((".", "__MACOSX")):
            found[entry.name] = entry
        elif remarks is not None:
            remarks.add(SKIPPED, entry.relative_to(top).as_posix())
    return found


def _pictures(folder: Path, top: Path, suffixes: set[str], remarks: Remarks) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".")
        if path.is_dir() and not hidden:
            raise SleepkitError(f"{folder} has a folder, {path.name}; a class is one folder, put its images directly into it")
        readable = path.is_file() or not path.exists()  # a link to nothing is an error; pipes and the like are no files
        if readable and not hidden and (path.suffix.lower() in suffixes or is_picture(path)):
            found.append(path)
        else:
            remarks.add(SKIPPED, path.relative_to(top).as_posix())
    if not found:
        raise SleepkitError(f"{folder} has no images; add some, or remove the folder")
    return found
