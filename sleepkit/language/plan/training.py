"""What a training of a night costs: the teacher's targets before the first step, and the steps.

Batches are those of `BatchPlan`, rows those of packing.py and preparation.py; one pass of each kind is run on the meta device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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

__all__ = ["Targets", "Training", "planned_training"]

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
        items: that are learned from, and of them those that are new.
        steps: of the optimizer.
        batches: steps, or as many more as are accumulated.
        tokens: that pass through the model, counted as the night counts them.
        flops: of forward and backward passes.
        peak_bytes: of the largest batch of one rank.
        targets: before the first step.
        calls: of the student's rollouts, and of the teacher about them, by phase.
    """

    items: int
    steps: int
    batches: int
    tokens: int
    flops: float
    peak_bytes: int
    targets: Targets
    calls: dict[str, list[Call]] = field(default_factory=dict)


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
    rows = _Rows(passes, prepared, prefix, packs, keeps)
    sizes = [rows.tokens(batch) for batch in batches]
    largest = max(range(len(batches)), key=sizes.__getitem__)
    middle = sorted(range(len(batches)), key=sizes.__getitem__)[len(batches) // 2]
    of_middle = passes.step(rows.batch(batches[middle]), night.night, args)
    peak = of_middle.peak_bytes if largest == middle else passes.step(rows.batch(batches[largest]), night.night, args).peak_bytes
    flops = of_middle.flops * sum(sizes) / sizes[middle]
    calls = _rollouts([prepared[i] for i in new], [prompts[i] for i in new if i in prompts], steps, args)
    return Training(len(new), steps, len(batches) // ranks, sum(sizes), flops, peak, targets, calls)


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


class _Rows:
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
        items = [replace(prepared[i], prompt_ids=prompts[i], lower=None) for i in largest]
        rows = pad_rows(items, 0, META)
        peak = passes.targets_peak(rows, args)
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
    per_token = min(args.top_k, passes.vocabulary) * (4 + 8) if args.top_k else passes.width * passes.item
    lower = sum(len(item.sequence) for item in items) * passes.width * passes.item if keeps else 0
    return n * per_token + lower
