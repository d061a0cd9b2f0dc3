"""Folders whose content can be trusted: a manifest of digests, written last, and a lock that only one run holds.

    seal(folder)        MANIFEST.json = {"version": 1, "files": {path: SHA-256 of its bytes}}; all of it synced to the disk
    damage(folder)      why the folder is not what was sealed, or None
    locked(folder)      inside, no other process of this machine holds the folder; the same process may take it again

A kill, a full disk or a flipped bit leaves a folder that `damage` names, and never one that looks whole: files are synced
before the manifest is, and the manifest is renamed into place.  `flock` is released by the kernel when its process ends,
however it ends, so that a lock is never left behind.

Left out: defence against somebody who changes a file and its digest.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from sleepkit.errors import SleepkitError
from sleepkit.utils.files import sync, write_json

__all__ = ["MANIFEST", "damage", "file_digest", "locked", "seal", "sync"]

MANIFEST = "MANIFEST.json"
LOCK = ".lock"
_HELD: set[Path] = set()  # by this process


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def seal(folder: Path) -> None:
    """Write the manifest of all files below ``folder``, after they are synced.

    Raises:
        SleepkitError: a file cannot be read or the manifest cannot be written (full disk, no permission).
    """
    try:
        files = _files(folder)
        for path in files:
            sync(path)
        digests = {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
    except OSError as error:
        raise SleepkitError(f"cannot read {folder} back: {error.strerror}; check the disk") from error
    write_json(folder / MANIFEST, {"version": 1, "files": digests})
    sync(folder)


def damage(folder: Path) -> str | None:
    """Why ``folder`` is not what `seal` saw, in a few words; None if each byte is.

    Files that came later are damage too: a sealed folder is complete.
    """
    try:
        digests = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        found = {path.relative_to(folder).as_posix() for path in _files(folder)}
        for name in sorted({*digests, *found}):
            if name not in found:
                return f"{name} is missing"
            if name not in digests:
                return f"{name} is not part of it"
            if file_digest(folder / name) != digests[name]:
                return f"{name} has changed"
    except FileNotFoundError:
        return "it was not finished"
    except (OSError, ValueError, TypeError, KeyError):
        return f"its {MANIFEST} cannot be read"
    return None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; it is made if it is missing, and goes again if nothing was put into it.

    Raises:
        SleepkitError: another process holds it (its number is named), or the folder cannot be made.
    """
    own = folder.absolute()
    if own in _HELD:
        yield
        return
    with _lock_file(folder) as file:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        _HELD.add(own)
        try:
            yield
        finally:
            _HELD.discard(own)
            if folder.is_dir() and [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                folder.rmdir()


def _lock_file(folder: Path) -> TextIO:
    """The folder's lock file, open and locked."""
    path = folder / LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - its lock ends when it is closed
        except OSError as error:
            raise SleepkitError(f"cannot use {folder}: {error.strerror}; choose another output_dir") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
            file.close()  # the one that held it took the file away meanwhile
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise SleepkitError(
                f"process {holder} is working in {folder}; wait for it, choose another output_dir, or stop it (kill {holder}; "
                "it may be left over from a launcher that was killed)"
            ) from error


def _files(folder: Path) -> list[Path]:
    """All files below a folder but its manifest."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
