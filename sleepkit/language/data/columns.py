"""What stands in a column of a row, or one line that names the row and says what is wrong with it."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sleepkit.errors import SleepkitError

__all__ = ["EXPECTED", "Row", "Rows", "checked", "gold_of", "shown", "shown_path", "text_of", "title_of", "value_of"]

Row = Mapping[str, Any]
Rows = Sequence[tuple[str, Row]]  # each with its place, for messages: "file.jsonl line 3"

EXPECTED = (
    "{context, title?, questions?: [{question, answer, kind?}]}, {context, question, answers: {text}}, "
    "{messages: [{role, content}]}, {conversations: [{from, value}]}, {prompt, completion}, {instruction, input?, output}, "
    "{question, answer} or {text}"
)
_NO_TEXT = re.compile("[\ud800-\udfff\0]")
_SHOWN_COLUMNS = 12
_SHORT = reprlib.Repr()  # of nested values the beginning, however deep they are
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def checked(text: str, place: str, what: str = "text") -> str:
    """Return a text that can be written and tokenised as it is.

    Args:
        text: of a user.
        place: where it stands, such as file and line, for messages.
        what: it is, for messages.

    Raises:
        SleepkitError: it has half of a surrogate pair or a NUL character.
    """
    if found := _NO_TEXT.search(text):
        kind = "a NUL character" if found[0] == "\0" else f"half of a surrogate pair ({found[0]!r})"
        raise SleepkitError(f"{place} has {kind} in its {what}, at character {found.start() + 1}; correct or remove it")
    return text


def text_of(row: Row, column: str, place: str, expected: str = EXPECTED) -> str:
    """Return the text that stands in a column of a row.

    Args:
        row: by column.
        column: its name.
        place: where the row stands, such as file and line, for messages.
        expected: which columns rows have, for messages.

    Raises:
        SleepkitError: there is no such column, or no text in it.
    """
    value = value_of(row, column, place, expected)
    if not isinstance(value, str):
        raise SleepkitError(f"{place} has a {column} of type {type(value).__name__} ({shown(value)}); give text")
    if not value.strip():
        raise SleepkitError(f"{place} has an empty {column}; fill or remove it")
    return checked(value, place, column)


def gold_of(value: Any, place: str, depth: int = 2) -> str | None:
    """Return the first answer of what stands for one; None for an empty list.

    Args:
        value: text, a whole number, ``{text: ...}`` or a list of these.
        place: where it stands, for messages.
        depth: lists and mappings that may lie in one another.

    Raises:
        SleepkitError: it is of another type, or a list that was written as text.
    """
    if depth and isinstance(value, Mapping) and "text" in value:
        return gold_of(value["text"], place, depth - 1)
    if depth and isinstance(value, list):
        return gold_of(value[0], place, depth - 1) if value else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise SleepkitError(
            f"{place} has an answer of type {type(value).__name__} ({shown(value)}); give text, a list of it or {{text: [...]}}"
        )
    if value.lstrip()[:2] in ("['", '["', "{'", '{"'):
        raise SleepkitError(f"{place} has a list written as text ({shown(value)}) for an answer; give the answer alone")
    return text_of({"answer": value}, "answer", place)


def title_of(row: Row, default: str, place: str) -> str:
    """Return the title of a row on one line, or ``default`` where it has none.  Raises `SleepkitError` if it is no text."""
    title = row.get("title")
    if title is None or title == "":
        return default
    if isinstance(title, int) and not isinstance(title, bool):
        return str(title)
    return " ".join(text_of(row, "title", place).split())


def value_of(row: Row, column: str, place: str, expected: str = EXPECTED) -> Any:
    """Return what stands in a column of a row, of whatever type; arguments as for `text_of`.

    Raises:
        SleepkitError: there is no such column.
    """
    if column not in row:
        raise SleepkitError(f"{place} has no {column!r} (found {shown_columns(row)}); expected {expected}")
    return row[column]


def shown_columns(row: Row) -> str:
    """Names of the columns, as many as fit a line."""
    names = sorted(map(str, row))
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    return f"{[name[:60] for name in names[:_SHOWN_COLUMNS]]}{more}"


def shown(value: Any) -> str:
    """The beginning of a value as it is written in Python, short enough for a line."""
    return _SHORT.repr(value)[:80]


def shown_path(path: str | Path) -> str:
    """A path as text that can be written, whatever bytes its name is of."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")
