"""A slept model as a LoRA beside its base, for engines that swap adapters: trained to answer as the slept model does.

    teacher  p( . | x, y_<t)   all experts on, LoRA off          student  q( . | x, y_<t)   experts masked, LoRA on
    L = KL(p || q)             of items of all nights (prompt x, reply y) and of general prompts, half of each batch

    closed_book      share of right answers to the run's own questions, of base, slept model and LoRA
    kl_questions     mean over the tokens of the slept model's greedy replies to these questions of KL(slept || model), nats
    kl_general       the same of prompts of the retention set, on which nothing is trained

It is a night like any other (seeding/trainer.py): the same batches, steps and divergence, all experts hand over what they know,
and what takes it is a LoRA.  It lies beside the layers that have experts: below them both models are the same.

A hidden unit is no low-rank change of the block's matrices, so the LoRA is an approximation, unlike the plain form (export.py).
Left out: several processes, and general items that are pulled back to the unslept model, as the teacher here is the slept one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from sleepkit.errors import SleepkitError
from sleepkit.language.config import LearnerConfig
from sleepkit.language.data.experience import Question
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.generation.chat import chat_ids, decode, generate
from sleepkit.language.models.base_model import CONFIG_NAME, SMOLLM2, base_of, fingerprint
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.retention import RetentionSet
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.language.seeding.lora import ALPHA, LEARNING_RATE, RANK, add_lora
from sleepkit.language.seeding.trainer import KnowledgeSeedingTrainer
from sleepkit.language.self_test import SelfTest, graded
from sleepkit.utils.seeds import derive_seed

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["Exam", "LoraTrainer", "distilled", "lora_items"]

NO_SLOT = -1  # the slot that trains: none
SETTINGS = ("max_steps", "per_device_train_batch_size", "general_share", "divergence", "learning_rate", "lr_scheduler_type")


class LoraTrainer(KnowledgeSeedingTrainer):
    """Moves what all experts know into a LoRA on the same model.

    Args:
        adapted (`PeftModel`): the slept model with the LoRA.
        args (`KnowledgeSeedingConfig`): how it is trained.
        items (sequence of `SyntheticExample`): new and general items.
        tokenizer (`PreTrainedTokenizerBase`): tokenizer of the model.
    """

    def __init__(
        self,
        adapted: PeftModel,
        args: KnowledgeSeedingConfig,
        items: Sequence[SyntheticExample],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.adapted = adapted
        model = adapted.get_base_model()
        super().__init__(model, args, items, tokenizer, NO_SLOT, senders=ExpertBank.of(model).active)

    @contextmanager
    def teacher_view(self) -> Iterator[None]:
        """The slept model, without the LoRA."""
        with self.adapted.disable_adapter(), self.bank.view(self.senders):
            yield

    def unslept_view(self) -> Any:
        """Show the slept model, which also teaches general items."""
        return self.teacher_view()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """One group: the weights of the LoRA."""
        if self.optimizer is None:
            cls, options = self.get_optimizer_cls_and_kwargs(self.args)
            weights = [parameter for parameter in self.lm.parameters() if parameter.requires_grad]
            self.optimizer = cls([{"params": weights, "weight_decay": self.args.weight_decay}], **options)
        return self.optimizer


@dataclass
class Exam:
    """The run's own questions: those of the data, or where there are none, those that nights kept back from training.

    Attributes:
        questions: of the data.
        quiz: self-written, of which those are asked that are scored as right or wrong as the gate scores them.
    """

    questions: list[Question]
    quiz: list[SyntheticExample]

    def __len__(self) -> int:
        return len(self.questions or self.quiz)

    def prompts(self) -> list[str]:
        """Return the questions as prompts."""
        return [question.question for question in self.questions] or [item.prompt for item in self.quiz]

    def right(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: LearnerConfig) -> float:
        """Share of right answers of a model as it is now, decoded greedily; NaN where nothing is asked."""
        if not self.questions and self.quiz:
            scores = [share for _, share in SelfTest(model, tokenizer, config).answered(self.quiz)]
            return sum(scores) / len(scores)
        ids = [chat_ids(tokenizer, prompt) for prompt in self.prompts()]
        rows = generate(model, tokenizer, ids, config.max_new_tokens) if ids else []
        return graded(self.questions, [decode(tokenizer, row) for row in rows]).contained


def lora_items(nights: Sequence[SyntheticExample], general: Sequence[SyntheticExample]) -> list[SyntheticExample]:
    """Return the items that a LoRA is trained on: those of all nights as new ones, without their contexts, and general ones.

    Raises:
        SleepkitError: there are none of nights.
    """
    new = {(item.prompt, item.reply): replace(item, style="recall", context="") for item in nights}
    if not new:
        raise SleepkitError("no items of its nights are left to distil a LoRA from; publish it as plain or experts")
    return [*new.values(), *general]


@contextmanager
def distilled(
    bank: ExpertBank,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[SyntheticExample],
    args: KnowledgeSeedingConfig,
    exam: Exam,
    retention: Sequence[dict[str, Any]],
    config: LearnerConfig,
) -> Iterator[tuple[PeftModel, dict[str, Any]]]:
    """Run the block with a LoRA that answers as the slept model does, and what it loses; afterwards the model is as it was.

    Args:
        bank: experts of the slept model.
        tokenizer: its tokenizer.
        items: as `lora_items` makes them.
        args: how it is trained; its ``learning_rate`` is that of experts and is not used.
        exam: what is asked closed book.
        retention: rows ``{prompt, answer?}`` that nothing is trained on.
        config: how answers are generated and scored.

    Yields:
        The model with the LoRA, and a report: ``measures`` by name, settings and seed.

    Raises:
        SleepkitError: another program could not load an adapter onto the base.
    """
    model: Any = bank.model
    _check_base(model)
    weights = fingerprint(model)
    args = replace(args, learning_rate=LEARNING_RATE, reply_weight=0.0, lmbda=0.0, lmbda_start=0.0, save_strategy="no")
    slept = tuple(bank.active)
    asked = [{"prompt": prompt} for prompt in exam.prompts()]
    sets = {"kl_questions": RetentionSet(asked, compared_with=slept), "kl_general": RetentionSet(retention, compared_with=slept)}
    sets = {name: prompts for name, prompts in sets.items() if prompts.prompts}
    measures: dict[str, dict[str, float]] = {name: {"n": len(prompts.prompts)} for name, prompts in sets.items()}
    if len(exam):
        measures = {"closed_book": {"n": len(exam), "slept": exam.right(model, tokenizer, config)}, **measures}

    def measure(which: str) -> None:
        for name, prompts in sets.items():
            measures[name][which] = prompts.measure(model, tokenizer, bank)["anchor_kl"]
        if len(exam):
            measures["closed_book"][which] = exam.right(model, tokenizer, config)

    for prompts in sets.values():
        prompts.prepare(model, tokenizer, bank)
    with bank.view(()):
        measure("base")
    adapted = add_lora(model, bank.layers, derive_seed(args.seed, "lora"))
    try:
        trainer = LoraTrainer(adapted, args, items, tokenizer)
        outcome = trainer.run("the LoRA")
        model.eval()
        with bank.view(()):
            measure("lora")
            settings = {name: getattr(args, name) for name in SETTINGS}
            yield (
                adapted,
                {
                    "base_fingerprint": weights,
                    "rank": RANK,
                    "alpha": ALPHA,
                    "layers": bank.layers,
                    "nights": len(slept),
                    "items": len(trainer.new),
                    "general_items": len(items) - len(trainer.new),
                    "seed": args.seed,
                    "steps": trainer.state.global_step,
                    "settings": settings,
                    "train_tokens": outcome["train_tokens"],
                    "seconds": round(outcome["train_seconds"], 1),
                    "measures": measures,
                },
            )
    finally:
        adapted.unload()


def _check_base(model: PreTrainedModel) -> None:
    """Raise `SleepkitError` for a base onto which another program could not load an adapter."""
    from sleepkit.language.models.adapters import find_adapter

    base = base_of(model)
    remedy = "publish the plain form"
    if base is None or base.subfolder or base.is_folder and (Path(base.name).parent / CONFIG_NAME).is_file():
        raise SleepkitError(f"the base of this model lies beside its experts, where PEFT does not find it; {remedy}")
    if base.name != SMOLLM2 and find_adapter(base) is not None:
        raise SleepkitError(
            f"the base of this model, {base.public_name}, is an adapter itself, on which none can be put; {remedy}"
        )
