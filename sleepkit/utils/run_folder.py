"""Which files of an output folder a run wrote, so that starting anew deletes these and nothing else.

    <output_dir>/.sleepkit.json    {"version": 1, "files": [path, ...], "foreign": [path, ...]}    paths below the folder

A run claims a folder before it writes, and refuses one in which something of another origin has a name that it would use.
It notes its files each time it has finished a part; what somebody puts beside them later stays, also inside `model/`.

Left out: files that a killed run wrote since it noted them last.  They stay until the run that writes them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from sleepkit.errors import SleepkitError
from sleepkit.utils.files import read_json, write_json

__all__ = ["RunFolder"]

RECORD = ".sleepkit.json"


class RunFolder:
    """Output folder of one run, and what in it belongs to that run.

    Args:
        folder: where the run writes; it need not exist.
        patterns: top-level names that the run may write, as `Path.glob` takes them.
    """

    def __init__(self, folder: Path, patterns: Sequence[str]) -> None:
        self.folder, self.patterns = folder, patterns

    @property
    def is_claimed(self) -> bool:
        """Whether a run of ours has taken the folder before."""
        return (self.folder / RECORD).is_file()

    def claim(self) -> None:
        """Make the folder this run's, unless it is already.

        Raises:
            SleepkitError: it holds something of another origin under a name that the run would use.
        """
        if self.is_claimed:
            return
        foreign = self._files()
        if foreign:
            raise SleepkitError(
                f"{self.folder} holds no run of sleepkit, but {foreign[0]}, beside which a run would write; "
                "choose another output_dir, or move it away"
            )
        self._write([], [])

    def note(self) -> None:
        """Remember all files that the run has by now, for `clear`."""
        noted, foreign = self._read()
        self._write(sorted({*noted, *self._files()} - set(foreign)), foreign)

    def clear(self) -> None:
        """Delete the files that a run of ours noted, and the folders that are empty then; the folder stays claimed.

        Raises:
            SleepkitError: the folder holds no run of ours, but something under a name that a run would use.
        """
        self.claim()
        noted, _ = self._read()
        for name in noted:
            (self.folder / name).unlink(missing_ok=True)
        for path in sorted(self.folder.rglob("*"), reverse=True):  # inner ones first
            if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
                path.rmdir()
        self._write([], self._files())

    def _read(self) -> tuple[list[str], list[str]]:
        """Files of the run, and files of other origin that were there when it began."""
        document = read_json(self.folder / RECORD)
        lists = [document.get(name) if isinstance(document, dict) else None for name in ("files", "foreign")]
        if not all(isinstance(names, list) and all(map(_is_inside, names)) for names in lists):
            raise SleepkitError(f"{self.folder / RECORD} is damaged, so nothing is deleted; choose another output_dir")
        return cast(tuple[list[str], list[str]], tuple(lists))

    def _write(self, files: Sequence[str], foreign: Sequence[str]) -> None:
        write_json(self.folder / RECORD, {"version": 1, "files": files, "foreign": foreign})

    def _files(self) -> list[str]:
        """Paths of all files under the names that a run may use."""
        tops = [path for pattern in self.patterns for path in self.folder.glob(pattern)]
        files = (path for top in tops for path in (top.rglob("*") if top.is_dir() else [top]) if not path.is_dir())
        return sorted(path.relative_to(self.folder).as_posix() for path in files)


def _is_inside(name: object) -> bool:
    return isinstance(name, str) and ".." not in Path(name).parts and not Path(name).is_absolute()
