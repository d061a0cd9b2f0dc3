"""Paths as users type them: ``~`` is the home folder, and what no file system takes is one line.

existing("~/digits", "dataset")    a `Path`, or None where nothing is
"""

from __future__ import annotations

from pathlib import Path

from sleepkit.errors import SleepkitError, first_line

__all__ = ["existing", "new_folder"]


def existing(given: str | Path, name: str) -> Path | None:
    """The file or folder at a path, with ``~`` expanded; None where there is none.

    Args:
        given: the path.
        name: of the option that it came by, for messages.

    Raises:
        SleepkitError: it is empty, too long, has a zero byte, or ``~`` stands for nobody.
    """
    if not str(given):
        raise SleepkitError(f"{name} is empty; give a file or folder")
    try:
        path = Path(given).expanduser()
        path.lstat()
        return path if path.exists() else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RuntimeError, ValueError) as error:
        raise SleepkitError(f"{name} {str(given)[:60]!r} cannot be looked at ({first_line(error)}); correct the path") from None


def new_folder(given: str | Path, name: str) -> Path:
    """A folder that is there and can be written to, made if it is missing.

    Raises:
        SleepkitError: it cannot be made, or nothing can be written there.
    """
    existing(given, name)  # what no file system takes
    path = Path(given).expanduser()
    probe = path / ".writable"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may look too
    except OSError as error:
        raise SleepkitError(f"{name} {path} cannot be written to ({error.strerror}); choose another folder") from None
    return path
