"""The context while awake: documents, notes and chats, handed out as chunks that fit a model's context.

What was read is kept as text.  For the night it is cut into chunks of at most ``max_tokens`` tokens, at sentence
boundaries, each chunk beginning with the last ``overlap`` sentences of the one before, so that a reference ("he", "the
second one") keeps its antecedent::

    document   s1 s2 s3 s4 s5      chunks (overlap 1)   [s1 s2 s3] [s3 s4] [s4 s5]

Nothing is dropped: the chunks of a document cover every character of it but the white space at their ends.  A sentence
that alone exceeds the budget is cut, at white space where there is some.  Where overlap and next sentence do not fit
together, the overlap gives way.  Question-answer notes in sequence share chunks, and a note that fits is not cut.  Tokenising
takes time linear in the length of a text, however long its lines are.

This is the fast, fragile level of the two-level memory of "Language Models Need Sleep" (arXiv 2606.03979): the context.
Ours: the chunks and their overlap.  Left out: retrieval (the night goes through everything), and any model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sleepkit.errors import SleepkitError
from sleepkit.language.data.columns import checked
from sleepkit.language.data.experience import render_message, render_note
from sleepkit.language.questions.sentences import sentence_spans, sentences
from sleepkit.utils.files import write_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ContextStore", "Chunk", "sentences"]

Span = tuple[int, int]  # [start, end) in a text


@dataclass(frozen=True)
class Chunk:
    """Part ``index`` (from 0) of the document ``title``; ``n_tokens`` tokens without special tokens.

    ``reference``: it is there to be looked at, and nothing is written about it, as what it says is learned from notes.
    """

    text: str
    title: str
    index: int
    n_tokens: int
    reference: bool = False


@dataclass
class _Entry:
    """A document in consecutive parts: the turns of a chat, the notes of a sequence.  No sentence runs across parts."""

    title: str
    parts: list[str]
    notes: bool = False
    reference: bool = False


class ContextStore:
    """Collects text while awake and cuts it into chunks of at most ``max_tokens`` tokens for the night.

    Args:
        tokenizer: counts the tokens (without special tokens).
        max_tokens: budget of one chunk, >= 1; leave room in the model's window for the prompt and the answer.
        overlap: sentences of the previous chunk that a chunk repeats, >= 0.

    Raises:
        SleepkitError: a number out of its range.

    Example:

        >>> store = ContextStore(tokenizer, max_tokens=512)
        >>> store.add_document("The pier opened in 1907.", title="pier")
        >>> [chunk.text for chunk in store.chunks()]
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, overlap: int = 1) -> None:
        if max_tokens < 1:
            raise SleepkitError(f"max_tokens is {max_tokens}; a chunk needs at least 1 token")
        if overlap < 0:
            raise SleepkitError(f"overlap is {overlap}; give a number of sentences, 0 for none")
        self.tokenizer, self.max_tokens, self.overlap = tokenizer, max_tokens, overlap
        self._entries: list[_Entry] = []

    def __len__(self) -> int:
        """Number of documents: a chat is one, notes in sequence are one."""
        return len(self._entries)

    def add_document(self, text: str, title: str = "document", reference: bool = False) -> None:
        """Remember a text.

        Args:
            text: not empty.
            title: of its chunks.
            reference: as in `Chunk`: it is there to be looked at, and nothing is written about it.

        Raises:
            SleepkitError: it is empty or cannot be tokenised.
        """
        self._entries.append(_Entry(title, [_not_empty(text, f"document {title!r}")], reference=reference))

    def add_note(self, question: str, answer: str) -> None:
        """Remember a question with its answer; notes added in sequence share chunks."""
        note = render_note(_not_empty(question, "question of a note"), _not_empty(answer, f"answer to {question!r}"))
        if not self._entries or not self._entries[-1].notes:
            self._entries.append(_Entry("notes", [], notes=True))
        self._entries[-1].parts.append(note + "\n\n")

    def add_chat(self, messages: Iterable[Mapping[str, str]], title: str = "chat") -> None:
        """Remember a chat transcript, messages of ``{role, content}``."""
        turns = [render_message(part["role"], _not_empty(part["content"], f"message of chat {title!r}")) for part in messages]
        if not turns:
            raise SleepkitError(f"chat {title!r} has no messages; give at least one")
        self._entries.append(_Entry(title, [turn + "\n" for turn in turns]))

    def clear(self) -> None:
        """Forget everything, as after a night that was committed."""
        self._entries = []

    def chunks(self) -> list[Chunk]:
        """All that is remembered, in order, in chunks within the budget.

        Raises `SleepkitError` if the budget is smaller than a single character.
        """
        return [chunk for entry in self._entries for chunk in self._chunks_of(entry)]

    def save(self, path: str | Path) -> None:
        """Write the store as JSON; an existing file is replaced in one step."""
        data = {
            "max_tokens": self.max_tokens,
            "overlap": self.overlap,
            "entries": [asdict(entry) for entry in self._entries],
        }
        write_text(path, json.dumps(data, ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path, tokenizer: PreTrainedTokenizerBase) -> ContextStore:
        """Read a store written by `save`.  Raises `SleepkitError` if the file is missing, cut or another."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            store = cls(tokenizer, data["max_tokens"], data["overlap"])
            store._entries = [_Entry(**entry) for entry in data["entries"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise SleepkitError(
                f"{path} is not a saved context store ({type(error).__name__}: {error}); give a file written by ContextStore.save"
            ) from None
        return store

    # Cutting

    def _chunks_of(self, entry: _Entry) -> list[Chunk]:
        text = "".join(entry.parts)
        units = self._units(text, entry)
        estimates = [self._count(text[start:end]) for start, end in units]
        chunks: list[Chunk] = []
        done = 0  # units already in a chunk
        while done < len(units):
            first = max(0, done - self.overlap) if chunks else 0
            while first < done and not self._fits(text, units[first][0], units[done][1]):
                first += 1
            # Counting unit by unit is linear but can be off at the seams, so the sum proposes and the count decides.
            last, total = done, sum(estimates[first : done + 1])
            while last + 1 < len(units) and total + estimates[last + 1] <= self.max_tokens:
                last += 1
                total += estimates[last]
            while last > done and not self._fits(text, units[first][0], units[last][1]):
                last -= 1
            content = _without_margins(text[units[first][0] : units[last][1]])
            chunks.append(Chunk(content, entry.title, len(chunks), self._count(content), entry.reference))
            done = last + 1
        return chunks

    def _units(self, text: str, entry: _Entry) -> list[Span]:
        """Consecutive spans that cover the text, each within the budget: sentences or whole notes, cut if too long."""
        units: list[Span] = []
        offset = 0
        for part in entry.parts:
            whole = entry.notes and self._fits(part, 0, len(part))
            spans = [(0, len(part))] if whole else sentence_spans(part)
            for start, end in spans:
                units.extend(self._cut(text, offset + start, offset + end))
            offset += len(part)
        return units

    def _cut(self, text: str, start: int, end: int) -> list[Span]:
        """A span in pieces within the budget."""
        pieces = []
        while (reached := self._reach(text, start, end)) < end:
            if reached == start:
                raise SleepkitError(
                    f"max_tokens is {self.max_tokens}, too small for the character {text[start]!r}; "
                    "raise it to what the model's window leaves beside the prompt and the answer"
                )
            words = max((i + 1 for i in range(start, reached) if text[i].isspace()), default=reached)
            cut = words if text[start:words].strip() else reached
            pieces.append((start, cut))
            start = cut
        return [*pieces, (start, end)]

    def _reach(self, text: str, start: int, end: int) -> int:
        """Return where the longest beginning of a span ends that fits; no more of the text is tokenised than a few times that."""
        low, high = start, min(end, start + 2 * self.max_tokens)
        while self._fits(text, start, high):
            if high == end:
                return end
            low, high = high, min(end, start + 2 * (high - start))
        while high - low > 1:  # text[start:low] fits, text[start:high] does not
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(text, start, middle) else (low, middle)
        return low

    def _fits(self, text: str, start: int, end: int) -> bool:
        return self._count(_without_margins(text[start:end])) <= self.max_tokens

    def _count(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _without_margins(text: str) -> str:
    """Without blank lines in front and white space behind; the first line keeps its indentation, which code needs."""
    text = text.rstrip()
    lines = text[: len(text) - len(text.lstrip())].rpartition("\n")
    return text[len(lines[0]) + len(lines[1]) :]


def _not_empty(text: str, what: str) -> str:
    if not text.strip():
        raise SleepkitError(f"the {what} is empty; give text")
    return checked(text, f"the {what}")
