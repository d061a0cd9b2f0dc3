"""A text in passages: sentences of prose, which can be asked about by rule, and pieces of the rest, quoted as they stand.

    passages(text) -> [Passage(text, is_prose, speaker), ...] in the order of the text, each a part of it, letter for letter

What is prose says prose.py.  A paragraph of which half the lines are code or data is quoted, and so is all of a text of which
half is code, comments included, unless it stands in fences (```).  In the transcript of a chat (data/chats.py) the names of
roles are no part of a passage; what the system says is left out, and so are questions and greetings, which state nothing.

Linear in the length of the text.  Ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from sleepkit.language.questions.prose import (
    CODE,
    DATA,
    TEXT,
    ends_sentence,
    is_greeting,
    is_prose,
    is_question,
    is_verse,
    kind_of_line,
    without_marker,
)
from sleepkit.language.questions.sentences import sentence_spans

__all__ = ["USER", "Passage", "flowing", "is_code", "last_speaker", "passages"]

PIECE_LINES, PIECE_CHARACTERS = 6, 300  # of what is quoted
USER, SYSTEM = "User", "System"  # in a transcript
WRAPPED = 40  # characters from which on a line may have been broken for its length

_ROLE = re.compile(r"^(System|User|Assistant|Tool): ", re.MULTILINE)
_FENCE = re.compile(r" {0,3}(?:```|~~~)")
_LINE = re.compile(r"[^\n]*\n?")
_WORD = re.compile(r"\w")
_IDEOGRAPH = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
_BROKEN_LINE = re.compile(rf"(?<=[{_IDEOGRAPH}])\n\s*(?=[{_IDEOGRAPH}])")


class Passage(NamedTuple):
    """A part of a text as it stands there; of prose one sentence.  ``speaker``: who says it in a transcript, else ""."""

    text: str
    is_prose: bool
    speaker: str = ""


class _Line(NamedTuple):
    start: int
    end: int
    kind: str
    paragraph: int


def passages(text: str, quoted: bool | None = None, speaker: str = "") -> list[Passage]:
    """Split a text into passages, in order; lines without a letter or a figure are left out.

    Args:
        quoted: whether all of it is quoted; None: if it is code.
        speaker: who goes on speaking where the text begins, if it is a part of a transcript.
    """
    quoted = is_code(text) if quoted is None else quoted
    spoken = _spoken(text, speaker)
    found = (one._replace(speaker=who) for part, who in spoken for one in _passages(part, bool(who), quoted))
    return [passage for passage in found if _WORD.search(passage.text)]


def is_code(text: str) -> bool:
    """Whether more than half of a text is code or configuration."""
    lines = _lines(text)
    code = sum(line.end - line.start for line in lines if line.kind == CODE)
    return 2 * code > sum(line.end - line.start for line in lines)


def flowing(sentence: str) -> str:
    """Return a sentence on one line, with words joined that a line break had split."""
    return " ".join(_BROKEN_LINE.sub("", sentence).split())


def last_speaker(text: str) -> str:
    """Who speaks last in a part of a transcript; "" where nobody is named."""
    return next((turn[1] for turn in reversed(list(_ROLE.finditer(text)))), "")


def _spoken(text: str, speaker: str) -> Iterator[tuple[str, str]]:
    """What is said in the turns of a transcript, but by the system, and by whom; a text that is none, as a whole."""
    turns = list(_ROLE.finditer(text))
    ends = [*(turn.start() for turn in turns), len(text)]
    spoken = [(speaker, 0, ends[0]), *((turn[1], turn.end(), end) for turn, end in zip(turns, ends[1:], strict=True))]
    for who, start, end in spoken:
        if who != SYSTEM:
            yield text[start:end], who


def _passages(text: str, in_chat: bool, quoted: bool) -> Iterator[Passage]:
    lines = _lines(text)
    if quoted:
        lines = [line._replace(kind=DATA) for line in lines]
    for (_, kind), run in groupby(lines, key=lambda line: (line.paragraph, line.kind)):
        found = list(run)
        if kind == TEXT and not is_verse([text[line.start : line.end] for line in found]):
            yield from _sentences(text[found[0].start : found[-1].end], in_chat)
        else:
            yield from _pieces(text, found)


def _lines(text: str) -> list[_Line]:
    """Lines that are not blank, with their kinds as their paragraphs tell; of fenced code without the fences."""
    found: list[_Line] = []
    paragraph, fenced = 0, False
    for match in _LINE.finditer(text):
        line = match[0]
        if _FENCE.match(line):
            fenced = not fenced
        if _FENCE.match(line) or not line.strip():
            paragraph += 1
        else:
            found.append(
                _Line(match.start(), match.start() + len(line.rstrip()), DATA if fenced else kind_of_line(line), paragraph)
            )
    return [line for _, group in groupby(found, key=lambda line: line.paragraph) for line in _agreeing(text, list(group))]


def _agreeing(text: str, paragraph: Sequence[_Line]) -> list[_Line]:
    """A paragraph is data if half its lines are; in a text, a line that looks like code is a line of that text, and so is one
    that goes on with a sentence."""
    kinds = [line.kind for line in paragraph]
    if 2 * kinds.count(TEXT) <= len(paragraph):
        kind = max((DATA, CODE), key=kinds.count)
        return [line._replace(kind=kind) for line in paragraph]
    agreed = [paragraph[0]]
    for line in paragraph[1:]:
        before = text[agreed[-1].start : agreed[-1].end]
        goes_on = agreed[-1].kind == TEXT and len(before) >= WRAPPED and not ends_sentence(before)
        agreed.append(line._replace(kind=TEXT) if goes_on else line)
    return [line._replace(kind=TEXT) if line.kind == CODE else line for line in agreed]


def _sentences(text: str, in_chat: bool) -> Iterator[Passage]:
    for start, end in sentence_spans(text):
        sentence = text[start:end].strip()
        if in_chat and (is_question(sentence) or is_greeting(sentence)):
            continue
        if is_prose(sentence):
            yield Passage(without_marker(sentence), True)
        else:
            yield from _cut(sentence)


def _pieces(text: str, lines: Sequence[_Line]) -> Iterator[Passage]:
    """Some lines at a time."""
    first = 0
    for k, line in enumerate(lines):
        is_full = k - first + 1 == PIECE_LINES or line.end - lines[first].start > PIECE_CHARACTERS
        if is_full or k + 1 == len(lines):
            yield from _cut(text[lines[first].start : line.end])
            first = k + 1


def _cut(text: str) -> Iterator[Passage]:
    """A text in pieces of a length that can be recited, cut at white space or behind a delimiter where there is one."""
    start = 0
    while len(text) - start > 2 * PIECE_CHARACTERS:
        window = text[start : start + PIECE_CHARACTERS]
        cut = 1 + max(window.rfind(sign, PIECE_CHARACTERS // 2) for sign in "\n \t,;|")
        end = start + (cut or PIECE_CHARACTERS)
        yield Passage(text[start:end].rstrip(), False)
        start = end
    if text[start:].strip():
        yield Passage(text[start:].rstrip(), False)
