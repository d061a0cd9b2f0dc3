"""Streams of tasks: texts with labels or written answers, one task a night, asked about in words.

    Experience(name=task, documents=[some rows], examples=the same, notes=rows to learn, questions=rows to be tested on)

    Question(f"{instruction}\\n\\n{text}", label, kind="label")         answered right if it is the label and nothing else
    Question(f"{instruction}\\n\\n{text}", answer, kind="chrf")         or "contained", "number": see reporting/scores.py

A written answer belongs to no label, so what is said below of the rows of a label is said of those of a task.

`load_tasks` reads, by the form of its first argument::

    rows.jsonl[.gz], owner/name    rows with a text, a label, and a task (``task_column``), or labels in groups of
                                   ``labels_per_task``: class-incremental
    folder/                        <task>_train.jsonl[.gz], and <task>_val.jsonl[.gz] or <task>_test.jsonl[.gz] to test on

Underscores in labels are read as spaces, answers stay as they are.  Rows to be tested on come from ``test_dataset``, else
they are kept back from the rows of each label before any is learned.  Nothing names the labels in the prompt unless
``list_labels`` is set: then those of the task are listed, which tells tasks apart.

Ours: all of it, after the class-incremental protocols of the vision literature.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleepkit.errors import SleepkitError
from sleepkit.language.data.columns import Rows, text_of
from sleepkit.language.data.documents import local_path, rows_of
from sleepkit.language.data.experience import Experience, Question
from sleepkit.language.data.given import described
from sleepkit.language.data.row_files import file_rows

INSTRUCTION = "Which category does this text belong to? Answer with its name alone."
LABEL = "label"  # kind of a question that is answered by a label and nothing else
TRAIN, TESTS = "_train", ("_test", "_val", "_validation")
EXAMPLES = 8  # of a task, and at least one of each label


@dataclass(frozen=True)
class LabelledColumns:
    """Names of the columns of a table of tasks.

    Attributes:
        text, label: columns that every row has.
        task: column that names its task; None: there is none.
        kind: "label", or how a written answer is scored: "contained", "chrf" or "number".
    """

    text: str
    label: str
    task: str | None = None
    kind: str = LABEL


@dataclass(frozen=True)
class _Row:
    text: str
    answer: str
    task: str
    label: str  # what a row is counted under: its answer, or its task where answers are written


def load_tasks(
    dataset: Any,
    columns: LabelledColumns,
    test_dataset: Any = None,
    split: str | None = None,
    labels_per_task: int | None = None,
    tasks: Sequence[str] | None = None,
    rows_per_label: int | None = None,
    test_rows_per_label: int = 10,
    order: str = "file",
    seed: int = 0,
    instruction: str = INSTRUCTION,
    list_labels: bool = False,
) -> list[Experience]:
    """Read a stream of classification tasks; the forms of ``dataset`` are in the module's docstring.

    Args:
        test_dataset: file or Hub id of rows to be tested on; of labels that ``dataset`` does not have none is taken.
        labels_per_task: labels of one task where no column names it, in the order of the file, or shuffled.
        tasks: names and order of the tasks to use; None: all, in the order of the file, or shuffled by ``seed``.
        rows_per_label: rows of each label to learn, drawn by ``seed``; None: all.
        test_rows_per_label: rows of each label to be tested on.

    Raises:
        SleepkitError: unreadable data, wrong columns, an unknown task, a label without rows to learn or to be tested on.
    """
    path = local_path(dataset) if isinstance(dataset, (str, Path)) else None
    is_folder = path is not None and path.is_dir()
    learned, tested = _folder(path, columns) if path is not None and is_folder else (_rows(rows_of(dataset, split), columns), [])
    if test_dataset is not None:
        tested = _rows(rows_of(test_dataset, split, "eval_dataset"), columns)
    if not learned:
        raise SleepkitError(f"{described(dataset)} has no rows; give rows with the columns {columns.text} and {columns.label}")
    rng = random.Random(seed)
    of_task = _tasks(learned, labels_per_task, rng if order == "random" else None)
    names = list(of_task)
    if order == "random":
        rng.shuffle(names)
    for name in tasks or ():
        if name not in of_task:
            raise SleepkitError(f"tasks has {name!r}, which {described(dataset)} has not; it has {', '.join(of_task)}")
    experiences = []
    for name in tasks or names:
        to_learn, to_test = [], []
        for label in of_task[name]:
            rows, others = (
                [row for row in found if row.label == label and (labels_per_task is not None or row.task == name)]
                for found in (learned, tested)
            )
            rng.shuffle(rows)
            if not tested:
                rows, others = rows[test_rows_per_label:], rows[:test_rows_per_label]
            for found, what in ((rows, "learn"), (others, "be tested on")):
                if not found:
                    raise SleepkitError(f"label {label!r} of task {name!r} has no row to {what}; leave it out or give more rows")
            to_learn += rows[:rows_per_label]
            to_test += others[:test_rows_per_label]
        rng.shuffle(to_learn)
        experiences.append(_experience(name, of_task[name], to_learn, to_test, instruction, list_labels, columns.kind))
    return experiences


def read_texts(dataset: str | Path, text_column: str, split: str | None = None) -> list[str]:
    """The texts alone, such as those that belong to no label at all."""
    return [text_of(row, text_column, place, text_column) for place, row in rows_of(dataset, split)]


def asked(text: str, instruction: str = INSTRUCTION) -> str:
    """Return the prompt that asks about a text."""
    return f"{instruction}\n\n{text}"


def _experience(
    name: str,
    labels: Sequence[str],
    learned: Sequence[_Row],
    tested: Sequence[_Row],
    instruction: str,
    list_labels: bool,
    kind: str,
) -> Experience:
    if list_labels:
        instruction = f"{instruction} One of: {', '.join(labels)}."
    shown = list(learned[:EXAMPLES])
    if kind == LABEL:  # in turn, as a model leans towards the label that it saw last
        of_label = [[row for row in learned if row.label == label] for label in labels]
        shown = [rows[k] for k in range(math.ceil(EXAMPLES / len(labels))) for rows in of_label if k < len(rows)]
    text = "\n".join(f"{row.text} -> {row.answer}" for row in shown)
    notes, questions, examples = (
        [Question(asked(row.text, instruction), row.answer, kind) for row in rows] for rows in (learned, tested, shown)
    )
    return Experience(name, [text], questions, notes=notes, examples=[examples])


def _rows(rows: Rows, columns: LabelledColumns, task: str = "all") -> list[_Row]:
    found = []
    wanted = [columns.text, columns.label] + ([columns.task] if columns.task else [])
    expected = ", ".join(wanted)
    for place, row in rows:
        if not isinstance(row, Mapping):
            raise SleepkitError(f"{place} is a {type(row).__name__}, not an object; expected {expected}")
        text, answer, *named = (text_of(row, column, place, expected) for column in wanted)
        name = named[0] if named else task
        label = answer.replace("_", " ")
        found.append(_Row(text, label, name, label) if columns.kind == LABEL else _Row(text, answer, name, name))
    return found


def _folder(folder: Path, columns: LabelledColumns) -> tuple[list[_Row], list[_Row]]:
    """Rows to learn and rows to be tested on, of all tasks of a folder."""
    stems = {path.name.split(".jsonl")[0]: path for path in sorted(folder.glob("*.jsonl*"))}
    names = [stem.removesuffix(TRAIN) for stem in stems if stem.endswith(TRAIN)]
    if not names:
        raise SleepkitError(f"{folder} has no file <task>_train.jsonl; give such a folder, a file or a Hub id")
    learned, tested = [], []
    for name in names:
        learned += _rows(file_rows(stems[name + TRAIN]), columns, name)
        test = next((stems[name + suffix] for suffix in TESTS if name + suffix in stems), None)
        if test is None:
            raise SleepkitError(f"{folder} has {name}{TRAIN} but nothing to test on; add {name}_test.jsonl")
        tested += _rows(file_rows(test), columns, name)
    return learned, tested


def _tasks(rows: Sequence[_Row], labels_per_task: int | None, rng: random.Random | None) -> dict[str, list[str]]:
    """Labels of each task, both in the order of the rows; groups of labels are numbered from 1."""
    if labels_per_task is None:
        found: dict[str, dict[str, None]] = defaultdict(dict)
        for row in rows:
            found[row.task][row.label] = None
        return {name: list(labels) for name, labels in found.items()}
    labels = list(dict.fromkeys(row.label for row in rows))
    if rng is not None:
        rng.shuffle(labels)
    groups = [labels[k : k + labels_per_task] for k in range(0, len(labels), labels_per_task)]
    return {f"labels {k}": group for k, group in enumerate(groups, 1)}
