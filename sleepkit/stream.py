"""Streams of experiences: what a learner meets while awake, one experience per night, and the questions that test it.

    Question(question, answer, kind)            kind: "direct", or any other label a data set gives ("paraphrased", ...)
    Experience(name, documents, questions)      documents are read; questions are for evaluation only

`load_experiences` reads, by the form of its argument::

    notes/               every .md and .txt file of the folder (hidden ones aside), by path: one experience each
    story.md, story.txt  one such file
    rows.jsonl[.gz]      {context, title?, questions?: [{question, answer, kind?}], completions?: [text]}
                                                                                      passages: one experience a row
                         {context, question, answers: {text: [...]}, title?}          SQuAD: one for each context
                         {messages: [{role, content}], title?, questions?}            chats: one experience a row
                         {question, answer}                                           notes: one experience in all
    owner/name[:config]  the same rows from the Hugging Face Hub, through `datasets.load_dataset`

A row may have further columns, which are not read.  The rows of a file are all of one form, that of the first row.
``completions`` are texts that another model wrote about the passage, such as SEAL's published self-edits; only the baseline
that trains on them reads them.

Ours: all of it; the JSON form of passages is that of the SEAL code release, which has one gold answer for each
SQuAD question; here it is the first.  Same arguments, same result: the only randomness is Python's
`random.Random(seed).shuffle`.  Left out: streaming; the documents of a life of nights fit in memory.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TextIO

from sleepkit.errors import SleepkitError

__all__ = ["Experience", "Question", "load_experiences", "render_message", "render_note"]

Row = Mapping[str, Any]
Rows = Sequence[tuple[str, Row]]  # each with its place, for messages: "file.jsonl line 3"

TEXT_SUFFIXES = (".md", ".txt")
EXPECTED = (
    "{context, title?, questions?: [{question, answer, kind?}]}, {context, question, answers: {text}}, "
    "{messages: [{role, content}]} or {question, answer}"
)


@dataclass(frozen=True)
class Question:
    """A question with its gold answer.

    ``kind`` groups scores: "direct", or a label such as "paraphrased".  ``document`` is the index, in its experience,
    of the document that holds the answer, which the in-context ceiling gets to see.
    """

    question: str
    answer: str
    kind: str = "direct"
    document: int = 0


@dataclass(frozen=True)
class Experience:
    """Documents to learn in one night, and the questions that are asked afterwards (and never trained on).

    ``titles`` names each document where an experience holds several; empty: they go by the experience's name.  ``notes``
    are question-answer pairs to learn as they are; where there are some, documents are only there to be looked at.
    ``edits`` holds, for each document, texts that others wrote about it; empty where nobody did.  ``examples`` holds, for each
    document, notes that stand for it in a prompt, as turns of a chat; empty where documents are shown as they are.
    ``replaces`` are titles of documents of earlier nights that these are newer versions of.
    """

    name: str
    documents: list[str]
    questions: list[Question] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    notes: list[Question] = field(default_factory=list)
    edits: list[list[str]] = field(default_factory=list)
    examples: list[list[Question]] = field(default_factory=list)
    replaces: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The experience as plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Experience:
        """The inverse of `to_dict`."""
        questions = [Question(**question) for question in data["questions"]]
        notes = [Question(**note) for note in data.get("notes", ())]
        examples = [[Question(**note) for note in notes] for notes in data.get("examples", ())]
        edits = [list(texts) for texts in data.get("edits", ())]
        titles, replaces = (list(data.get(name, ())) for name in ("titles", "replaces"))
        return cls(data["name"], list(data["documents"]), questions, titles, notes, edits, examples, replaces)


def load_experiences(
    dataset: str | Path,
    split: str | None = None,
    limit: int | None = None,
    order: Literal["file", "random"] = "file",
    seed: int = 0,
    passages_per_experience: int = 1,
) -> list[Experience]:
    """Read a stream of experiences; the forms that ``dataset`` may have are in the module's docstring.

    Args:
        dataset: a folder, a file, or a Hub id such as ``rajpurkar/squad``.
        split: split of a Hub data set (``train`` if None); local data have none.
        limit: number of passages (rows of a file, or files of a folder) to use, all if None.
        order: "file" takes the first ``limit`` in the order of the file.  "random" shuffles them by ``seed`` and
            takes the first ``limit`` that have a question (or any, in data without questions).
        seed: seed of the random order.
        passages_per_experience: passages that one night learns together; the last experience may have fewer.

    Raises `SleepkitError`, in one line with the value and the remedy, for a missing or unreadable path, wrong
    columns, an empty document, question or answer, and a ``limit`` above what there is.
    """
    if order not in ("file", "random"):
        raise SleepkitError(f"order is {order!r}; use 'file' or 'random'")
    for name, number in (("limit", limit), ("passages_per_experience", passages_per_experience)):
        if number is not None and number < 1:
            raise SleepkitError(f"{name} is {number}; give at least 1")

    path = Path(dataset).expanduser()
    if path.exists() and split is not None:
        raise SleepkitError(f"split is {split!r} but {path} is local data, which has no splits; remove the split")
    if path.is_dir():
        passages = _from_folder(path)
    elif path.suffix in TEXT_SUFFIXES and path.is_file():
        passages = [Experience(path.stem, [_read_document(path)])]
    else:
        rows = file_rows(path) if path.is_file() else hub_rows(str(dataset), split or "train")
        passages = _from_rows(rows, str(dataset))

    passages = _unique_names(passages)
    if order == "random":
        random.Random(seed).shuffle(passages)
    if limit is not None:
        passages = _first(passages, limit, questions_wanted=order == "random", source=str(dataset))
    n = passages_per_experience
    return [together(passages[i : i + n]) for i in range(0, len(passages), n)]


def render_message(role: str, content: str) -> str:
    """A chat message as a line of a transcript: ``User: ...``."""
    return f"{role.capitalize()}: {content.strip()}"


def render_note(question: str, answer: str) -> str:
    """A question-answer note as text: ``Q: ...`` and ``A: ...`` on two lines."""
    return f"Q: {question.strip()}\nA: {answer.strip()}"


# Sources


def _from_folder(folder: Path) -> list[Experience]:
    visible = (path for path in folder.rglob("*") if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    files = sorted(path for path in visible if path.suffix in TEXT_SUFFIXES and path.is_file())
    if not files:
        raise SleepkitError(f"{folder} has no .md or .txt file; give a folder of text files, a .jsonl file or a Hub id")
    return [Experience(path.relative_to(folder).with_suffix("").as_posix(), [_read_document(path)]) for path in files]


def _read_document(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SleepkitError(f"{path} cannot be read as UTF-8 text ({error}); convert or remove it") from None
    return text_of({"text": text}, "text", f"{path}")


def open_text(path: Path) -> TextIO:
    """A UTF-8 file to read; one that ends in .gz is unpacked."""
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def file_rows(path: Path) -> Rows:
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise SleepkitError(f"{path} is not a .jsonl, .jsonl.gz, .md or .txt file; convert it to one of these")
    rows = []
    try:
        with open_text(path) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    rows.append((f"{path} line {number}", json.loads(line)))
    except json.JSONDecodeError as error:
        raise SleepkitError(f"{path} line {number} is not JSON ({error}); write one JSON object per line") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SleepkitError(f"{path} cannot be read ({error}); check that it is complete, UTF-8 and, if .gz, gzip") from None
    return rows


def hub_rows(dataset: str, split: str) -> Rows:
    if Path(dataset).suffix in (*TEXT_SUFFIXES, ".jsonl", ".gz") or dataset.startswith((".", "~", "/")) or dataset.count("/") > 1:
        raise SleepkitError(f"{dataset} does not exist; give an existing file or folder, or a Hub id such as rajpurkar/squad")
    import datasets

    try:
        loaded = datasets.load_dataset(*dataset.split(":", 1), split=split)
    except Exception as error:  # the Hub, the network and data set builders each raise their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SleepkitError(
            f"{dataset} (split {split!r}) is no local path and cannot be loaded from the Hub ({reason}); "
            "check the id, the split and the network, or give a local path"
        ) from error
    names = {column: kind.names for column, kind in loaded.features.items() if isinstance(kind, datasets.ClassLabel)}
    return [
        (f"{dataset} row {number}", {**row, **{column: names[column][row[column]] for column in names}})
        for number, row in enumerate(loaded)
    ]


# Rows


def _from_rows(rows: Rows, source: str) -> list[Experience]:
    if not rows:
        raise SleepkitError(f"{source} has no rows; give at least one of the form {EXPECTED}")
    for place, row in rows:
        if not isinstance(row, Mapping):
            raise SleepkitError(f"{place} is a {type(row).__name__}, not an object; expected {EXPECTED}")
    convert = _converter(set(rows[0][1]), rows[0][0])
    return list(convert(rows, source))


def _converter(columns: set[str], place: str) -> Callable[[Rows, str], Iterable[Experience]]:
    if {"context", "question", "answers"} <= columns:
        return _squad
    if "context" in columns:
        return _passages
    if "messages" in columns:
        return _chats
    if {"question", "answer"} <= columns:
        return _notes
    raise SleepkitError(f"{place} has the columns {sorted(columns)}; expected {EXPECTED}")


def _passages(rows: Rows, source: str) -> Iterator[Experience]:
    for place, row in rows:
        edits = row.get("completions") or []
        if not isinstance(edits, list) or not all(isinstance(text, str) for text in edits):
            raise SleepkitError(f"{place} has completions {edits!r:.80}; expected a list of texts")
        document = text_of(row, "context", place)
        yield Experience(_title(row, "passage"), [document], _questions(row, place), edits=[edits] if edits else [])


def _squad(rows: Rows, source: str) -> Iterator[Experience]:
    by_context: dict[str, Experience] = {}
    for place, row in rows:
        context = text_of(row, "context", place)
        experience = by_context.setdefault(context, Experience(_title(row, "passage"), [context]))
        answers = _get(row, "answers", place)
        golds = answers.get("text") if isinstance(answers, Mapping) else None
        if golds is None:
            raise SleepkitError(f"{place} has answers {answers!r:.80}; expected {{text: [...]}} as in SQuAD")
        if golds:  # SQuAD 2.0 has questions that the passage does not answer: nothing to score there
            question = text_of(row, "question", place)
            experience.questions.append(Question(question, text_of({"answer": golds[0]}, "answer", place)))
    yield from by_context.values()


def _chats(rows: Rows, source: str) -> Iterator[Experience]:
    for place, row in rows:
        messages = _get(row, "messages", place)
        if not isinstance(messages, Sequence) or not messages or not all(isinstance(part, Mapping) for part in messages):
            raise SleepkitError(f"{place} has messages {messages!r:.80}; expected a list of {{role, content}}")
        turns = [render_message(text_of(part, "role", place), text_of(part, "content", place)) for part in messages]
        yield Experience(_title(row, "chat"), ["\n".join(turns)], _questions(row, place))


def _notes(rows: Rows, source: str) -> Iterator[Experience]:
    questions = [_question(row, place) for place, row in rows]
    document = "\n\n".join(render_note(item.question, item.answer) for item in questions)
    yield Experience(Path(source).name.split(".")[0], [document], questions)


def _questions(row: Row, place: str) -> list[Question]:
    questions = row.get("questions") or []
    if not isinstance(questions, Sequence) or not all(isinstance(item, Mapping) for item in questions):
        raise SleepkitError(f"{place} has questions {questions!r:.80}; expected a list of {{question, answer, kind?}}")
    return [_question(item, place) for item in questions]


def _question(item: Row, place: str) -> Question:
    question = text_of(item, "question", place)
    answer = text_of(item, "answer", place)
    return Question(question, answer, text_of({"kind": item.get("kind") or "direct"}, "kind", place))


def text_of(row: Row, column: str, place: str, expected: str = EXPECTED) -> str:
    """The text that stands in a column of a row; `SleepkitError` if there is none, naming the row's ``place``."""
    value = _get(row, column, place, expected)
    if not isinstance(value, str):
        raise SleepkitError(f"{place} has a {column} of type {type(value).__name__} ({value!r:.60}); give text")
    if not value.strip():
        raise SleepkitError(f"{place} has an empty {column}; fill or remove it")
    return value


def _get(row: Row, column: str, place: str, expected: str = EXPECTED) -> Any:
    if column not in row:
        raise SleepkitError(f"{place} has no {column!r} (found {sorted(row)}); expected {expected}")
    return row[column]


def _title(row: Row, default: str) -> str:
    return str(row.get("title") or default)


# Order and grouping


def _unique_names(passages: list[Experience]) -> list[Experience]:
    """Number passages that share a title, in file order, so that names do not depend on order and limit."""
    totals, seen = Counter(passage.name for passage in passages), Counter[str]()
    named = []
    for passage in passages:
        seen[passage.name] += 1
        number = f" [{seen[passage.name]}]" if totals[passage.name] > 1 else ""
        named.append(replace(passage, name=passage.name + number))
    return named


def _first(passages: list[Experience], limit: int, questions_wanted: bool, source: str) -> list[Experience]:
    with_questions = [passage for passage in passages if passage.questions]
    chosen = with_questions if questions_wanted and with_questions else passages
    if limit > len(chosen):
        with_what = " with a question" if chosen is with_questions else ""
        raise SleepkitError(f"limit is {limit} but {source} has {len(chosen)} passages{with_what}; lower the limit")
    return chosen[:limit]


def together(passages: Sequence[Experience]) -> Experience:
    """Several experiences as one, with all their documents and questions."""
    if len(passages) == 1:
        return passages[0]
    documents: list[str] = []
    questions: list[Question] = []
    for passage in passages:
        questions += [replace(question, document=len(documents) + question.document) for question in passage.questions]
        documents += passage.documents
    titles = [passage.name for passage in passages for _ in passage.documents]
    notes = [note for passage in passages for note in passage.notes]
    name = f"{passages[0].name} and {len(passages) - 1} more"
    beside: dict[str, Any] = {}
    for kind in ("edits", "examples"):  # one list for each document
        found = [given for passage in passages for given in getattr(passage, kind) or [[] for _ in passage.documents]]
        beside[kind] = found if any(found) else []
    return Experience(name, documents, questions, titles, notes, **beside)
