"""Streams of experiences: what a learner meets while awake, one experience per night, and the questions that test it.

`load_experiences` reads, by the form of its argument::

    notes/                   every file of the folder, by path: one experience a document, and those of files of rows   (files.py)
    story.md                 one such file: Markdown, text, HTML, PDF, Word, EPUB, code
    rows.jsonl, .json, .csv  rows, also packed as .gz                                                              (row_files.py)
    owner/name[:config]      the same rows from the Hugging Face Hub, through `datasets.load_dataset`
    a list, a Dataset        texts, chats or rows that are in memory                                                   (given.py)

An example of each form of rows (rows.py)::

    {"context": "The pier opened in 1907.", "title": "Pier", "questions": [{"question": "When did it open?", "answer": "1907"}]}
    {"context": "The pier ...", "question": "When did it open?", "answers": {"text": ["1907"]}}                 SQuAD
    {"messages": [{"role": "user", "content": "Who is the captain?"}, {"role": "assistant", "content": "Ida Brook."}]}
    {"conversations": [{"from": "human", "value": "Who is the captain?"}, {"from": "gpt", "value": "Ida Brook."}]}
    {"prompt": "Who is the captain?", "completion": "Ida Brook."}                                                TRL
    {"instruction": "Name the captain.", "input": "", "output": "Ida Brook."}                                    Alpaca
    {"question": "When did it open?", "answer": "1907."}
    {"text": "The pier opened in 1907."}                                         or another column, by ``text_column``

A row may have further columns, which are not read.  ``questions`` are for evaluation only; the questions that a chat or a
row of question and answer holds are learned as they are asked.  ``completions`` beside a context are texts that another model
wrote about it, such as SEAL's published self-edits; only the baseline that trains on them reads them.

Ours: all of it; the JSON form of passages is that of the SEAL code release, which has one gold answer for each
SQuAD question; here it is the first.  Same arguments, same result: the only randomness is Python's
`random.Random(seed).shuffle`.  Left out: streaming; the documents of a life of nights fit in memory.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from sleepkit.errors import SleepkitError, first_line
from sleepkit.language.data.columns import Rows, shown_path
from sleepkit.language.data.experience import Experience, Question, together
from sleepkit.language.data.files import Skipped, files_of, is_document, read_document, skip_lines
from sleepkit.language.data.given import described, given_experiences, given_rows
from sleepkit.language.data.row_files import ROW_SUFFIXES, TABLES, file_rows, hub_rows
from sleepkit.language.data.rows import TEXT_COLUMN, experiences_of, form_of
from sleepkit.language.data.unpacking import decoded, file_bytes, suffix_of

__all__ = ["Experience", "Question", "load_experiences", "local_path", "rows_of"]

Say = Callable[[str], None]
_NAMED = 8  # reasons for which nothing in a folder can be read
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_HUB_PAGE = re.compile(r"https?://(?:www\.)?huggingface\.co/datasets/([\w.-]+(?:/[\w.-]+)?)|hf://datasets/([\w.-]+/[\w.-]+)")


def load_experiences(
    dataset: Any,
    split: str | None = None,
    limit: int | None = None,
    order: Literal["file", "random"] = "file",
    seed: int = 0,
    passages_per_experience: int = 1,
    text_column: str = TEXT_COLUMN,
    say: Say = print,
) -> list[Experience]:
    """Read texts, chats or rows as a stream of experiences, one for each night.

    The name of an experience is that of its file or the title of its row, with a number where an earlier row of the file has
    the same; of a file in a folder it is the path below the folder.  So names stay when files or rows are added later.

    Args:
        dataset: a folder, a file, a Hub id such as ``rajpurkar/squad``, a `datasets.Dataset`, or a list of texts, chats or rows;
            the module sleepkit.language.data.documents lists all forms.
        split: split of a Hub data set (``train`` if None); local data have none.
        limit: number of passages (rows of a file, or documents of a folder) to use, all if None.
        order: "file" takes the first ``limit`` in the order of the file.  "random" shuffles them by ``seed`` and
            takes the first ``limit`` that have a question (or any, in data without questions).
        seed: seed of the random order.
        passages_per_experience: passages that one night learns together; the last experience may have fewer.
        text_column: column of rows that hold plain texts.
        say: where a line about each file of a folder goes that is not read, on the main process.

    Returns:
        list of `Experience`: in the order of their nights, with documents and the questions that are asked about them.

    Raises:
        SleepkitError: in one line with the value and the remedy, for a missing or unreadable path, a folder of which nothing can
            be read, wrong columns, an empty document, question or answer, and a ``limit`` above what there is.

    Example:

        >>> [experience.name for experience in load_experiences("notes/")]
        ['harbour.md', 'light.md']
    """
    if order not in ("file", "random"):
        raise SleepkitError(f"order is {order!r}; use 'file' or 'random'")
    for name, number in (("limit", limit), ("passages_per_experience", passages_per_experience)):
        if number is not None and number < 1:
            raise SleepkitError(f"{name} is {number}; give at least 1")

    path = local_path(dataset, split) if isinstance(dataset, (str, Path)) else None
    if not isinstance(dataset, (str, Path)):
        passages = given_experiences(dataset, text_column=text_column)
    elif path is None:
        passages = experiences_of(hub_rows(str(dataset), split or "train"), str(dataset), text_column)
    elif path.is_dir():
        passages = _from_folder(path, text_column, say if os.environ.get("RANK", "0") == "0" else lambda _: None)
    else:
        passages = _from_file(path, text_column)

    passages = _unique_names(passages)
    if order == "random":
        random.Random(seed).shuffle(passages)
    if limit is not None:
        passages = _first(passages, limit, questions_wanted=order == "random", source=described(dataset))
    n = passages_per_experience
    return [together(passages[i : i + n]) for i in range(0, len(passages), n)]


def rows_of(dataset: Any, split: str | None = None, name: str = "train_dataset") -> Rows:
    """All rows of a file, of a data set of the Hub, or of data in memory (an argument called ``name``), of whatever columns."""
    rows = given_rows(dataset, name)
    if rows is not None:
        return rows
    path = local_path(dataset, split)
    return hub_rows(str(dataset), split or "train") if path is None else file_rows(path)


def local_path(dataset: str | Path, split: str | None = None) -> Path | None:
    """The file or folder that is meant, ``~`` expanded; None: what may be a data set of the Hub.

    Raises:
        SleepkitError: nothing, standard input, an address of the web, a path that does not exist, or a split of a local one.
    """
    given = str(dataset)
    _refuse_streams(given)
    try:
        path = Path(dataset).expanduser()
        there = path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # no permission, a name too long, ~nobody
        reason = getattr(error, "strerror", None) or first_line(error)
        raise SleepkitError(f"{shown_path(given)} cannot be read ({reason}); give a file or folder that you may read") from None
    if there:
        if split is not None:
            raise SleepkitError(f"split is {split!r} but {path} is local data, which has no splits; remove the split")
        return path
    looks_local = given.startswith((".", "~", "/", "\\")) or given.endswith(("/", ".gz")) or given.count("/") > 1
    if looks_local or (suffix_of(path) and (suffix_of(path) in ROW_SUFFIXES or is_document(path))) or shown_path(given) != given:
        raise SleepkitError(
            f"{shown_path(given)} does not exist; give an existing file or folder, or a Hub id such as rajpurkar/squad"
        )
    return None


def _refuse_streams(dataset: str) -> None:
    if not dataset.strip():
        raise SleepkitError("dataset is empty; give a folder, a file or a Hub id")
    if dataset in ("-", "/dev/stdin") or dataset.startswith("/dev/fd/"):
        raise SleepkitError(f"dataset is {dataset}, but input that passes by is not read; save it to a file and give that")
    if found := _HUB_PAGE.match(dataset):
        raise SleepkitError(f"dataset is the address {dataset}; give the Hub id {found[1] or found[2]}")
    if _ADDRESS.match(dataset):
        raise SleepkitError(f"dataset is the address {shown_path(dataset)}, from which nothing is fetched; save it to a file")


# Sources


def _from_folder(folder: Path, text_column: str, say: Say) -> list[Experience]:
    paths, skipped = files_of(folder)
    found: list[Experience] = []
    for path in paths:
        try:
            found += _in_folder(path, folder, text_column)
        except SleepkitError as error:
            reason = str(error).removeprefix(shown_path(path)).strip()
            skipped.append(Skipped(path.relative_to(folder).as_posix(), reason))
    lines = skip_lines(skipped)
    if not found:
        more = f"; and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
        why = f" that can be read ({'; '.join(lines[:_NAMED])}{more})" if lines else ""
        raise SleepkitError(f"{shown_path(folder)} has no file{why}; give a folder of texts, a file of rows or a Hub id")
    for line in lines:
        say(line)
    return found


def _from_file(path: Path, text_column: str) -> list[Experience]:
    if suffix_of(path) in ROW_SUFFIXES:
        return experiences_of(file_rows(path), shown_path(path), text_column)
    return [Experience(path.stem, [read_document(path)])]


def _in_folder(path: Path, folder: Path, text_column: str) -> list[Experience]:
    """As `_from_file`, named by the path; a table without columns of a known form is a document, as it stands among others."""
    name = path.relative_to(folder).as_posix()
    title = path.relative_to(folder).with_suffix("").as_posix()
    rows = file_rows(path) if suffix_of(path) in ROW_SUFFIXES else []
    if rows and (suffix_of(path) not in TABLES or form_of(rows[0][1], text_column) is not None):
        found = experiences_of(rows, shown_path(path), text_column)
        is_whole = all(one.notes and not one.also_read for one in found)  # pairs
        return [replace(one, name=name if is_whole else f"{name}/{one.name}", titles=one.titled()) for one in found]
    text = decoded(file_bytes(path), shown_path(path)) if suffix_of(path) in TABLES else read_document(path)
    return [Experience(name, [text], titles=[title])]


# Order and grouping


def _unique_names(passages: list[Experience]) -> list[Experience]:
    """Number passages whose name an earlier one has, so that names do not depend on order, limit and what follows."""
    taken: set[str] = set()
    count: dict[str, int] = {}
    named = []
    for passage in passages:
        name = passage.name
        while name in taken:
            count[passage.name] = count.get(passage.name, 1) + 1
            name = f"{passage.name} [{count[passage.name]}]"
        taken.add(name)
        named.append(replace(passage, name=name))
    return named


def _first(passages: list[Experience], limit: int, questions_wanted: bool, source: str) -> list[Experience]:
    with_questions = [passage for passage in passages if passage.questions]
    chosen = with_questions if questions_wanted and with_questions else passages
    if limit > len(chosen):
        with_what = " with a question" if chosen is with_questions else ""
        raise SleepkitError(f"limit is {limit} but {source} has {len(chosen)} passages{with_what}; lower the limit")
    return chosen[:limit]
