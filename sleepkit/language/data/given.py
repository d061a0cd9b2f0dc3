"""Data that Python users have in memory already, as rows for the readers of files.

    ["A text.", "Another."]                   texts, an experience each
    [[{"role": ..., "content": ...}], ...]    chats, an experience each
    [{"context": ..., "questions": [...]}]    rows of any form that a file may have                              (rows.py)
    datasets.Dataset                          the same; numbers of labels become their names
    [Experience(...), ...]                    as they are

What has no title is named by its first words: on a later day an experience replaces one of the same name, and texts that are
given as "text 1" each day are not versions of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.errors import SleepkitError
from sleepkit.language.data.columns import EXPECTED, Row, Rows, shown
from sleepkit.language.data.experience import Experience
from sleepkit.language.data.rows import experiences_of

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["dataset_rows", "described", "given_experiences", "given_rows"]

_WORDS = 8
_DEFAULT_NAMES = ("text", "passage", "chat")  # of rows without a title


def given_rows(data: Any, name: str = "train_dataset", text_column: str = "text") -> Rows | None:
    """The rows of what is in memory; None for the name of a file, a folder or a data set of the Hub.

    Args:
        name: of the argument, for messages.
        text_column: column that texts are put into.

    Raises:
        SleepkitError: it is of none of the forms above.
    """
    if isinstance(data, (str, Path)):
        return None
    if hasattr(data, "features") and hasattr(data, "column_names") and hasattr(data, "__len__"):
        if isinstance(data, Mapping):
            raise SleepkitError(f"{name} has the splits {', '.join(map(str, data))}; give one of them, such as data['train']")
        return dataset_rows(data, name)
    if not isinstance(data, Sequence) or isinstance(data, bytes):
        raise SleepkitError(
            f"{name} is a {type(data).__name__}; give a folder, a file, a Hub id, a datasets.Dataset, or a list of texts, chats "
            "or rows"
        )
    return [(f"{name}[{number}]", _row(one, f"{name}[{number}]", text_column)) for number, one in enumerate(data)]


def given_experiences(data: Any, name: str = "train_dataset", text_column: str = "text") -> list[Experience]:
    """The experiences of what is in memory; arguments and errors as for `given_rows`."""
    if isinstance(data, Sequence) and data and all(isinstance(one, Experience) for one in data):
        return list(data)
    rows = given_rows(data, name, text_column)
    assert rows is not None
    return [_named(experience) for experience in experiences_of(rows, name, text_column)]


def dataset_rows(data: Dataset, name: str) -> Rows:
    """Rows of a loaded data set, each with its place; numbers of labels become their names."""
    from datasets import ClassLabel

    named = {column: kind.names for column, kind in data.features.items() if isinstance(kind, ClassLabel)}

    def with_names(row: dict[str, Any]) -> Row:
        labels = {column: row[column] for column in named}
        unknown = (None, -1)  # -1 is what test splits without labels have
        return row | {column: None if label in unknown else named[column][label] for column, label in labels.items()}

    return [(f"{name} row {number}", with_names(row)) for number, row in enumerate(data)]


def described(data: Any) -> str:
    """Data in a word for settings and cards: its name, or how much was given."""
    if isinstance(data, (str, Path)):
        return str(data)
    return f"{len(data)} {'rows' if hasattr(data, 'features') else 'given texts'}"


def _row(one: Any, place: str, text_column: str) -> Row:
    if isinstance(one, str):
        return {text_column: one}
    if isinstance(one, Mapping):
        return one
    if isinstance(one, Sequence) and one and all(isinstance(part, Mapping) for part in one):
        return {"messages": list(one)}
    raise SleepkitError(f"{place} is {shown(one)}; give a text, a chat (a list of messages) or a row of the form {EXPECTED}")


def _named(experience: Experience) -> Experience:
    """Return the row with its first words for a name, where it gives none."""
    only_pairs = bool(experience.notes) and not experience.also_read
    if experience.name not in _DEFAULT_NAMES and not only_pairs:
        return experience
    text = experience.notes[0].question if only_pairs else experience.documents[0]
    words = text.split()
    name = " ".join(words[:_WORDS])[:60]
    return replace(experience, name=name + (" ..." if len(name) < len(" ".join(words)) else ""))
