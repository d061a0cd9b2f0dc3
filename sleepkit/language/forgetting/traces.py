"""What other experts hold of a night that is forgotten, and how it is trained away.

    gap = mean over the night's items of  log q(reply) - log p(reply)      nats per token of the reply
          q the model without the night's own expert, p the experts of earlier nights alone

Later nights rehearse items of earlier ones, an expert of a full pool or of a slower level takes them over, and without
``expansion`` all nights share one: what is left of the night then is in experts that hold other nights too.  Those without which
the gap is smaller train (trainer.py) in rounds of at least `ROUND_STEPS` steps, until the gap is at most `TOLERANCE`, no question
about it is answered that the model before did not answer, and items of other nights are as likely as before, up to `TOLERANCE`;
after `ROUNDS` rounds what is left is left, and told.

What another night has learned as well, in the same words, is no trace: those items are left out.  The questions that the night
kept back for its gate are measured and never trained on.  Ours: all of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.generation.chat import chat_ids, reply_ids, reply_log_probs
from sleepkit.language.levels import ExpertLevels
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.questions.words import matching_words
from sleepkit.language.rehearsal import Rehearsal
from sleepkit.reporting.live import progress
from sleepkit.utils.ranks import main_finds

__all__ = ["ROUNDS", "ROUND_STEPS", "TOLERANCE", "Forgotten", "Traces", "mean_losses"]

TOLERANCE = 0.05  # nats per token
ROUNDS, ROUND_STEPS = 6, 40
MEASURED = 256  # items at most
ROWS = 8  # in one pass: their logits are held at once


@dataclass(frozen=True)
class Forgotten:
    """What forgetting has taken.

    Attributes:
        slots: experts that are free again.
        gap_before: nats per token of the reply that the night's items were likelier than before it, its own expert masked; None
            where it has left no items.
        gap_after: the same after the training.
        lost: nats per token of the reply by which items of other nights are less likely after the training.
        steps: of training.
        seconds: of training.
    """

    slots: list[int]
    gap_before: float | None = None
    gap_after: float | None = None
    lost: float = 0.0
    steps: int = 0
    seconds: float = 0.0


class Traces:
    """What experts that stay hold of the items of some nights.

    Args:
        model: in which the experts are.
        tokenizer: its tokenizer.
        bank: the experts.
        levels: which nights each of them holds.
        rehearsal: items of all nights.
        nights: that are forgotten.
        seed: of which items are measured, where there are many.

    Attributes:
        own: experts that hold these nights and no others.
        items: of these nights alone, to be trained away.
        before: of each night, the experts of earlier nights alone.

    Raises:
        SleepkitError: a night shares its expert with others, and has left no items by which it could be trained away; or it is
            not known which expert holds it.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        bank: ExpertBank,
        levels: ExpertLevels,
        rehearsal: Rehearsal,
        nights: Collection[int],
        seed: int = 0,
    ) -> None:
        self.model, self.tokenizer, self.bank = model, tokenizer, bank
        self.nights, self.rehearsal, self.seed = sorted(nights), rehearsal, seed
        self.own = levels.holding(nights)
        self.shared = levels.sharing(nights)
        self.before = {night: levels.before(night, nights) for night in self.nights}
        self.items = rehearsal.only_of(nights, [*rehearsal.replay, *rehearsal.dreams.items])
        asked = rehearsal.only_of(nights, rehearsal.quiz)
        self.measured = _at_most(MEASURED, [*self.items, *asked], seed)
        self.others = rehearsal.current(item for item in rehearsal.replay if item.night not in nights)
        for night in self.nights:
            if any(night in held for held in self.shared.values()) and all(item.night != night for item in self.items):
                raise SleepkitError(
                    f"night {night} shares its expert with other nights, and has left no items of its own by which it could be "
                    "trained away; start anew without its documents (--overwrite true)"
                )
        self._reference: list[float] | None = None

    # -- measuring ----------------------------------------------------------------------------------------------------
    def gap(self) -> float | None:
        """How much likelier the items are than before their nights, nats per token; None without items.

        Call it on all processes.
        """
        if not self.measured:
            return None
        if self._reference is None:
            self._reference = self._before_their_nights()
        return _mean_difference(self._reference, self._losses(self.measured))

    def _before_their_nights(self) -> list[float]:
        losses: dict[SyntheticExample, float] = {}
        for night, slots in self.before.items():
            chosen = [item for item in self.measured if item.night == night]
            with self.bank.view(slots):
                losses |= zip(chosen, self._losses(chosen), strict=True)
        return [losses[item] for item in self.measured]

    def _losses(self, items: Sequence[SyntheticExample]) -> list[float]:
        pairs = [(chat_ids(self.tokenizer, item.prompt), reply_ids(self.tokenizer, item.reply)) for item in items]
        return mean_losses(self.model, self.tokenizer, pairs)

    def holders(self) -> list[int]:
        """Return the experts that share a night, and those later ones without which its items are less likely.

        Of several that hold little each, none may be found alone: then it is all of them.  Call it on all processes.
        """
        later = [slot for slot in self.bank.active if any(slot not in slots for slots in self.before.values())]
        gap, found = self.gap() or 0.0, [slot for slot in later if slot in self.shared]
        for slot in later:
            if slot not in found:
                with self.bank.view([other for other in self.bank.active if other != slot]):
                    without = self.gap() or 0.0
                found += [slot] if gap - without > TOLERANCE / len(later) else []
        return found or later

    # -- training -----------------------------------------------------------------------------------------------------
    def examples(self, general: Sequence[SyntheticExample], replayed: int) -> list[SyntheticExample]:
        """Return what is trained on: the items, and of other nights those that share most words with them, and some of the rest.

        Args:
            general: general prompts with their replies.
            replayed: items of other nights at least; as many as are forgotten where these are more.
        """
        words = {word for item in self.items for word in matching_words(item.reply)}
        chosen = self.rehearsal.at_risk(self.others, self.nights[0], words, max(replayed, len(self.items)))
        learned = [replace(item, style="recall") for item in self.items]
        return [*learned, *general, *(replace(item, style="replay") for item in chosen)]

    def train_away(self, train: Callable[[int, Sequence[int]], dict[str, Any]], is_recalled: Callable[[], bool]) -> Forgotten:
        """Train in rounds until nothing is left and nothing is lost, or `ROUNDS` are over; call it on all processes.

        Args:
            train: trains a round of this number, from 1, on experts of these slots; returns ``steps`` and ``train_seconds``.
            is_recalled: whether a question about the nights is answered that the model before did not answer.
        """
        first = self.gap()
        done, slots = Forgotten(self.own, first, first), self.holders() if self.items else []
        if not slots or self._is_enough(done, is_recalled):
            return done
        progress.say(f"other experts hold traces of it ({first or 0:.2f} nats per token); they are trained away")
        others = _at_most(MEASURED, self.others, self.seed)
        before = self._losses(others)
        for number in range(1, ROUNDS + 1):
            outcome = train(number, slots)
            steps, seconds = done.steps + outcome["steps"], done.seconds + outcome["train_seconds"]
            lost = _mean_difference(self._losses(others), before)
            done = replace(done, gap_after=self.gap(), lost=lost, steps=steps, seconds=seconds)
            if self._is_enough(done, is_recalled):
                break
        return done

    @staticmethod
    def _is_enough(done: Forgotten, is_recalled: Callable[[], bool]) -> bool:
        return max(done.gap_after or 0.0, done.lost) <= TOLERANCE and not is_recalled()


def _mean_difference(losses: Sequence[float], others: Sequence[float]) -> float:
    """Mean of what the ones are above the others, which the main process finds; 0 of none."""
    found = [loss - other for loss, other in zip(losses, others, strict=True)]
    return main_finds(lambda: sum(found) / max(1, len(found)))


@torch.no_grad()
def mean_losses(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[list[int], list[int]]]
) -> list[float]:
    """Mean loss of the tokens of each reply after its prompt, both as token ids, in nats."""
    return [-found.mean().item() for found in reply_log_probs(model, tokenizer, pairs, ROWS)]


def _at_most(most: int, items: Sequence[SyntheticExample], seed: int) -> list[SyntheticExample]:
    return list(items) if len(items) <= most else random.Random(seed).sample(items, most)
