"""Which files of a folder are read, and how: every other one is named with the reason.

    .md .markdown .txt .rst ...              documents
    .html .pdf .docx .epub                   documents, by the packages of ``sleepkit[documents]``       pages.py
    .py .yaml .log ..., or without a suffix  documents too, as they stand; little of them is asked about  (language/prose.py)
    .jsonl .json .csv .tsv                   rows                                                       rows.py
    pictures, archives, programs, ...        not read

Small and capital letters in a suffix are the same.  What is hidden (``.git``, ``.notes.md``) is left out without a word.
A folder that a link leads to is read, but not one that is read anyway.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sleepkit.errors import SleepkitError
from sleepkit.language.data.columns import checked, shown_path
from sleepkit.language.data.pages import PAGES, page_text
from sleepkit.language.data.row_files import ROW_SUFFIXES
from sleepkit.language.data.unpacking import decoded, file_bytes, suffix_of

__all__ = ["PROSE", "Skipped", "files_of", "is_document", "read_document", "skip_lines"]

PROSE = (".md", ".markdown", ".mdown", ".mkd", ".txt", ".text", ".rst", ".adoc", ".asciidoc", ".org", ".tex")
_VERBATIM = frozenset(
    ".bash .bat .bib .c .cc .cfg .clj .cmake .conf .cpp .cs .css .cxx .dart .diff .ex .f90 .fish .go .gradle .h .hpp .hs .ini "
    ".java .jl .js .jsx .kt .less .lisp .log .lua .m .mjs .mk .ml .patch .php .pl .properties .proto .ps1 .py .pyi .r .rb .rs "
    ".sass .scala .scss .sh .sql .srt .svelte .swift .tf .toml .ts .tsx .vb .vim .vtt .vue .xml .yaml .yml .zsh".split()
)
_KINDS = {
    "is a picture": ".bmp .gif .heic .ico .jpeg .jpg .png .psd .raw .svg .tif .tiff .webp",
    "is sound or film": ".aac .avi .flac .m4a .mkv .mov .mp3 .mp4 .ogg .wav .webm .wmv",
    "is an archive; unpack it": ".7z .bz2 .gz .jar .rar .tar .tgz .xz .zip .zst",
    "is a program or made by one": ".a .bin .class .dat .db .dll .dylib .exe .npy .npz .o .pickle .pkl .pt .pyc .pyd "
    ".safetensors .so .sqlite .wasm .whl",
    "is of an office program; save it as .docx, .csv or .pdf": ".doc .key .numbers .odp .ods .odt .pages .ppt .pptx .rtf .xls "
    ".xlsx",
    "is a notebook; save it as .md or .py": ".ipynb",
}
_REASONS = {suffix: reason for reason, suffixes in _KINDS.items() for suffix in suffixes.split()}
_ONE_BY_ONE = 3  # skipped files of one reason that are named in lines of their own


@dataclass(frozen=True)
class Skipped:
    """A file that is not read: its path below the folder, and why, as the end of a sentence that begins with its name."""

    name: str
    reason: str


def is_document(path: Path) -> bool:
    """Whether a file is read as one document, as its suffix says."""
    suffix = suffix_of(path)
    if suffix in PAGES:
        return path.suffix.lower() != ".gz"
    return suffix in PROSE or suffix in _VERBATIM or not suffix


def _unread_kind(path: Path) -> str:
    other = f"is of a kind that is not read ({path.suffix}); save it as .txt if it is text"
    return _REASONS.get(path.suffix.lower(), other)


def read_document(path: Path) -> str:
    """Read a document and return its text.

    Raises:
        SleepkitError: not of a kind that is read, unreadable, or empty; the message begins with the path.
    """
    name, suffix = shown_path(path), suffix_of(path)
    if not is_document(path):
        raise SleepkitError(f"{name} {_unread_kind(path)}")
    data = file_bytes(path)
    text = page_text(data, suffix, name) if suffix in PAGES else decoded(data, name)
    if not text.strip():
        raise SleepkitError(f"{name} has an empty text; fill or remove it")
    return checked(text, name)


def files_of(folder: Path) -> tuple[list[Path], list[Skipped]]:
    """Documents and files of rows below a folder, by path, and what else is there.

    Raises:
        SleepkitError: the folder itself may not be read.
    """
    skipped: list[Skipped] = []
    found = []
    for path in sorted(_walk(folder, skipped)):
        reason = _reason(path, folder)
        if reason is None:
            found.append(path)
        else:
            skipped.append(Skipped(shown_path(path.relative_to(folder)), reason))
    return found, sorted(skipped, key=lambda one: one.name)


def skip_lines(skipped: Sequence[Skipped]) -> list[str]:
    """A line for each file that is not read; many of one reason share a line."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for one in skipped:
        by_reason[one.reason].append(one.name)
    lines = []
    for reason, names in by_reason.items():
        if len(names) <= _ONE_BY_ONE:
            lines += [f"not read: {name} {reason}" for name in names]
        else:
            lines.append(f"not read: {len(names)} files ({', '.join(names[:2])}, ...), each {reason}")
    return lines


def _walk(root: Path, skipped: list[Skipped]) -> Iterator[Path]:
    """Visible files below a folder."""
    reached = {_real(root)}  # real paths of the folder and of those that links lead to
    folders = [root]
    while folders:
        for path in _entries(folders.pop(), root, skipped):
            if not os.path.isdir(path):
                yield path
            elif path.is_symlink() and _read_anyway(path, reached):
                skipped.append(Skipped(shown_path(path.relative_to(root)), "is a link to a folder that is read anyway"))
            else:
                reached |= {_real(path)} if path.is_symlink() else set()
                folders.append(path)


def _entries(folder: Path, root: Path, skipped: list[Skipped]) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if not entry.name.startswith("."))
    except OSError as error:
        if folder == root:
            reason = error.strerror or type(error).__name__
            raise SleepkitError(f"{shown_path(folder)} cannot be read ({reason}); give a folder that you may read") from None
        skipped.append(Skipped(shown_path(folder.relative_to(root)), "is a folder that may not be read"))
        return []


def _read_anyway(link: Path, reached: set[str]) -> bool:
    """Whether a link leads to a folder that was reached already, that holds such a one, or that lies visibly below one."""
    target = _real(link)
    if any(one == target or one.startswith(target.rstrip(os.sep) + os.sep) for one in reached):
        return True
    return any(_visibly_below(target, one) for one in reached)


def _visibly_below(path: str, folder: str) -> bool:
    inside = path.startswith(folder.rstrip(os.sep) + os.sep)
    return inside and not any(part.startswith(".") for part in path[len(folder) :].split(os.sep))


def _real(path: Path) -> str:
    return os.path.realpath(path)


def _reason(path: Path, folder: Path) -> str | None:
    """Why a file is not read, as far as its name and kind tell."""
    if shown_path(path.relative_to(folder)) != str(path.relative_to(folder)):
        return "has a name that is not UTF-8; rename it"
    if not os.path.exists(path):
        return "is a link to nothing" if path.is_symlink() else "may not be read"
    if not os.path.isfile(path):
        return "is no ordinary file"
    if path.is_symlink() and _visibly_below(_real(path), _real(folder)):
        return "is a link to a file that is read anyway"
    return None if suffix_of(path) in ROW_SUFFIXES or is_document(path) else _unread_kind(path)
