"""The experts of a chain of levels, fast to slow: which one learns tonight, and which ones pass on to it.

    take(night)              a fresh expert; in a full pool the two oldest of the slowest level are merged first
    take_over(level, night)  a fresh expert of a slower level, fitted to the outputs of all faster ones
    free(slots)              what has passed on, or is to be forgotten, is reset
    holding(nights)          the experts that hold these nights and no others; sharing(nights): those that hold others too

Source of the chain: schedule.py.  Ours: the fit (merge.py), on what the model reads of earlier nights, so that a quarter of the
epochs is enough.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterable
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
INHERITED = 0  # in place of a night: what was known before the first one


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
        nights: those that each expert has learned or taken over, by slot; `INHERITED` for what another life knew.
        rewritten: the last night that put what earlier nights had learned into another expert; 0 if there was none.
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
        self.nights: dict[int, list[int]] = {slot: [INHERITED] for slot in bank.active}
        self.rewritten = 0

    def take(self, night: int, level: int = 0) -> int:
        """Return the slot of the expert that learns on a night: a fresh one, or without ``expansion`` always the same."""
        if not self.expansion and self.bank.active:
            slot = self.bank.active[-1]
            self.bank.train_only(slot)
            self.nights[slot].append(night)
            self.rewritten = night
            return slot
        if len(self.bank.active) == self.bank.config.slots:
            self._merge_oldest(night)
        slot = self.bank.activate(seed=derive_seed(self.seed, "expert", night, level))
        self.of[slot], self.nights[slot] = level, [night]
        return slot

    def take_over(self, level: int, night: int) -> tuple[int, list[int]]:
        """Return the slot of a fresh expert of ``level``, fitted to all experts of faster levels, and their slots."""
        senders = [slot for slot in self.bank.active if self.of[slot] < level]
        slot = self.take(night, level)
        fit_slot(self.bank, slot, senders, self._ffn_inputs(night), seed=derive_seed(self.seed, "fit", night))
        self.nights[slot] = sorted(learned for sender in senders for learned in self.nights[sender])
        self.rewritten = night
        return slot, senders

    def free(self, slots: Iterable[int]) -> None:
        """Reset experts that have passed on what they know, or whose nights are forgotten."""
        for slot in slots:
            self.bank.deactivate(slot)
            del self.of[slot], self.nights[slot]

    def holding(self, nights: Collection[int]) -> list[int]:
        """Return the slots of the experts that hold these nights and no others.

        Raises:
            SleepkitError: no expert is known to hold one of the nights.
        """
        known = {night for held in self.nights.values() for night in held}
        for night in sorted(set(nights) - known):
            raise SleepkitError(
                f"it is not known which expert holds night {night}, as an older version has slept it; start anew without its "
                "documents (--overwrite true)"
            )
        return [slot for slot, held in self.nights.items() if set(held) <= set(nights)]

    def sharing(self, nights: Collection[int]) -> dict[int, list[int]]:
        """Return the experts that hold some of these nights beside others, as `nights` has them."""
        return {slot: held for slot, held in self.nights.items() if set(held) & set(nights) and not set(held) <= set(nights)}

    def before(self, night: int, forgotten: Collection[int] = ()) -> list[int]:
        """Return the slots of the experts that hold nothing but earlier nights than this one, and none of those forgotten."""
        return [slot for slot in self.bank.active if all(held < night and held not in forgotten for held in self.nights[slot])]

    def strike(self, nights: Collection[int]) -> None:
        """Note that no expert holds these nights any more."""
        self.nights = {slot: [night for night in held if night not in nights] for slot, held in self.nights.items()}

    def _merge_oldest(self, night: int) -> None:
        """Make room: one expert takes over from two, fitted on what the model says of earlier nights."""
        slowest = max(self.of.values())
        oldest = [slot for slot in self.bank.active if self.of[slot] == slowest][:2]
        seed = derive_seed(self.seed, "fit", night)
        merge_slots(self.bank, oldest[0], oldest, self._ffn_inputs(night), seed=seed)
        del self.of[oldest[1]]
        self.nights[oldest[0]] += self.nights.pop(oldest[1])
        self.rewritten = night

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
        """Return all of it as bytes."""
        return torch.tensor(list(json.dumps(self._document()).encode()), dtype=torch.uint8)

    def restore(self, snapshot: Tensor) -> None:
        """Go back to the levels of a snapshot; experts that came since are reset."""
        self._read(json.loads(bytes(snapshot.tolist())))
        for slot in [slot for slot in self.bank.active if slot not in self.of]:
            self.bank.deactivate(slot)

    def save(self, folder: Path) -> None:
        """Write the levels as JSON; call it on the main process."""
        write_json(folder / LEVELS_NAME, self._document())

    def load(self, folder: Path) -> None:
        """Read what `save` has written; the rehearsal buffer is to be read before."""
        document = read_json(folder / LEVELS_NAME)
        self._read(document if isinstance(document, dict) else self._with_nights(document))

    def _with_nights(self, pairs: list[list[int]]) -> dict[str, Any]:
        """Return the levels of a run from before nights were noted, which are pairs of slot and level.

        Where there are as many experts as nights that have left items, each holds one, in their order; otherwise it is not known.
        """
        nights = sorted({item.night for item in self.rehearsal.replay})
        alone = len(nights) == len(pairs) and min(nights, default=0) > INHERITED
        held = [[night] for night in nights] if alone else [[INHERITED] for _ in pairs]
        experts = [{"slot": slot, "level": level, "nights": own} for (slot, level), own in zip(pairs, held, strict=True)]
        return {"experts": experts, "rewritten": 0}

    def _document(self) -> dict[str, Any]:
        experts = [{"slot": slot, "level": self.of[slot], "nights": self.nights[slot]} for slot in self.bank.active]
        return {"experts": experts, "rewritten": self.rewritten}

    def _read(self, document: dict[str, Any]) -> None:
        experts = document["experts"]
        self.of = {expert["slot"]: expert["level"] for expert in experts}
        self.nights = {expert["slot"]: list(expert["nights"]) for expert in experts}
        self.rewritten = document["rewritten"]
