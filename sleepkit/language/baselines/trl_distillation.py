"""TRL's `DistillationTrainer` with a teacher that has a prompt of its own: the question with its context in view.

    loss = JSD_beta( teacher( . | context, x, y_<t)  ||  student( . | x, y_<t) ),   y ~ student( . | x)

On-policy at every step, as TRL does it.  Ours: the teacher's prompt, which no stable trainer of TRL has (trl#5741).
It is a baseline: knowledge seeding itself needs neither a second model nor a rollout a step.  Private methods are
overridden, so TRL's minor version is pinned.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DistillationConfig, DistillationTrainer  # type: ignore[attr-defined]
from trl.trainer.utils import pad

from sleepkit.language.generation.chat import chat_ids
from sleepkit.language.questions.examples import SyntheticExample
from sleepkit.reporting.live.observer import observe
from sleepkit.utils.training import conclude, recomputing_here
from sleepkit.utils.training_fields import one_device

__all__ = ["MemoryDistillationTrainer", "distil", "rows_of"]


class MemoryDistillationTrainer(DistillationTrainer):
    """Rows ``{prompt, teacher_prompt}``, both conversations; everything else as in TRL.

    Attributes:
        tokens_seen: tokens that the student was trained on, prompts included, padding left out.
    """

    tokens_seen = 0

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super()._generate_and_score_completions(inputs)
        tokenizer: Any = self.processing_class
        prompts = [torch.tensor(chat_ids(tokenizer, row["teacher_prompt"])) for row in inputs]
        device = batch["prompt_ids"].device
        batch["teacher_ids"] = pad(prompts, padding_value=tokenizer.pad_token_id, padding_side="left").to(device)
        batch["teacher_mask"] = pad([torch.ones_like(p) for p in prompts], padding_value=0, padding_side="left").to(device)
        return batch

    def _compute_loss(self, unwrapped_student: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any) -> Any:
        self._teacher_rows = (
            torch.cat([inputs["teacher_ids"], inputs["completion_ids"]], dim=1),  # (batch, time)
            torch.cat([inputs["teacher_mask"], inputs["completion_mask"]], dim=1),
        )
        self.tokens_seen += int(inputs["prompt_mask"].sum() + inputs["completion_mask"].sum())
        return super()._compute_loss(unwrapped_student, inputs, num_items_in_batch)

    def _get_last_hidden_state(
        self, unwrapped_model: nn.Module, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, **fields: Any
    ) -> Tensor:
        if unwrapped_model is self.accelerator.unwrap_model(self.teacher_model):
            input_ids, attention_mask = self._teacher_rows
        return super()._get_last_hidden_state(unwrapped_model, input_ids, attention_mask, logits_to_keep, **fields)


def rows_of(items: Sequence[SyntheticExample]) -> Dataset:
    """Student's and teacher's prompts of the new items; the teacher reads what it reads in knowledge seeding."""
    rows = []
    for item in items:
        asked = {"role": "user", "content": item.prompt}
        worked = [
            {"role": "user", "content": f"{item.context}\n\n{item.prompt}"},
            {"role": "assistant", "content": item.reply},
        ]
        rows.append({"prompt": [asked], "teacher_prompt": [*worked, asked]})
    return Dataset.from_list(rows)


def distil(
    student: PeftModel,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[SyntheticExample],
    options: dict[str, Any],
    what: str = "training",
) -> dict[str, Any]:
    """Train a LoRA in place by TRL's distillation.

    Args:
        student: the model with a fresh LoRA.
        teacher: a second copy of the model, which has each item's context in its prompt.
        tokenizer: of both.
        items: what is asked; the student writes the replies itself.
        options: of `trl.DistillationConfig`.
        what: is trained, for messages.

    Returns:
        ``history`` (rows of the log that have a loss) and ``train_tokens``.

    Raises:
        SleepkitError: the training was stopped before its last step, or its weights are not finite.
    """
    args = DistillationConfig(**options)
    one_device(args)
    trainer = MemoryDistillationTrainer(
        student, teacher, args=args, train_dataset=rows_of(items), processing_class=_left_padded(tokenizer)
    )
    observe(trainer, "distilling")
    with recomputing_here(student):
        trainer.train()
    conclude(trainer, what)
    history = [line for line in trainer.state.log_history if "loss" in line]
    return {"history": history, "train_tokens": trainer.tokens_seen}


def _left_padded(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy that pads on the left, as TRL wants it."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = "left"
    return tokenizer
