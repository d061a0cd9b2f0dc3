"""The experts of a chain of levels, fast to slow: which one learns tonight, and which ones pass on to it.

    take(night)              a fresh expert; in a full pool the two oldest of the slowest level are merged first
    take_over(level, night)  a fresh expert of a slower level, fitted to the outputs of all faster ones
    free(slots)              what has passed on is reset

Source of the chain: schedule.py.  Ours: the fit (merge.py), on what the model reads of earlier nights, so that a quarter of the
epochs is enough.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from sleepkit.errors import SleepkitError
from sleepkit.language.config import LearnerConfig
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.merge import capture_ffn_inputs, fit_slot, merge_slots
from sleepkit.language.experts.units import ExpertBankConfig
from sleepkit.language.rehearsal import Rehearsal
from sleepkit.language.schedule import SleepSchedule
from sleepkit.utils.files import read_json, write_json
from sleepkit.utils.seeds import derive_seed

__all__ = ["ExpertLevels", "experts_of"]

MERGE_ITEMS = 256
LEVELS_NAME = "levels.json"


def experts_of(model: nn.Module, config: LearnerConfig) -> ExpertBank:
    """Return the experts of a model, which grows them in place unless it has some."""
    try:
        return ExpertBank.of(model)
    except SleepkitError:
        layers: Any = config.expert_layers
        shape = ExpertBankConfig(slots=config.expert_slots, width=config.expert_width, layers=layers, kind=config.expert_kind)
        return ExpertBank.grow(model, shape)


class ExpertLevels:
    """Levels of the experts in use.

    Args:
        model: in which the experts are.
        tokenizer: its tokenizer.
        bank: the experts; those that are active are of the slowest level.
        config: the chain, and whether each night takes a new expert.
        rehearsal: items of earlier nights, on which experts are fitted to others.
        seed: of fresh experts and fits.

    Attributes:
        of: level of each expert in use, by slot; 0 is the fastest.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        bank: ExpertBank,
        config: LearnerConfig,
        rehearsal: Rehearsal,
        seed: int,
    ) -> None:
        self.model, self.tokenizer, self.bank = model, tokenizer, bank
        self.expansion, self.rehearsal, self.seed = config.expansion, rehearsal, seed
        self.schedule = SleepSchedule(config.chain)
        self.of = dict.fromkeys(bank.active, len(self.schedule.chunk_sizes) - 1)

    def take(self, night: int, level: int = 0) -> int:
        """Return the slot of the expert that learns on a night: a fresh one, or without ``expansion`` always the same."""
        if not self.expansion and self.bank.active:
            slot = self.bank.active[-1]
            self.bank.train_only(slot)
            return slot
        if len(self.bank.active) == self.bank.config.slots:
            self._merge_oldest(night)
        slot = self.bank.activate(seed=derive_seed(self.seed, "expert", night, level))
        self.of[slot] = level
        return slot

    def take_over(self, level: int, night: int) -> tuple[int, list[int]]:
        """Return the slot of a fresh expert of ``level``, fitted to all experts of faster levels, and their slots."""
        senders = [slot for slot in self.bank.active if self.of[slot] < level]
        slot = self.take(night, level)
        fit_slot(self.bank, slot, senders, self._ffn_inputs(night), seed=derive_seed(self.seed, "fit", night))
        return slot, senders

    def free(self, slots: Iterable[int]) -> None:
        """Reset experts that have passed on what they know."""
        for slot in slots:
            self.bank.deactivate(slot)
            del self.of[slot]

    def _merge_oldest(self, night: int) -> None:
        """Make room: one expert takes over from two, fitted on what the model says of earlier nights."""
        slowest = max(self.of.values())
        oldest = [slot for slot in self.bank.active if self.of[slot] == slowest][:2]
        seed = derive_seed(self.seed, "fit", night)
        merge_slots(self.bank, oldest[0], oldest, self._ffn_inputs(night), seed=seed)
        del self.of[oldest[1]]

    def _ffn_inputs(self, night: int) -> list[Tensor]:
        """Return what the grown layers see when the model reads some items of earlier nights and the general ones."""
        replay, general = self.rehearsal.replay, self.rehearsal.general
        seed = derive_seed(self.seed, "merge", night)
        chosen = random.Random(seed).sample(replay, min(MERGE_ITEMS, len(replay)))
        texts = [f"{item.prompt}\n{item.reply}" for item in [*chosen, *general]]
        batches = [self.tokenizer(texts[k : k + 16], return_tensors="pt", padding=True) for k in range(0, len(texts), 16)]
        device = next(self.model.parameters()).device
        on_device = [{name: tensor.to(device) for name, tensor in batch.items()} for batch in batches]
        return capture_ffn_inputs(self.bank, on_device, seed=seed)

    # -- keeping ------------------------------------------------------------------------------------------------------
    def snapshot(self) -> Tensor:
        """Return slots and levels in turn, ``(2 * experts,)`` int64."""
        numbers = [number for slot in self.bank.active for number in (slot, self.of[slot])]
        return torch.tensor(numbers, dtype=torch.int64)

    def restore(self, snapshot: Tensor) -> None:
        """Go back to the levels of a snapshot; experts that came since are reset."""
        levels = snapshot.tolist()
        self.of = dict(zip(levels[::2], levels[1::2], strict=True))
        for slot in [slot for slot in self.bank.active if slot not in self.of]:
            self.bank.deactivate(slot)

    def save(self, folder: Path) -> None:
        """Write the levels as JSON; call it on the main process."""
        write_json(folder / LEVELS_NAME, [[slot, self.of[slot]] for slot in self.bank.active])

    def load(self, folder: Path) -> None:
        """Read what `save` has written."""
        self.of = dict(read_json(folder / LEVELS_NAME))
