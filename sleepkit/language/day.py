"""What a learner has read since the last night: texts in chunks, the pairs that came with them, and what they replace.

    day = Day.of(experience, store)      day.chunks  day.notes  day.words()        written about, learned, rehearsed beside

Left out: what is written about it (night_items.py), and days before (rehearsal.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sleepkit.errors import SleepkitError
from sleepkit.language.data.experience import LEARNED, Experience, Question, Size, render_note, size_of
from sleepkit.language.data.tasks import LABEL
from sleepkit.language.dreaming.dreams import Context
from sleepkit.language.questions.context import Chunk, ContextStore
from sleepkit.language.questions.items import OWN, SyntheticExample
from sleepkit.language.questions.words import matching_words

__all__ = ["Day"]

NOTE_STYLES = {LABEL: "note", LEARNED: OWN}  # by the kind of a note


@dataclass
class Day:
    """What a night is about.

    Attributes:
        chunks: the texts, in pieces that fit the context.
        notes: questions whose answers were given, to be learned as they are.
        replaces: titles of documents of earlier nights, of which today's are newer versions.
        size: documents and words that were read.
    """

    chunks: list[Chunk] = field(default_factory=list)
    notes: list[SyntheticExample] = field(default_factory=list)
    replaces: list[str] = field(default_factory=list)
    size: Size = field(default_factory=lambda: Size(0, 0))

    @classmethod
    def of(cls, experience: Experience, store: ContextStore) -> Day:
        """Read an experience; ``store`` is emptied first, and cuts its documents into chunks."""
        store.clear()
        for k, (title, document) in enumerate(zip(experience.titled(), experience.documents, strict=True)):
            store.add_document(document, title, reference=not experience.is_read(k))
        notes = [_as_example(note, experience.name) for note in experience.notes]
        return cls(store.chunks(), notes, list(experience.replaces), size_of([experience]))

    def texts(self) -> list[Chunk]:
        """Return the chunks.  Raises `SleepkitError` if nothing was read."""
        if not self.chunks:
            raise SleepkitError("the context is empty; call wake() with an experience before sleep()")
        return self.chunks

    def words(self) -> set[str]:
        """Return the content words of the texts, as `matching_words` has them."""
        return {word for chunk in self.texts() for word in matching_words(chunk.text)}

    def contexts(self, questions: Iterable[SyntheticExample]) -> list[Context]:
        """Each chunk with the questions that it answers; a chunk without any is left out."""
        questions = list(questions)
        answered = [(chunk, _answered(chunk, questions)) for chunk in self.texts()]
        return [Context(chunk, asked) for chunk, asked in answered if asked]

    def content(self) -> dict[str, Any]:
        """Return all that decides what a night on this day makes."""
        texts = [(chunk.title, chunk.text) for chunk in self.chunks]
        return {"chunks": texts, "notes": self.notes, "replaces": self.replaces}


def _answered(chunk: Chunk, questions: Sequence[SyntheticExample]) -> list[tuple[str, str]]:
    return [(item.prompt, item.reply) for item in questions if item.context and item.context in chunk.text]


def _as_example(note: Question, source: str) -> SyntheticExample:
    """A note as an item to learn, which shows itself to the teacher."""
    style = NOTE_STYLES.get(note.kind, "written")
    return SyntheticExample(note.question, note.answer, render_note(note.question, note.answer), style, source, note.answer)
