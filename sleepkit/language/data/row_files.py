"""Rows of a file or of a data set of the Hub, each with its place for messages.

    file.jsonl, .ndjson    one JSON object a line
    file.json              a list of objects, one object, or {"data": [objects]}
    file.csv, .tsv         a line of column names, then lines of values; , ; or tabs between them

Each may end in .gz.  JSON is read strictly: a key that stands twice and NaN, of which a reader would have to guess the
meaning, are refused.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn

from sleepkit.errors import SleepkitError, first_line
from sleepkit.language.data.columns import Row, Rows, shown_path
from sleepkit.language.data.given import dataset_rows
from sleepkit.language.data.unpacking import decoded, file_bytes, suffix_of

__all__ = ["JSON_LINES", "ROW_SUFFIXES", "TABLES", "file_rows", "hub_rows"]

JSON_LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv")
ROW_SUFFIXES = (*JSON_LINES, ".json", *TABLES)


def file_rows(path: Path) -> Rows:
    """All rows of a file, as its name says.

    Raises:
        SleepkitError: no file of rows, unreadable, not of its form (with the line), or larger than it may get unpacked.
    """
    suffix, name = suffix_of(path), shown_path(path)
    if suffix not in ROW_SUFFIXES:
        raise SleepkitError(f"{name} has no rows; give a {', '.join(ROW_SUFFIXES[:-1])} or {ROW_SUFFIXES[-1]} file")
    text = decoded(file_bytes(path), name)
    if suffix in JSON_LINES:
        lines = enumerate(text.split("\n"), start=1)  # not splitlines, which breaks at U+2028 inside a text
        return [(f"{name} line {number}", _json(line, f"{name} line {number}")) for number, line in lines if line.strip()]
    if suffix == ".json":
        return [(f"{name} item {number}", row) for number, row in enumerate(_items(_json(text, name)), start=1)]
    return list(_table(text, name, "\t" if suffix == ".tsv" else None))


def _items(content: Any) -> list[Any]:
    if isinstance(content, Mapping) and isinstance(content.get("data"), list):
        content = content["data"]
    return content if isinstance(content, list) else [content]


def _json(text: str, place: str) -> Any:
    hint = "write one JSON object per line" if " line " in place else "correct it"
    try:
        return json.loads(text, parse_constant=_no_number, object_pairs_hook=_unambiguous)
    except RecursionError:
        raise SleepkitError(f"{place} is nested too deeply to be read; give rows of texts") from None
    except ValueError as error:  # not JSON, or a number of more digits than Python reads
        raise SleepkitError(f"{place} is not JSON ({first_line(error)}); {hint}") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"the key {_twice([name for name, _ in pairs])!r:.60} stands twice")
    return row


def _twice(names: list[str]) -> str:
    return Counter(names).most_common(1)[0][0]


def _table(text: str, name: str, delimiter: str | None) -> Iterator[tuple[str, Row]]:
    """Rows of a table; a value that is missing at the end of a line is empty."""
    csv.field_size_limit((1 << 31) - 1)  # a document may be one cell
    first = text.partition("\n")[0]
    delimiter = delimiter or max(",;\t", key=first.count)
    lines = csv.reader((line + "\n" for line in text.split("\n")), delimiter=delimiter, strict=True)
    columns: list[str] = []
    try:
        for values in lines:
            place = f"{name} line {lines.line_num}"
            if not any(value.strip() for value in values):
                continue
            if not columns:
                columns = _column_names(values, place)
                continue
            if len(values) > len(columns):
                raise SleepkitError(
                    f"{place} has {len(values)} values for {len(columns)} columns; put texts with delimiters in double quotes"
                )
            yield place, dict(zip_longest(columns, values, fillvalue=""))
    except csv.Error as error:
        raise SleepkitError(f"{name} line {lines.line_num} is not a line of a table ({error}); correct the quotes") from None


def _column_names(values: list[str], place: str) -> list[str]:
    names = [value.strip() for value in values]
    if len(set(names)) < len(names):
        raise SleepkitError(f"{place} names the column {_twice(names)!r:.60} twice; give each column a name of its own")
    return names


def hub_rows(dataset: str, split: str) -> Rows:
    """Rows of a data set of the Hub, ``owner/name`` or ``owner/name:config``; numbers of labels become their names."""
    import datasets

    try:
        loaded = datasets.load_dataset(*dataset.split(":", 1), split=split)
    except Exception as error:  # the Hub, the network and data set builders each raise their own
        raise SleepkitError(
            f"{dataset} (split {split!r}) is no local path and cannot be loaded from the Hub ({first_line(error)}); "
            "check the id, the split and the network, or give a local path"
        ) from error
    return dataset_rows(loaded, dataset)
