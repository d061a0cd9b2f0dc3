"""What a learner meets in one night: documents, pairs to learn as they are, and the questions that test it.

    Question(question, answer, kind)            kind: "direct", or any other label a data set gives ("paraphrased", ...)
    Experience(name, documents, questions)      documents are read; questions are for evaluation only
    together([e, e, ...])                       several as one night
    size_of([e, e, ...])                        documents and words, to tell what lies ahead

Plain data, without files and models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

__all__ = ["LEARNED", "Experience", "Question", "Size", "render_message", "render_note", "size_of", "together", "word_count"]

LEARNED = "learned"  # kind of a question that is learned with its answer: asking it tells what was learned, not what follows
_IDEOGRAPHS = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f40-\u0fbc\u1000-\u109f\u1780-\u17ff]"
)  # Thai, Lao, Tibetan, Burmese, Khmer: about four letters a word
_IN_WORD = re.compile(r"\w")


@dataclass(frozen=True)
class Question:
    """Question about an experience, with its gold answer.

    Args:
        question (`str`): what is asked, as a chat of its own.
        answer (`str`): is right where it stands in the reply.
        kind (`str`, defaults to `"direct"`): groups scores: "direct", "learned", or a label such as "paraphrased".
        document (`int`, defaults to 0): index, in its experience, of the document that holds the answer, which the in-context
            ceiling gets to see.

    Example:

        >>> Question("When did the pier open?", "1907")
    """

    question: str
    answer: str
    kind: str = "direct"
    document: int = 0


@dataclass(frozen=True)
class Experience:
    """Documents to learn in one night, and the questions that are asked afterwards.

    Args:
        name (`str`): tells it from the others of a stream.
        documents (list of `str`): what is read.
        questions (list of `Question`): are asked before and after, and never learned.
        titles (list of `str`): name each document where that is not the experience's name.
        notes (list of `Question`): pairs to learn as they are; where there are some, documents are only there to be looked at,
            but for those in ``also_read``.
        edits (list of list of `str`): for each document, texts that others wrote about it; empty where nobody did.
        examples (list of list of `Question`): for each document, notes that stand for it in a prompt, as turns of a chat; empty
            where documents are shown as they are.
        also_read (list of `int`): indices of documents that are learned beside notes.
        replaces (list of `str`): titles of documents of earlier nights that these are newer versions of.
        forgotten (list of pairs of `str`): where the night was forgotten, title and digest of each document that it had read, in
            the place of the documents.

    Example:

        >>> Experience("pier", ["The pier opened in 1907."], [Question("When did the pier open?", "1907")])
    """

    name: str
    documents: list[str]
    questions: list[Question] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    notes: list[Question] = field(default_factory=list)
    edits: list[list[str]] = field(default_factory=list)
    examples: list[list[Question]] = field(default_factory=list)
    also_read: list[int] = field(default_factory=list)
    replaces: list[str] = field(default_factory=list)
    forgotten: list[tuple[str, str]] = field(default_factory=list)

    def is_read(self, document: int) -> bool:
        """Whether the document of this index is learned from, and not only there to be looked at beside the notes."""
        return not self.notes or document in self.also_read

    def titled(self) -> list[str]:
        """Return one title for each document: its own, or the name of the experience where none are given."""
        return self.titles or [self.name] * len(self.documents)

    def to_dict(self) -> dict[str, Any]:
        """Return the experience as plain JSON."""
        return {name: value for name, value in asdict(self).items() if value or name != "forgotten"}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Experience:
        """Build an experience from what `to_dict` has returned."""
        examples = [[Question(**note) for note in notes] for notes in data.get("examples", ())]
        return cls(
            data["name"],
            list(data["documents"]),
            [Question(**question) for question in data["questions"]],
            list(data.get("titles", ())),
            [Question(**note) for note in data.get("notes", ())],
            [list(texts) for texts in data.get("edits", ())],
            examples,
            list(data.get("also_read", ())),
            list(data.get("replaces", ())),
            [(title, digest) for title, digest in data.get("forgotten", ())],
        )


def together(passages: Sequence[Experience]) -> Experience:
    """Several experiences as one, with all their documents, notes and questions."""
    if len(passages) == 1:
        return passages[0]
    documents: list[str] = []
    questions: list[Question] = []
    notes: list[Question] = []
    also_read: list[int] = []
    for passage in passages:
        first = len(documents)
        questions += [replace(question, document=first + question.document) for question in passage.questions]
        notes += [replace(note, document=first + note.document) for note in passage.notes]
        also_read += [first + k for k in range(len(passage.documents)) if passage.is_read(k)]
        documents += passage.documents
    titles = [title for passage in passages for title in passage.titled()]
    if len(set(titles)) < len(titles):  # a.md and a.txt
        titles = [passage.name for passage in passages for _ in passage.documents]
    beside: dict[str, Any] = {}
    for kind in ("edits", "examples"):  # one list for each document
        found = [given for passage in passages for given in getattr(passage, kind) or [[] for _ in passage.documents]]
        beside[kind] = found if any(found) else []
    name = f"{passages[0].name} and {len(passages) - 1} more"
    return Experience(name, documents, questions, titles, notes, also_read=also_read if notes else [], **beside)


def render_message(role: str, content: str) -> str:
    """A chat message as a line of a transcript: ``User: ...``."""
    return f"{role.capitalize()}: {content.strip()}"


def render_note(question: str, answer: str) -> str:
    """A question-answer note as text: ``Q: ...`` and ``A: ...`` on two lines."""
    return f"Q: {question.strip()}\nA: {answer.strip()}"


class Size(NamedTuple):
    """Number of documents and words that a night has to read."""

    documents: int
    words: int


def size_of(experiences: Sequence[Experience]) -> Size:
    """Documents and words of all experiences; words as `word_count` counts them."""
    documents = [document for experience in experiences for document in experience.documents]
    return Size(len(documents), sum(map(word_count, documents)))


def word_count(text: str) -> int:
    """Number of words; in scripts without spaces, of ideographs and kana, or a fourth of the letters of Thai and its like."""
    text, ideographs = _IDEOGRAPHS.subn(" ", text)
    text, letters = _UNSPACED.subn(" ", text)
    return ideographs + -(-letters // 4) + sum(1 for token in text.split() if _IN_WORD.search(token))
