"""Files that are there whole or not at all, and the one line that is said where a disk does not take them.

    with replacing(path) as draft: ...     write ``draft``; afterwards it is on the disk and in the place of ``path``
    with writable(path): ...               what fails inside because of the disk is one line that names ``path``
    write_text(path, text)                 the same for a text, and `save_figure` for a picture
    open_to_all(folder)                    weights that another library wrote there get the mode of other new files

Left out: a folder of many files, which `phases.PhaseFolder` and `sealed.seal` look after.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any

from sleepkit.errors import SleepkitError, first_line

__all__ = [
    "encoded",
    "open_to_all",
    "plain",
    "read_json",
    "read_jsonl",
    "replacing",
    "save_figure",
    "sync",
    "writable",
    "write_json",
    "write_jsonl",
    "write_text",
]

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another output folder",
    errno.EDQUOT: "free some space or choose another output folder",
    errno.EFBIG: "the disk, or `ulimit -f`, takes no file so large: raise it or choose another output folder",
    errno.EACCES: "choose another output folder, or allow writing there",
    errno.EPERM: "choose another output folder, or allow writing there",
    errno.EROFS: "choose another output folder, this one is read-only",
    errno.EEXIST: "a file stands where a folder is needed: move it away, or choose another output folder",
    errno.ENOTDIR: "a file stands where a folder is needed: move it away, or choose another output folder",
    errno.EISDIR: "a folder stands in the file's place: move it away, or choose another output folder",
}
_OF_TORCH = ("PytorchStreamWriter", "iostream error", "unexpected pos")  # what torch.save says of a disk that takes no more


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writable(path: str | Path) -> Iterator[None]:
    """Turn an error of the disk inside the block into a `SleepkitError` that names ``path``, the reason and the remedy."""
    try:
        yield
    except SleepkitError:
        raise
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "choose another output folder")
        raise SleepkitError(f"cannot write {path}: {error.strerror or first_line(error)}; {remedy}") from error
    except Exception as error:  # safetensors and torch.save have errors of their own for a full disk
        if type(error).__name__ != "SafetensorError" and not any(words in str(error) for words in _OF_TORCH):
            raise
        raise SleepkitError(f"cannot write {path}: {first_line(error)}; {_REMEDIES[errno.ENOSPC]}") from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a draft to write inside the block; it takes the place of ``path`` in one step, or is removed where anything fails.

    Missing folders are made.  The draft does not have the suffix of ``path``, so that nobody takes it for a result.  The file has
    the mode that the umask gives, whoever wrote the draft.

    Raises:
        SleepkitError: the disk does not take it.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # same folder: a rename is atomic only inside one disk
    with writable(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield draft
            draft.chmod(_usual_mode())
            sync(draft)
            os.replace(draft, path)
        finally:
            with suppress(OSError):
                draft.unlink()


def open_to_all(folder: str | Path) -> None:
    """Give the weights in a folder the mode that the umask gives to new files: safetensors writes them for their owner alone."""
    for path in Path(folder).glob("*.safetensors"):
        path.chmod(_usual_mode())


def _usual_mode() -> int:
    mask = os.umask(0o077)  # it can be read in no other way than by setting one
    os.umask(mask)
    return 0o666 & ~mask


def encoded(text: str) -> bytes:
    r"""UTF-8; half of a surrogate pair, which has none, becomes its escape ``\ud83d``, which JSON reads back as it was."""
    return text.encode("utf-8", "backslashreplace")


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all; errors as in `replacing`."""
    with replacing(path) as draft:
        draft.write_bytes(encoded(text))


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a figure of Matplotlib, whole or not at all, in the format of the suffix; errors as in `replacing`."""
    with replacing(path) as draft:
        figure.savefig(draft, format=Path(path).suffix.removeprefix("."))


def plain(value: Any) -> Any:
    """`value` as JSON holds it: numpy and torch become numbers or lists, paths text, NaN and infinities null."""
    if value is None or isinstance(value, (str, bool, int)) and not isinstance(value, Enum):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # numpy and torch: scalars and arrays
        return plain(value.tolist())
    if type(value).__module__ == "torch":  # torch.dtype, torch.device
        return str(value)
    raise SleepkitError(f"cannot write {value!r} ({type(value).__name__}) as JSON; turn it into numbers, text or lists")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically; missing folders are made.

    Raises:
        SleepkitError: if a part of `value` has no JSON form, or the file cannot be written (full disk, no permission).
    """
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically; errors as in `write_json`."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[Any]:
    """The objects of a file, one a line; raises `OSError` or `ValueError`, as only the caller knows what to do then.

    Only a line feed ends a line: a text may hold other characters that Python takes for the end of one, such as U+2028.
    """
    return [json.loads(line) for line in path.read_bytes().decode("utf-8").split("\n") if line]


def read_json(path: str | Path) -> Any:
    """Read a JSON file and return its content.

    Raises:
        SleepkitError: if the file is missing, unreadable or not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise SleepkitError(f"cannot read {path}: {error.strerror}; give the output folder of a run") from error
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
        raise SleepkitError(f"{path} is not valid JSON ({error}); delete it and run again") from error


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not a number")
