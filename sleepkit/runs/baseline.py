"""Runs a baseline by its name on the cycle and measures of knowledge seeding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from accelerate.utils import DistributedType
from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
from sleepkit.language.data.experience import Experience

if TYPE_CHECKING:
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig
    from sleepkit.reporting.results import RunRecord
    from sleepkit.runs.arguments.language import SleepArguments

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


def run_baseline(
    name: str,
    *,
    args: SleepArguments,
    config: KnowledgeSeedingConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    experiences: Sequence[Experience],
    general_prompts: Sequence[str],
    anchors: Sequence[dict[str, Any]],
    options: Mapping[str, Any],
) -> RunRecord:
    """Run a baseline through the whole stream; writes and returns what knowledge seeding does, without a gate.

    Args:
        options: of the `SleepCycle`: where and how it keeps its run.

    Raises:
        SleepkitError: unknown name, or a run under DeepSpeed.
    """
    from sleepkit.cycle.cycle import SleepCycle
    from sleepkit.language.retention import Anchors

    if name not in LEARNERS:
        raise SleepkitError(f"baseline is {name!r}; use one of {', '.join(LEARNERS)}")
    if PartialState().distributed_type == DistributedType.DEEPSPEED:
        raise SleepkitError(f"baseline {name!r} merges whole weights; launch it without DeepSpeed")
    learner = LEARNERS[name](model, tokenizer, config, args, general_prompts)
    measure = Anchors(anchors)
    measure.prepare(model, tokenizer, learner.bank)  # now, as merging leaves no way back to the unslept model
    cycle = SleepCycle(
        learner,
        experiences,
        measure_anchors=lambda: measure.measure(model, tokenizer, learner.bank),
        method=name,
        needed_bytes=2 * sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
        **options,
    )
    return cycle.run()
