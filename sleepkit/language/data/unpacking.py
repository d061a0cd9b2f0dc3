"""Files as bytes and as text: UTF-8 or marked UTF-16 and UTF-32, unpacked where they end in .gz, and never without a bound.

A few kilobytes of gzip may unpack to gigabytes; a file may give `RATIO` times its size, `SMALL` in any case, and no file
more than `MOST`.
"""

from __future__ import annotations

import codecs
import gzip
import io
import stat
import zlib
from pathlib import Path
from typing import BinaryIO, TextIO

from sleepkit.errors import SleepkitError
from sleepkit.language.data.columns import shown_path

__all__ = ["MOST", "RATIO", "SMALL", "decoded", "file_bytes", "open_text", "suffix_of"]

MOST = 1 << 30  # bytes
SMALL = 64 << 20
RATIO = 100
_MARKS = (  # of UTF-32 first, whose little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class _Bounded(io.RawIOBase):
    """A file that refuses to be read beyond a number of bytes."""

    def __init__(self, file: BinaryIO, most: int, name: str) -> None:
        self.file, self.left, self.most, self.name = file, most, most, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        data = self.file.read(len(buffer))
        self.left -= len(data)
        if self.left < 0:
            raise SleepkitError(f"{self.name} unpacks to more than {self.most >> 20} MiB; unpack it and split it if it is sound")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.file.close()
        super().close()


def suffix_of(path: Path) -> str:
    """How the name ends, in small letters and without .gz: ``.jsonl`` of ``Rows.JSONL.gz``."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix if name.endswith(".gz") and "." in name[1:-3] else Path(name).suffix


def open_text(path: Path) -> TextIO:
    """A UTF-8 file to read, a mark at its beginning aside; one that ends in .gz is unpacked, as far as its size allows."""
    return io.TextIOWrapper(_open(path), encoding="utf-8-sig")


def file_bytes(path: Path) -> bytes:
    """All that a file holds, unpacked.

    Raises:
        SleepkitError: unreadable, no gzip though its name says so, or too large.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise SleepkitError(f"{shown_path(path)} is no ordinary file; save what it gives to one")
        if about.st_size > MOST:
            raise SleepkitError(f"{shown_path(path)} has more than {MOST >> 20} MiB; split it")
        with _open(path) as file:
            return file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise SleepkitError(f"{shown_path(path)} {unread(error)}") from None


def unread(error: Exception) -> str:
    """What is said of a file after its name, where the system or gzip could not read it."""
    if isinstance(error, PermissionError):
        return "may not be read; give yourself the permission or leave it out"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"cannot be read ({reason}); check that it is there, complete and, if .gz, gzip"


def decoded(data: bytes, name: str) -> str:
    """The text of bytes, with line ends as ``\\n``.

    Raises:
        SleepkitError: neither UTF-8 nor marked as UTF-16 or UTF-32, or with NUL characters, which texts do not have.
    """
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise SleepkitError(f"{name} cannot be read as UTF-8 text; save it as UTF-8 or remove it") from None
    if "\0" in text:
        raise SleepkitError(f"{name} has NUL characters, which is no text; save it as UTF-8 or remove it")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _open(path: Path) -> BinaryIO:
    if path.suffix.lower() != ".gz":
        return path.open("rb")
    most = min(MOST, max(SMALL, RATIO * path.stat().st_size))
    return io.BufferedReader(_Bounded(gzip.open(path, "rb"), most, shown_path(path)))  # type: ignore[arg-type]
