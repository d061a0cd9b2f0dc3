"""What a night reads: the passages of the chunks, and those of them that are quoted because no question can be asked by rule.

    read_lines(chunks) -> [Line]                    sentences of prose and pieces of the rest, once each, in order
    quotations(line)   -> [SyntheticExample]                "Continue: ..." and "Tell me about ...", answered letter for letter

Ours: all of it.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.questions.passages import flowing, is_code, passages
from sleepkit.language.questions.rules import about, content_words

__all__ = ["Line", "quotations", "read_lines", "second_part"]

_LINE_END = re.compile(r"\n+")
_SPACE = re.compile(r"(?<=\S)[^\S\n]+(?=\S)")
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
    """

    title: str
    said: str
    context: str
    chunk: str
    is_prose: bool


def read_lines(chunks: Sequence[Chunk]) -> list[Line]:
    """Passages of all chunks but those that are there for reference; a document that is code is quoted in all its chunks."""
    texts: dict[str, list[str]] = defaultdict(list)
    for chunk in chunks:
        texts[chunk.title].append(chunk.text)
    code = {title: is_code("\n\n".join(parts)) for title, parts in texts.items()}
    read = [(chunk, *one) for chunk in chunks if not chunk.reference for one in passages(chunk.text, code[chunk.title])]
    lines = (Line(chunk.title, flowing(text) if prose else text, text, chunk.text, prose) for chunk, text, prose in read)
    return list(dict.fromkeys(lines))


def quotations(line: Line, rng: random.Random) -> list[SyntheticExample]:
    """A passage as it stands: to go on with from its beginning, and to be told by some of its words."""
    made = []
    if cut := second_part(line.said, rng):
        made.append((f"Continue: {line.said[:cut].rstrip()}", line.said[cut:], "recite"))
    if len(content_words(line.said)) > 2:
        made.append((about(line.said, rng), line.said, "about"))
    return [SyntheticExample(prompt, reply, line.context, style, line.title) for prompt, reply, style in made]


def second_part(text: str, rng: random.Random) -> int:
    """Return where the second part of a text begins: at a line, else a word, else a letter of a long one; 0 if there is none."""
    places = [match.end() for match in _LINE_END.finditer(text)] or [match.end() for match in _SPACE.finditer(text)]
    if not places and len(text) >= SHORTEST:
        places = list(range(2, len(text) - 1))
    earliest = 1 if len(places) > 2 else 0  # one word tells too little of what follows
    return places[rng.randrange(earliest, max(earliest + 1, (len(places) + 1) // 2))] if places else 0
