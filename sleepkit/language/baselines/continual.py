"""Baselines of continual learning: fine-tuning on one experience after another, and what keeps the earlier ones.

    replay   experience replay: what knowledge seeding keeps of earlier nights is mixed in             (no penalty)
    ewc      lambda / 2 * sum_i F_i (W_i - W_i*)^2, F: sum over nights of squared gradients           arXiv 1612.00796
    lwf      KL(model before tonight || model) on tonight's replies                                    arXiv 1606.09282
    o_lora   lambda * mean |A_j A^T|, A_j: the down-projections of earlier nights                      arXiv 2310.14152

Like `finetune_qa` they train a LoRA on the night's items, or notes, and merge it in the morning (finetuning.py).  `ewc` is
the online form with one Fisher matrix and no decay (Schwarz et al. 2018, arXiv 1805.06370); its W - W* is the LoRA's own
product, as W* are the weights before tonight.  Joint training is `finetune_qa` on one night of everything
(``--passages_per_night``).

Ours: the strengths, the mean over entries and maps in `o_lora` (the paper: a sum), and 64 rows for the Fisher matrix.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor

from sleepkit.language.baselines.finetuning import FinetuneQa
from sleepkit.language.models.decoder import find_decoder
from sleepkit.language.questions.examples import SyntheticExample
from sleepkit.language.seeding.divergence import OutputHead, TeacherTargets, token_divergence
from sleepkit.language.seeding.lora import Penalty, chat_rows, finetune, linear_maps, trl_settings

if TYPE_CHECKING:
    from peft import PeftModel

EWC_STRENGTH, LWF_STRENGTH, O_LORA_STRENGTH = 1e4, 1.0, 10.0
FISHER_ROWS = 64


class Replay(FinetuneQa):
    """Experience replay: as many items of earlier nights as knowledge seeding rehearses, out of what it keeps."""

    def examples(self, night: int, folder: Path) -> list[SyntheticExample]:
        """Tonight's items and some of earlier nights'."""
        items, held_out = self._night_items(night, folder)
        found = [item for item in items if item.role != "general"]
        self.rehearsal.remember(items, held_out, night)
        return found


class Penalised(FinetuneQa):
    """Fine-tuning with a penalty that needs something of earlier nights: ``kept``, saved as safetensors."""

    kept: dict[str, Tensor]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.kept = {}

    def train(self, student: PeftModel, night: int, folder: Path, items: list[SyntheticExample]) -> dict[str, Any]:
        """Fine-tune with the penalty, then take what the next night's penalty needs; arguments as for `LoraLearner.train`."""
        rows = chat_rows(self.tokenizer, items)
        penalty = self.penalty(student)
        outcome = finetune(student, self.tokenizer, rows, trl_settings(self.seeding, night, folder), penalty, f"night {night}")
        self.kept |= self.take(student, rows)
        return outcome

    @abstractmethod
    def penalty(self, student: PeftModel) -> Penalty | None:
        """Return the function that adds a penalty to the loss of a batch; None where there is none yet."""

    @abstractmethod
    def take(self, student: PeftModel, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the tensors of this night that later nights need."""

    def snapshot(self) -> dict[str, Tensor]:
        """Copy the merged weights, and with them what the method keeps of earlier nights."""
        return super().snapshot() | {f"kept.{name}": tensor.clone() for name, tensor in self.kept.items()}

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Undo a night, bit for bit, with what the method keeps of earlier nights."""
        super().restore(snapshot)
        self.kept = {name.removeprefix("kept."): tensor for name, tensor in snapshot.items() if name.startswith("kept.")}


class Ewc(Penalised):
    """Online elastic weight consolidation: weights that earlier nights relied on may change little."""

    def penalty(self, student: PeftModel) -> Penalty | None:
        """Squared change of each weight, by its Fisher information so far."""
        if not self.kept:
            return None
        changes = _products(student)

        def of(batch: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
            terms = [(self.kept[name].to(device=a.device, dtype=a.dtype) * (s * (b @ a)) ** 2).sum() for name, s, a, b in changes]
            return EWC_STRENGTH / 2 * torch.stack(terms).sum()

        return of

    def take(self, student: PeftModel, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Squared gradients of the log-likelihood of rows, on the weights a LoRA is merged into; each process has a share."""
        maps = {name.removesuffix(".base_layer"): module for name, module in linear_maps(self.model, self.bank.layers).items()}
        maps = {name: module for name, module in maps.items() if "lora_" not in name}
        weights = {name: cast(Tensor, module.weight) for name, module in maps.items()}
        found = {name: torch.zeros(weight.shape) for name, weight in weights.items()}
        chosen = rows[:: max(1, len(rows) // FISHER_ROWS)][:FISHER_ROWS]
        trained = [p for p in self.model.parameters() if p.requires_grad]
        for p in trained:
            p.requires_grad_(False)
        for weight in weights.values():
            weight.requires_grad_(True)
        ranks = PartialState()
        for row in chosen[ranks.process_index :: ranks.num_processes]:
            ids = torch.tensor([row["input_ids"]], device=student.device)
            labels = torch.tensor([row["labels"]], device=student.device)
            with torch.enable_grad():
                loss = student(input_ids=ids, labels=labels).loss
                grads = torch.autograd.grad(loss, list(weights.values()))
            for name, grad in zip(weights, grads, strict=True):
                found[name] += grad.cpu().float() ** 2 / len(chosen)
        for weight in weights.values():
            weight.requires_grad_(False)
        every = {name: reduce(own.to(ranks.device), "sum").cpu() for name, own in found.items()}
        return {name: total + self.kept[name] if name in self.kept else total for name, total in every.items()}


class Lwf(Penalised):
    """Learning without forgetting: the replies' distribution stays near what it was before tonight's training."""

    def penalty(self, student: PeftModel) -> Penalty:
        """Mean KL per reply token."""

        head = OutputHead.of(self.model)
        decoder = find_decoder(student)

        def of(batch: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask") if name in batch}
            places = batch["labels"][:, 1:] != -100
            with torch.no_grad(), student.disable_adapter():
                before = decoder(**inputs, use_cache=False).last_hidden_state[:, :-1][places]
            return LWF_STRENGTH * token_divergence(hidden[:, :-1][places], head, TeacherTargets(before)).mean()

        return of

    def take(self, student: PeftModel, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Nothing: the model itself is what is kept."""
        return {}


class OLora(Penalised):
    """Orthogonal LoRAs: tonight's reads directions that no earlier night's read."""

    def penalty(self, student: PeftModel) -> Penalty | None:
        """Penalise the overlap of tonight's down-projections with those of earlier nights."""
        if not self.kept:
            return None
        changes = _products(student)

        def of(batch: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
            return O_LORA_STRENGTH * torch.stack([(self.kept[name].to(a) @ a.T).abs().mean() for name, _, a, _ in changes]).mean()

        return of

    def take(self, student: PeftModel, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The down-projections of all nights, one below the other."""
        found = {name: a.detach().cpu() for name, _, a, _ in _products(student)}
        return {name: torch.cat([self.kept[name], a]) if name in self.kept else a for name, a in found.items()}


def _products(student: PeftModel) -> list[tuple[str, float, Tensor, Tensor]]:
    """(name of the map, scale, A, B) of each LoRA: it adds ``scale * B A`` to the weight."""
    found = []
    for name, module in student.get_base_model().named_modules():
        if hasattr(module, "lora_A"):
            layer: Any = module
            found.append((name, layer.scaling["default"], layer.lora_A["default"].weight, layer.lora_B["default"].weight))
    return found
