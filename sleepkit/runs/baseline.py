"""Runs a baseline by its name on the cycle and measures of knowledge seeding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sleepkit.cycle.cycle import SleepCycle
from sleepkit.errors import SleepkitError
from sleepkit.language.baselines.continual import Ewc, Lwf, OLora, Replay
from sleepkit.language.baselines.finetuning import (
    Baseline,
    ContextDistillation,
    FinetuneEdits,
    FinetunePassage,
    FinetuneQa,
    InContext,
    InWindow,
    Lora,
    NoSleep,
    TrlDistillation,
)
from sleepkit.language.config import LearnerConfig, part_of
from sleepkit.language.data.experience import Experience
from sleepkit.language.learner import LanguageLearner
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.trainers.config import SleepConfig
from sleepkit.trainers.language import SleepTrainer

LEARNERS: dict[str, type[Baseline]] = {
    "no_sleep": NoSleep,
    "in_context": InContext,
    "in_window": InWindow,
    "finetune_passage": FinetunePassage,
    "finetune_edits": FinetuneEdits,
    "finetune_qa": FinetuneQa,
    "context_distillation": ContextDistillation,
    "lora": Lora,
    "trl_distillation": TrlDistillation,
    "replay": Replay,
    "ewc": Ewc,
    "lwf": Lwf,
    "o_lora": OLora,
}


class BaselineTrainer(SleepTrainer):
    """Runs a baseline through the whole stream; writes and returns what knowledge seeding does, without a gate and a model.

    Args:
        baseline: one of `LEARNERS`; the other arguments are those of `SleepTrainer`.

    Raises:
        SleepkitError: unknown name, or a run under DeepSpeed.
    """

    def __init__(self, model: Any, args: SleepConfig, *given: Any, baseline: str, **named: Any) -> None:
        if baseline not in LEARNERS:
            raise SleepkitError(f"baseline is {baseline!r}; use one of {', '.join(LEARNERS)}")
        if args.deepspeed_plugin is not None:
            raise SleepkitError(
                f"baseline {baseline!r} merges whole weights, which DeepSpeed holds; launch it with "
                "accelerate_configs/multi_gpu.yaml"
            )
        self.method = self.baseline = baseline
        super().__init__(model, args, *given, **named)

    def _make_learner(self) -> LanguageLearner:
        seeding, config = part_of(self.args, KnowledgeSeedingConfig), part_of(self.args, LearnerConfig)
        learner = LEARNERS[self.method](self.model, self.processing_class, seeding, config, self.general_prompts)
        self.anchors.prepare(self.model, self.processing_class, learner.bank)  # now, as merging leaves no way back
        return learner

    def _cycle(self, **options: Any) -> SleepCycle[Experience]:
        weights = sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())
        return SleepCycle(self.learner, needed_bytes=2 * weights, **options)

    def _crowded(self, experiences: Sequence[Experience]) -> list[str]:
        return []

    def _write(self, cycle: SleepCycle[Experience]) -> None:
        """Nothing: there are no experts to publish."""
