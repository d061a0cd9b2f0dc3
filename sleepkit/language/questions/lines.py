"""What a night reads: the passages of the chunks, and those of them that are quoted because no question can be asked by rule.

    read_lines(chunks) -> [Line]                    sentences of prose and pieces of the rest, once each, in order
    quotations(line)   -> [SyntheticExample]                "Continue: ..." and "Tell me about ...", answered letter for letter
    coverage(items, lines) -> share of the lines that some item answers, from 0 to 1

Ours: all of it.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.english.pronouns import antecedent_of, resolved, spelled_out
from sleepkit.language.questions.gaps import GAP, continue_from, tell_about
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.questions.languages import ENGLISH, language_of
from sleepkit.language.questions.passages import flowing, is_code, last_speaker, passages
from sleepkit.reporting.scripts import MARKS, UNSPACED, is_unspaced, language_of_script

__all__ = ["Line", "beside_neighbour", "coverage", "quotations", "read_lines", "second_part"]

_LINE_END = re.compile(r"\n+")
_SPACE = re.compile(r"(?<=\S)[^\S\n]+(?=\S)")
_LETTER = re.compile(rf".[{MARKS}]*", re.DOTALL)
_CHARACTER = re.compile(rf"[{UNSPACED}][{MARKS}]*\s*|[^\s{UNSPACED}]+\s*|\s+")  # or a word of another script, or a number
SHORTEST = 8  # letters of a script without spaces that are cut in two


@dataclass(frozen=True)
class Line:
    """Passage of a chunk that questions are written about.

    Attributes:
        title: of the document.
        said: prose on one line; the rest as it stands.
        context: the passage as it stands in the document.
        chunk: the text of the chunk.
        is_prose: whether questions can be asked about it.
        language: in ISO 639-1; "" for one that is not known.
        subject: what a pronoun stands for that begins the passage; "" where that is not known.
        speaker: who says it in the transcript of a chat, "User" or another; "" elsewhere.
    """

    title: str
    said: str
    context: str
    chunk: str
    is_prose: bool
    language: str = ENGLISH
    subject: str = ""
    speaker: str = ""

    def alone(self, text: str, answer: str = "") -> str:
        """A part of `said`, to be understood without what stands before it; as it is where the answer would be told."""
        text = spelled_out(text) if self.language == ENGLISH else text
        return text if answer and answer in self.subject else resolved(text, self.subject)


def read_lines(chunks: Sequence[Chunk]) -> list[Line]:
    """Passages of all chunks but those that are there for reference; a document that is code is quoted in all its chunks.

    The same chunks are read once: a night writes about their lines, and counts later how many of them it covers.
    """
    return list(_read(tuple(chunks)))


@lru_cache(maxsize=1)
def _read(chunks: tuple[Chunk, ...]) -> tuple[Line, ...]:
    texts: dict[str, list[str]] = defaultdict(list)
    for chunk in chunks:
        texts[chunk.title].append(chunk.text)
    code = {title: is_code("\n\n".join(parts)) for title, parts in texts.items()}
    read: list[tuple[Chunk, str, bool, str]] = []
    speaking: dict[str, str] = {}  # in each document, where a chunk begins
    for chunk in chunks:
        before = speaking.get(chunk.title, "")
        if not chunk.reference:
            read += [(chunk, *one) for one in passages(chunk.text, code[chunk.title], before)]
        speaking[chunk.title] = last_speaker(chunk.text) or before
    prose: dict[str, list[str]] = defaultdict(list)
    for chunk, text, is_prose, _ in read:
        prose[chunk.title] += [text] if is_prose else []
    spoken = {title: _language_of_document(parts, prose[title], code[title]) for title, parts in texts.items()}
    lines = []
    subjects: dict[str, str] = {}
    for chunk, text, is_prose, speaker in read:
        said = flowing(text) if is_prose else text
        language = _language(said, is_prose, spoken[chunk.title])
        spoken[chunk.title] = language or spoken[chunk.title]
        subject = subjects.get(chunk.title, "")
        lines.append(Line(chunk.title, said, text, chunk.text, is_prose, language, subject, speaker))
        subjects[chunk.title] = antecedent_of(said, subject) if is_prose and language == ENGLISH else ""
    return tuple(dict.fromkeys(lines))


def _language_of_document(parts: Sequence[str], prose: Sequence[str], is_code: bool) -> str:
    """The language of its sentences; English where a few words, or code and tables, tell of none."""
    text = "\n\n".join(prose or parts)
    if is_code:
        return language_of_script(text) or ENGLISH
    return language_of(text) or language_of(text, ENGLISH) or ("" if prose else ENGLISH)


def _language(said: str, is_prose: bool, before: str) -> str:
    """The language of a line, where it tells none that of the lines before; a table or code is of the language that it is in."""
    return language_of(said, before) if is_prose else language_of_script(said) or before


def coverage(items: Iterable[SyntheticExample], lines: Sequence[Line]) -> float:
    """Share of the lines of the documents that some item answers, from 0 to 1; 1 of no lines."""
    answered = {item.context for item in items}
    return sum(line.context in answered for line in lines) / len(lines) if lines else 1.0


def quotations(line: Line, rng: random.Random) -> list[SyntheticExample]:
    """A passage as it stands: to go on with from its beginning, and to be told by some of its words."""
    made = []
    if cut := second_part(line.said, rng):
        made.append((continue_from(line.said[:cut], line.language), line.said[cut:], "recite"))
    if prompt := tell_about(line.said, line.language, rng):
        made.append((prompt, line.said, "about"))
    return [SyntheticExample(prompt, reply, line.context, style, line.title) for prompt, reply, style in made]


def beside_neighbour(lines: Sequence[Line], k: int) -> list[SyntheticExample]:
    """A line too short to be asked about in another way: as what follows the one before it, or stands before the next one."""
    line = lines[k]
    if k and lines[k - 1].title == line.title:
        prompt, reply = continue_from(lines[k - 1].said, line.language), line.said
    elif k + 1 < len(lines) and lines[k + 1].title == line.title:
        prompt, reply = f"{GAP} {lines[k + 1].said}", line.said
    else:
        return []
    return [SyntheticExample(prompt, reply, line.context, "recite", line.title)]


def second_part(text: str, rng: random.Random) -> int:
    """Return where the second part of a text begins: at a line, else a word, else a letter of a long one; 0 if there is none."""
    places = [match.end() for match in _LINE_END.finditer(text)]
    if not places and language_of_script(text) not in ("zh", "ja"):
        places = [match.end() for match in _SPACE.finditer(text)]
    if not places and len(text) >= SHORTEST:
        letters = (_CHARACTER if is_unspaced(text) else _LETTER).findall(text)
        places = list(accumulate(map(len, letters)))[1:-2]
    earliest = 1 if len(places) > 2 else 0  # one word tells too little of what follows
    return places[rng.randrange(earliest, max(earliest + 1, (len(places) + 1) // 2))] if places else 0
