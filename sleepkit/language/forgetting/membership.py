"""Does the model's loss tell that it has read a text?

    loss     mean over a passage's tokens of -log p(token | passage so far), in nats; a passage is a sentence, or a piece of
             what is no prose, read alone
    score    loss of the unslept model - loss now                    above 0: likelier than without any sleep
    AUC      chance that a passage of the text has a higher score than one that was never read: 0.5 tells nothing

The attack by a threshold on the loss is that of Yeom et al. 2018 (arXiv 1709.01604); its calibration by a model that has not seen
the text is that of Watson et al. 2022 (arXiv 2111.08440).  Passages of `TOKENS` tokens at most, `MOST` of a night at most.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import nn
from transformers import PreTrainedTokenizerBase

from sleepkit.language.data.experience import Experience, render_note
from sleepkit.language.forgetting.traces import mean_losses
from sleepkit.language.generation.chat import raw_ids
from sleepkit.language.questions.passages import passages
from sleepkit.reporting.metrics import auroc
from sleepkit.utils.seeds import evenly

__all__ = ["LEAST", "NEVER", "Losses", "Reading", "membership", "passages_of"]

LEAST = 8  # passages on each side, for an AUC
MOST, TOKENS = 256, 128
NEVER = 0  # in place of a night: what was never read

Losses = Mapping[int, Sequence[float]]  # of the passages of each night


class Reading:
    """Texts of nights, and others that were never read, to be read alone by the model as it is.

    Args:
        model: that reads.
        tokenizer: its tokenizer.
        nights: what each has read.
        never: texts that were never trained on.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        nights: Mapping[int, Experience],
        never: Sequence[str],
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.rows = {night: self._pieces(passages_of(experience)) for night, experience in nights.items()}
        self.rows[NEVER] = self._pieces(evenly(never, MOST))

    def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; one that is longer than `TOKENS` in several pieces."""
        ids = [raw_ids(self.tokenizer, text) for text in texts]
        pieces = [row[k : k + TOKENS] for row in ids for k in range(0, len(row), TOKENS)]
        return [piece for piece in pieces if len(piece) > 1]

    def losses(self) -> Losses:
        """Mean loss of a token of each passage, in nats, by night."""
        pairs = {night: [(row[:1], row[1:]) for row in rows] for night, rows in self.rows.items()}
        return {night: mean_losses(self.model, self.tokenizer, given) for night, given in pairs.items()}


def passages_of(experience: Experience) -> list[str]:
    """Passages of what a night has read, and its notes, spread evenly over them if they are many."""
    read = [text for k, text in enumerate(experience.documents) if experience.is_read(k)]
    texts = [passage.text for document in read for passage in passages(document)]
    return evenly([*texts, *(render_note(note.question, note.answer) for note in experience.notes)], MOST)


def membership(now: Losses, unslept: Losses, nights: Collection[int]) -> float | None:
    """AUC of the scores of passages of some nights against those of what was never read; None for fewer than `LEAST`."""
    scores = {night: [before - after for before, after in zip(unslept[night], now[night], strict=True)] for night in now}
    read = [score for night in nights for score in scores[night]]
    return auroc(read, scores[NEVER]) if min(len(read), len(scores[NEVER])) >= LEAST else None
