"""Rows as experiences: which columns mean what.  The rows of a file are all of one form, that of the first row.

    {text_column}                                 plain texts: one experience a row
    {context, questions?, completions?}           passages: one a row
    {context, question, answers | answer}         SQuAD: one for each context
    {title?, paragraphs: [{context, qas}]}        SQuAD as it is published: one for each context
    {messages}, {conversations}                   chats: one a row                                           (chats.py)
    {prompt, completion}                          TRL: chats where they are messages, pairs where they are texts
    {instruction, input?, output}                 Alpaca: pairs
    {question, answer | answers}                  pairs

Pairs are one experience in all.  They are learned as they are asked, and asked again afterwards: of these questions the kind
is `LEARNED`, as right answers tell what was learned by heart and not what follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sleepkit.errors import SleepkitError
from sleepkit.language.data.chats import chat
from sleepkit.language.data.columns import EXPECTED, Row, Rows, gold_of, shown, shown_columns, text_of, title_of, value_of
from sleepkit.language.data.experience import LEARNED, Experience, Question, render_note

__all__ = ["TEXT_COLUMN", "experiences_of", "form_of"]

TEXT_COLUMN = "text"
Converter = Callable[[Rows, str], Iterable[Experience]]


def experiences_of(rows: Rows, source: str, text_column: str = TEXT_COLUMN) -> list[Experience]:
    """Turn the rows of a file or data set into experiences.

    Args:
        source: the file or data set, for messages and for the name of pairs.
        text_column: column of plain texts; a name other than "text" is taken before the forms above.

    Raises:
        SleepkitError: no rows, columns of no form, or a value that is not what its column is for, with the place of its row.
    """
    if not rows:
        raise SleepkitError(f"{source} has no rows; give at least one of the form {EXPECTED}")
    for place, row in rows:
        if not isinstance(row, Mapping):
            raise SleepkitError(f"{place} is a {type(row).__name__}, not an object; expected {EXPECTED}")
    place, first = rows[0]
    convert = form_of(first, text_column)
    if convert is None and (convert := form_of(_plainly_named(first), text_column)) is not None:  # Question, Answer
        rows = [(place, _plainly_named(row)) for place, row in rows]
    if convert is None:
        named = f", none of them the text_column {text_column!r}" if text_column != TEXT_COLUMN else ""
        raise SleepkitError(
            f"{place} has the columns {shown_columns(first)}{named}; expected {EXPECTED} (text_column names another than text)"
        )
    return list(convert(rows, source))


def form_of(row: Row, text_column: str = TEXT_COLUMN) -> Converter | None:
    """How rows with the columns of this one become experiences; None: they are of no form."""
    columns = set(row)
    if text_column != TEXT_COLUMN:
        return partial(_texts, column=text_column) if text_column in columns else None
    for needed, convert in _FORMS:
        if needed <= columns:
            return convert
    return partial(_texts, column=text_column) if text_column in columns else None


def _plainly_named(row: Row) -> Row:
    return {name.strip().lower(): value for name, value in row.items()}


def _texts(rows: Rows, source: str, column: str) -> Iterator[Experience]:
    for place, row in rows:
        yield Experience(title_of(row, "text", place), [text_of(row, column, place)])


def _passages(rows: Rows, source: str) -> Iterator[Experience]:
    for place, row in rows:
        edits = row.get("completions") or []
        if not isinstance(edits, list) or not all(isinstance(text, str) for text in edits):
            raise SleepkitError(f"{place} has completions {shown(edits)}; expected a list of texts")
        edits = [text_of({"completion": text}, "completion", place) for text in edits]
        document = text_of(row, "context", place)
        yield Experience(title_of(row, "passage", place), [document], _questions(row, place), edits=[edits] if edits else [])


def _squad(rows: Rows, source: str) -> Iterator[Experience]:
    by_context: dict[str, Experience] = {}
    for place, row in rows:
        context = text_of(row, "context", place)
        experience = by_context.setdefault(context, Experience(title_of(row, "passage", place), [context]))
        experience.questions.extend(_asked(row, place))
    yield from by_context.values()


def _asked(row: Row, place: str) -> list[Question]:
    """The question of a row with its first answer; none where it has no answer, as in SQuAD 2.0: there is nothing to score."""
    answer = gold_of(value_of(row, "answers" if "answers" in row else "answer", place), place)
    return [] if answer is None else [Question(text_of(row, "question", place), answer)]


def _articles(rows: Rows, source: str) -> Iterator[Experience]:
    for place, row in rows:
        for paragraph in _objects(row, "paragraphs", place, "{context, qas}"):
            asked = _objects(paragraph, "qas", place, "{question, answers}")
            questions = [question for item in asked for question in _asked(item, place)]
            yield Experience(title_of(row, "passage", place), [text_of(paragraph, "context", place)], questions)


def _chats(rows: Rows, source: str, columns: Sequence[str]) -> Iterator[Experience]:
    for place, row in rows:
        yield chat(row, columns, place, _questions(row, place))


def _completions(rows: Rows, source: str) -> Iterable[Experience]:
    """Prompts with their completions: chats where the first is a list of messages, pairs of texts otherwise."""
    if isinstance(rows[0][1]["prompt"], list):
        return _chats(rows, source, ("prompt", "completion"))
    return _pairs(rows, source, partial(_pair, question="prompt", answer="completion"))


def _instructed(row: Row, place: str) -> tuple[str, str]:
    instruction, given = text_of(row, "instruction", place), row.get("input")
    if given is not None and given != "":
        instruction += f"\n\n{text_of(row, 'input', place)}"
    return instruction, text_of(row, "output", place)


def _pair(row: Row, place: str, question: str = "question", answer: str = "answer") -> tuple[str, str]:
    column = "answers" if answer == "answer" and answer not in row and "answers" in row else answer
    gold = gold_of(value_of(row, column, place), place)
    if gold is None:
        raise SleepkitError(f"{place} has no answer in {column!r}; fill or remove it")
    return text_of(row, question, place), gold


def _pairs(rows: Rows, source: str, read: Callable[[Row, str], tuple[str, str]]) -> Iterator[Experience]:
    notes = [Question(*read(row, place), kind=LEARNED) for place, row in rows]
    document = "\n\n".join(render_note(note.question, note.answer) for note in notes)
    yield Experience(Path(source).name.split(".")[0], [document], notes, notes=notes)


def _questions(row: Row, place: str) -> list[Question]:
    items = _objects(row, "questions", place, "{question, answer, kind?}") if row.get("questions") else []
    return [_question(item, place) for item in items]


def _question(item: Row, place: str) -> Question:
    question, answer = _pair(item, place)
    return Question(question, answer, text_of({"kind": item.get("kind") or "direct"}, "kind", place))


def _objects(row: Row, column: str, place: str, expected: str) -> list[Row]:
    found: Any = value_of(row, column, place)
    if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
        raise SleepkitError(f"{place} has {column} {shown(found)}; expected a list of {expected}")
    return found


_FORMS: tuple[tuple[set[str], Converter], ...] = (
    ({"context", "question", "answers"}, _squad),
    ({"context", "question", "answer"}, _squad),
    ({"context"}, _passages),
    ({"paragraphs"}, _articles),
    ({"messages"}, partial(_chats, columns=("messages",))),
    ({"conversations"}, partial(_chats, columns=("conversations",))),
    ({"prompt", "completion"}, _completions),
    ({"instruction", "output"}, partial(_pairs, read=_instructed)),
    ({"question", "answer"}, partial(_pairs, read=_pair)),
    ({"question", "answers"}, partial(_pairs, read=_pair)),
)
