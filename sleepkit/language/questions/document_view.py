"""A document in the prompt, as far as the model's window holds it.

    DocumentView(tokenizer, max_tokens, overlap).prompt(document, question, room)
        the question with the whole document where there is room, else with the chunk that answers it: the best there can be
    shown_before(examples, question, tokenizer, room)
        the question after worked examples of its task, as turns of a chat
    notes_that_fit(notes, model, tokenizer)
        pairs to learn whose teacher's prompt the window holds; others are told

Ours: all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from accelerate import PartialState
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from sleepkit.errors import SleepkitError
from sleepkit.language.data.experience import Question
from sleepkit.language.generation.chat import chat_ids, text_ids, window_of
from sleepkit.language.questions.context import Chunk, ContextStore
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.questions.words import matching_words
from sleepkit.reporting.scores import contained

__all__ = ["IN_CONTEXT", "DocumentView", "closest_chunk", "notes_that_fit", "shown_before"]

IN_CONTEXT = "Read this text and answer the question.\n\nText: {text}\n\nQuestion: {question}"
SLACK = 32  # tokens that a chat template may add

logger = logging.get_logger(__name__)


class DocumentView:
    """Prompts with a document in view; chunks of documents that are too long are cut once.

    Args:
        max_tokens, overlap: of the chunks, as for `ContextStore`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, overlap: int) -> None:
        self.tokenizer, self.max_tokens, self.overlap = tokenizer, max_tokens, overlap
        self.chunks: dict[tuple[str, int], list[Chunk]] = {}

    def prompt(self, document: str, question: Question, room: float) -> str:
        """Return the question with the document or its closest chunk in front.

        Args:
            document: its text.
            question: that it answers.
            room: tokens that the prompt may have, as a chat.

        Raises:
            SleepkitError: the question alone leaves no room.
        """
        prompt = IN_CONTEXT.format(text=document, question=question.question)
        if len(prompt.encode()) + SLACK <= room or len(chat_ids(self.tokenizer, prompt)) <= room:
            return prompt
        left = int(room) - len(chat_ids(self.tokenizer, IN_CONTEXT.format(text="", question=question.question)))
        if left < 1:
            raise SleepkitError(f"the question {question.question!r:.60} leaves no room for a document in the window; shorten it")
        chunk = closest_chunk(self._cut(document, min(left, self.max_tokens)), question.question, question.answer)
        return IN_CONTEXT.format(text=chunk.text, question=question.question)

    def _cut(self, document: str, max_tokens: int) -> list[Chunk]:
        if (document, max_tokens) not in self.chunks:
            store = ContextStore(self.tokenizer, max_tokens, self.overlap)
            store.add_document(document)
            self.chunks[document, max_tokens] = store.chunks()
        return self.chunks[document, max_tokens]


def shown_before(
    examples: Sequence[Question], question: Question, tokenizer: PreTrainedTokenizerBase, room: float
) -> list[dict[str, str]]:
    """Return a chat in which examples are asked and answered before the question: as many, from the first on, as fit.

    Args:
        examples: notes of the same task.
        question: is asked last, and stands alone where no example fits.
        tokenizer: with the chat template.
        room: tokens of the chat at most.
    """
    last = {"role": "user", "content": question.question}
    turns = [
        {"role": role, "content": text}
        for shown in examples
        for role, text in (("user", shown.question), ("assistant", shown.answer))
    ]
    while turns and len(chat_ids(tokenizer, [*turns, last])) > room:
        del turns[-2:]
    return [*turns, last]


def closest_chunk(chunks: Sequence[Chunk], question: str, answer: str) -> Chunk:
    """Return the chunk that shares most words with the question, of those that hold the answer, or else of all."""
    asked = set(matching_words(question))

    def closeness(chunk: Chunk) -> tuple[bool, int]:
        return contained(chunk.text, answer), len(asked & set(matching_words(chunk.text)))

    return max(chunks, key=closeness)


def notes_that_fit(
    notes: Sequence[SyntheticExample], model: nn.Module, tokenizer: PreTrainedTokenizerBase
) -> list[SyntheticExample]:
    """Pairs that the window holds as often as their teacher reads them: in its context, as worked pair, and as what it says."""
    window = window_of(model)

    def fits(note: SyntheticExample) -> bool:
        read = "\n".join((note.context, note.prompt, note.reply, note.prompt, note.reply))
        return len(read.encode()) + SLACK <= window or len(text_ids(tokenizer, read)) + SLACK <= window

    fitting = [note for note in notes if fits(note)]
    if len(fitting) < len(notes) and PartialState().is_main_process:
        first = next(note for note in notes if note not in fitting)
        logger.warning(
            f"{first.source}: {len(notes) - len(fitting)} pairs, such as {first.prompt!r:.60}, are too long for the window of "
            f"{window} tokens and are not learned; shorten their answers"
        )
    return fitting
