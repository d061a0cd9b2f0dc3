"""What the trainings of all nights cost: the teacher's targets before the first step, and the steps.

Batches are those of `BatchPlan`, rows those of packing.py and preparation.py.  Of all batches two are run on the meta device: a
typical one, with the experts of the first night and with those of the last, between which FLOPs grow evenly; and the largest one,
with those of the last, for its memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from sleepkit.language.plan.passes import META, Passes
from sleepkit.language.plan.stand_in import Batch, Call
from sleepkit.language.questions.items import ROLES
from sleepkit.language.seeding.batch_plan import BatchPlan
from sleepkit.language.seeding.packing import PackedBatch, PreparedItem, common_prefix, pack, pad_rows
from sleepkit.language.seeding.preparation import PASS_TOKENS, Preparation, padded_passes
from sleepkit.language.seeding.trainer import teacher_prompt
from sleepkit.utils.seeds import derive_seed

if TYPE_CHECKING:
    from sleepkit.language.plan.night import NightItems
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

__all__ = ["StepCosts", "Targets", "Training", "planned_training"]

AT_ONCE = 32  # rollouts that are written together, as `generate` does by default
FOLDERS = {"training": "checkpoints", "rehearsal": "rehearsal"}  # of which the seed of a training is made


@dataclass(frozen=True)
class Targets:
    """What is computed of items before the first step.

    Attributes:
        tokens: that the teacher reads, and below the experts the student, padding included.
        flops: of all of it.
        passes: one after the other.
        peak_bytes: of the largest pass.
        kept_bytes: of targets and of what enters the first expert layer, for the whole training.
    """

    tokens: int
    flops: float
    passes: int
    peak_bytes: int
    kept_bytes: int


@dataclass(frozen=True)
class Training:
    """The steps of one training, of all ranks.

    Attributes:
        phase: its name in the plan.
        night: number of the night.
        items: that are learned from, and of them those that are new.
        steps: of the optimizer.
        batches: steps, or as many more as are accumulated.
        tokens: that pass through the model, counted as the night counts them.
        targets: before the first step.
        calls: of the student's rollouts, and of the teacher about them, by phase.
        rows: makes the tensors of a batch.
        middle, largest: items of a batch of the size that half of them have, and of the largest.
    """

    phase: str
    night: int
    items: int
    steps: int
    batches: int
    tokens: int
    targets: Targets
    calls: dict[str, list[Call]]
    rows: Rows
    middle: Sequence[int]
    largest: Sequence[int]


@dataclass(frozen=True)
class StepCosts:
    """Costs of the steps of all trainings of a run.

    Attributes:
        first, last: nights of the first and the last training.
        flops: of a token, with the experts of the first night, and with those of the last.
        peaks: bytes of the largest batch of each phase, beyond the expert's gradient.
    """

    first: int
    last: int
    flops: tuple[float, float]
    peaks: dict[str, int]

    @classmethod
    def of(cls, passes: Passes, trainings: Sequence[Training], args: KnowledgeSeedingConfig) -> StepCosts:
        """Run the typical batch and the largest ones."""
        nights = [training.night for training in trainings]
        typical = trainings[0]
        largest: dict[str, Training] = {}
        for one in trainings:
            largest[one.phase] = max(largest.get(one.phase, one), one, key=lambda one: one.rows.tokens(one.largest))
        batch, tokens = typical.rows.batch(typical.middle), typical.rows.tokens(typical.middle)
        first, last = min(nights), max(nights)
        flops = {night: passes.step(batch, night, args).flops / tokens for night in {first, last}}
        peaks = {phase: passes.step(one.rows.batch(one.largest), last, args).peak_bytes for phase, one in largest.items()}
        return cls(first, last, (flops[first], flops[last]), peaks)

    def flops_of(self, training: Training) -> float:
        """FLOPs of the forward and backward passes of a training."""
        few, many = self.flops
        share = (training.night - self.first) / max(1, self.last - self.first)
        return training.tokens * (few + share * (many - few))


def planned_training(passes: Passes, night: NightItems, args: KnowledgeSeedingConfig, ranks: int) -> Training:
    """Count one training of a night.

    Args:
        passes: of the model.
        night: its items and steps.
        args: settings of the run.
        ranks: processes that share each step.
    """
    tokenizer = passes.blank.tokenizer
    preparation = Preparation(passes.blank.model, passes.backbone, passes.head, tokenizer, args)
    prepared = [preparation.tokenised(item) for item in night.items]
    packs = args.packing and passes.backbone.packs(prepared)
    prefix = common_prefix(prepared) if packs else 0
    new, *others = ([i for i, item in enumerate(night.items) if item.role == role] for role in ROLES)
    plan = BatchPlan(new, others, args.per_device_train_batch_size, args.general_share, 1, 0, 0, ranks)
    accumulated = args.gradient_accumulation_steps
    steps = night.steps or args.max_steps
    if steps <= 0:
        steps = plan.steps_of(night.epochs or args.num_train_epochs, accumulated, args.min_steps)
    name = FOLDERS.get(night.name, night.name)
    seed = derive_seed(args.seed, "train", night.night, name)
    shared = (args.per_device_train_batch_size, args.general_share, steps * accumulated, seed)
    batches = [batch for rank in range(ranks) for batch in BatchPlan(new, others, *shared, rank, ranks)]
    general = {i for i, item in enumerate(night.items) if item.style == "general"}  # kept for the nights to come
    drawn = sorted(general.union(*batches))
    prompts = {i: teacher_prompt(tokenizer, night.items[i]) for i in drawn}
    told = {i for i in drawn if not (night.kept_general and night.items[i].style == "general")}
    targets = _targets(passes, prepared, prompts, told, args)
    keeps = args.cache_frozen_layers and passes.backbone.enters_above
    rows = Rows(passes, prepared, prefix, packs, keeps)
    ordered = sorted(batches, key=rows.tokens)
    return Training(
        phase="training" if night.name == "rehearsal" else night.name,
        night=night.night,
        items=len(new),
        steps=steps,
        batches=len(batches) // ranks,
        tokens=sum(map(rows.tokens, batches)),
        targets=targets,
        calls=_rollouts([prepared[i] for i in new], [prompts[i] for i in new if i in prompts], steps, args),
        rows=rows,
        middle=ordered[len(batches) // 2],
        largest=ordered[-1],
    )


def _rollouts(
    new: Sequence[PreparedItem], teacher_prompts: Sequence[list[int]], steps: int, args: KnowledgeSeedingConfig
) -> dict[str, list[Call]]:
    """What the student writes on its own in a training, as `refresh_rollouts` has it: prompts of mean length.

    Args:
        new: items that may be asked.
        teacher_prompts: what the teacher reads about them.
        steps: of the training.
        args: how many rollouts are drawn, and when.
    """
    if not args.on_policy:
        return {}
    prompt, reply, told = (
        round(fmean(map(len, rows)))
        for rows in ([item.prompt_ids for item in new], [item.reply_ids for item in new], teacher_prompts)
    )
    count, limit = min(args.rollout_prompts, len(new)) * args.num_generations, args.max_completion_length
    asked = prompt + reply // 2  # from a random prefix of the reply on
    written = [Batch(min(AT_ONCE, count - start), 0, asked, limit) for start in range(0, count, AT_ONCE)]
    old = [Batch(1, 0, asked + limit, heads=limit)] * count
    rows = max(1, min(count, PASS_TOKENS // (told + reply + limit)))
    taught = [Batch(min(rows, count - start), 0, told + reply + limit, heads=limit) for start in range(0, count, rows)]
    rounds = -(-steps // args.rollout_every)
    return {
        "rollouts": [Call(batches=written), Call(batches=old, is_reading=True)] * rounds,
        "targets": [Call(batches=taught, is_reading=True)] * rounds,
    }


class Rows:
    """Makes the rows of a batch, as the night does, with nothing in them.

    Args:
        passes: of the model.
        prepared: all items.
        prefix: tokens that all prompts begin with.
        packs: whether items share a row.
        keeps: whether what enters the first expert layer is kept.
    """

    def __init__(self, passes: Passes, prepared: Sequence[PreparedItem], prefix: int, packs: bool, keeps: bool) -> None:
        self.passes, self.prepared, self.prefix, self.packs, self.keeps = passes, prepared, prefix, packs, keeps

    def tokens(self, batch: Sequence[int]) -> int:
        """Tokens of a batch, as `PackedBatch.n_tokens` counts them."""
        return self.prefix + sum(len(self.prepared[i].sequence) - self.prefix for i in batch)

    def batch(self, chosen: Sequence[int]) -> PackedBatch:
        """The tensors of one step, on the meta device."""
        width, dtype = self.passes.width, self.passes.backbone.dtype
        items = [self.prepared[i] for i in chosen]
        if self.keeps:
            items = [replace(item, lower=torch.empty(len(item.sequence), width, dtype=dtype, device=META)) for item in items]
        return pack(items, self.prefix, dtype, META) if self.packs else pad_rows(items, 0, META)


def _targets(
    passes: Passes,
    prepared: Sequence[PreparedItem],
    prompts: dict[int, list[int]],
    told: set[int],
    args: KnowledgeSeedingConfig,
) -> Targets:
    """Cost of the teacher's passes over some items, and of the layers below the experts.

    Args:
        prompts: what the teacher reads before the reply of each item that has targets.
        told: indices of those that are computed tonight; the others are of an earlier night.
    """
    asked = sorted(i for i in told if not (prepared[i].is_learned and args.reply_weight == 1))
    keeps = args.cache_frozen_layers and passes.backbone.enters_above
    tokens, flops, count, peak = 0, 0.0, 0, 0
    largest: list[int] = []
    read = {i: len(prompts[i]) + len(prepared[i].reply_ids) for i in asked}
    for chosen in padded_passes(sorted(asked, key=read.__getitem__), read, PASS_TOKENS):
        width = max(len(prompts[i]) + len(prepared[i].reply_ids) - 1 for i in chosen)
        n = sum(len(prepared[i].reply_ids) for i in chosen)
        tokens, count = tokens + width * len(chosen), count + 1
        flops += passes.whole.flops(len(chosen), width) + n * passes.per_logit_row
        largest = max(largest, chosen, key=lambda some: _padded(some, prepared, prompts))
    if largest:
        peak = passes.targets_peak(_padded(largest, prepared, prompts), sum(len(prepared[i].reply_ids) for i in largest), args)
    if keeps:
        lengths = {i: len(prepared[i].sequence) for i in told}
        for group in padded_passes(sorted(sorted(told), key=lengths.__getitem__), lengths, PASS_TOKENS):
            width = max(lengths[i] for i in group)
            tokens, count = tokens + width * len(group), count + 1
            flops += passes.lower.flops(len(group), width)
    return Targets(tokens, flops, count, peak, _kept(passes, [prepared[i] for i in prompts], keeps, args))


def _padded(some: Sequence[int], prepared: Sequence[PreparedItem], prompts: dict[int, list[int]]) -> int:
    return len(some) * max((len(prompts[i]) + len(prepared[i].reply_ids) for i in some), default=0)


def _kept(passes: Passes, items: Sequence[PreparedItem], keeps: bool, args: KnowledgeSeedingConfig) -> int:
    """Bytes of the targets of items, and of what enters their first expert layer."""
    n = sum(len(item.reply_ids) - item.first_token for item in items)
    lower = sum(len(item.sequence) for item in items) * passes.width * passes.item if keeps else 0
    return n * passes.target_bytes(args) + lower
