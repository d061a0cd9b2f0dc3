"""Fit one expert to the summed output of several, layer by layer: to make room in a full pool, or to start a slower level.

For each layer, with ``x`` (rows, d) the inputs that its FFN block saw::

    target(x) = sum_{e merged} e(x)
    minimise   mean ||new(x) - target(x)||^2 / mean ||target(x)||^2        over the new expert's parameters

The new expert is as wide as each of the old ones.  It starts from the hidden units that contribute most to the target
(energy of the unit times the squared norm of what it writes), and from the mean of the gates where there are any; then AdamW
with a cosine schedule does the rest.  Ours: the paper ("Language Models Need Sleep", arXiv 2606.03979) leaves this open.

This is an approximation, so the relative error of each layer on rows that were held out (every tenth) is returned: 0 is
exact, 1 is as bad as forgetting the merged experts.  Whether that is good enough is the retention gate's decision.

Left out: matching the model's logits.  The layers are fitted independently, each to the inputs that it saw before.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.units import Expert, block_inputs
from sleepkit.language.models.zero3 import passes_in_step, whole
from sleepkit.utils.ranks import gathered_rows, shares, split

__all__ = ["capture_ffn_inputs", "fit_slot", "merge_oldest", "merge_slots"]

MIN_ROWS = 20


@torch.no_grad()
def capture_ffn_inputs(
    bank: ExpertBank, batches: Sequence[Mapping[str, Tensor]], max_rows: int = 8192, seed: int = 0
) -> list[Tensor]:
    """Inputs of the grown FFN blocks while the model reads ``batches``: one ``(rows, d)`` tensor per grown layer.

    Each process reads its share, and all get all rows; call it on all.

    Args:
        batches: what the model's forward takes; positions whose ``attention_mask`` is 0 are left out.
        max_rows: of more positions than this, so many are drawn, the same ones in every layer.
    """
    masks = [batch.get("attention_mask", torch.ones_like(batch["input_ids"])).flatten().bool().cpu() for batch in batches]
    positions = torch.cat(masks).nonzero()[:, 0]
    chosen = positions[torch.randperm(len(positions), generator=torch.Generator().manual_seed(seed))[:max_rows]]
    kept = torch.zeros(sum(map(len, masks)), dtype=torch.bool).index_fill(0, chosen, True).split([*map(len, masks)])

    dealt = shares([len(mask) for mask in masks])
    mine = dealt[PartialState().process_index]
    passes = [k for (k,) in passes_in_step(dealt, lambda share: [[k] for k in share])] or [
        0
    ]  # one at least tells what rows are like
    read = block_inputs(bank.model, list(bank.per_layer()), [batches[k] for k in passes])
    rows = [[x[kept[k].to(x.device)] for x in inputs] for inputs, k in zip(read, passes, strict=True)]
    rows = rows[: len(mine)] or [[x[:0] for x in rows[0]]]
    of_rank = [sum(int(kept[k].sum()) for k in share) for share in dealt]
    return [gathered_rows(torch.cat(layer), of_rank) for layer in zip(*rows, strict=True)]


def merge_slots(bank: ExpertBank, into: int, from_: Sequence[int], inputs: Sequence[Tensor], **options: Any) -> dict[int, float]:
    """Let one expert take over from several, and free the others.

    Args:
        bank: of the experts.
        into: the one that takes over, is frozen then, and keeps its place among the nights.
        from_: two or more in use, ``into`` among them.
        inputs: what the grown layers see, of `capture_ffn_inputs`.
        options: more, as `fit_slot` takes it.

    Returns:
        The error of the fit by layer, as `fit_slot` has it.

    Raises:
        SleepkitError: a slot is not in use, ``into`` is not among ``from_``, or there are too few inputs.
    """
    missing = [slot for slot in from_ if slot not in bank.active]
    if missing or into not in from_ or len(set(from_)) < 2:
        raise SleepkitError(
            f"cannot merge experts {list(from_)} into {into}: give at least two of those in use, {bank.active}, "
            "and one of them as the target"
        )
    errors = fit_slot(bank, into, from_, inputs, **options)
    for parameter in bank.parameters(into):
        parameter.requires_grad_(False)
    for slot in from_:
        if slot != into:
            bank.deactivate(slot)
    return errors


def fit_slot(
    bank: ExpertBank,
    into: int,
    from_: Sequence[int],
    inputs: Sequence[Tensor],
    steps: int = 400,
    learning_rate: float = 3e-3,
    batch_rows: int = 512,
    seed: int = 0,
) -> dict[int, float]:
    """Fit slot ``into`` to the sum of the slots ``from_``, each layer on one process; nothing else changes.  Call it on all.

    Args:
        into: a slot in use, which may be one of ``from_``.
        inputs: FFN inputs of each grown layer, ``(rows, d)``, from :func:`capture_ffn_inputs`.

    Returns:
        Relative squared error on the held-out rows, by decoder layer.

    Raises:
        SleepkitError: there are too few inputs.
    """
    rows = {len(x) for x in inputs}
    if len(inputs) != len(bank.layers) or len(rows) != 1 or min(rows) < MIN_ROWS:
        raise SleepkitError(
            f"merging needs at least {MIN_ROWS} rows of FFN inputs for each of {len(bank.layers)} layers, "
            f"got {[len(x) for x in inputs]}; give more self-written examples"
        )
    layers = list(zip(bank.per_layer(), inputs, strict=True))

    def fitted(chosen: Sequence[int]) -> list[tuple[dict[str, Tensor], float]]:
        made = [
            _fit([layers[k][0][slot] for slot in from_], layers[k][1], steps, learning_rate, batch_rows, seed) for k in chosen
        ]
        return [({name: values.cpu() for name, values in new.state_dict().items()}, error) for new, error in made]

    with whole(
        [parameter for slot in {into, *from_} for experts, _ in layers for parameter in experts[slot].parameters()], write=True
    ):
        made = split(shares([1.0] * len(layers)), fitted)
        for (experts, _), (state, _) in zip(layers, made, strict=True):
            experts[into].load_state_dict(state)
    return {index: error for index, (_, error) in zip(bank.layers, made, strict=True)}


def merge_oldest(bank: ExpertBank, batches: Sequence[Mapping[str, Tensor]], seed: int = 0) -> dict[int, float]:
    """Merge the two oldest experts into the oldest.

    Args:
        bank: of the experts.
        batches: examples that the model reads for it, as tokenizers return them.
        seed: of the fit.

    Returns:
        The error of the fit by layer, as `fit_slot` has it.

    Raises:
        SleepkitError: fewer than two experts are in use, or the examples are too short.
    """
    if len(bank.active) < 2:
        raise SleepkitError(f"merging needs two experts in use, there are {len(bank.active)}; activate more first")
    return merge_slots(bank, bank.active[0], bank.active[:2], capture_ffn_inputs(bank, batches, seed=seed), seed=seed)


def _fit(old: list[Expert], x: Tensor, steps: int, learning_rate: float, batch_rows: int, seed: int) -> tuple[Expert, float]:
    """Fit one new expert to the sum of the old ones on rows ``x`` (rows, d); returns also its error on every tenth row."""
    x = x.to(next(old[0].parameters()).device, torch.float32)
    with torch.no_grad():
        target = sum((expert(x)[0] for expert in old), torch.zeros_like(x))
    held_out = torch.arange(len(x), device=x.device) % 10 == 0
    train_x, train_y = x[~held_out], target[~held_out]
    scale = train_y.square().mean().clamp_min(torch.finfo(torch.float32).tiny)

    generator = torch.Generator().manual_seed(seed)
    new = _strongest_units(old, train_x)
    optimizer = torch.optim.AdamW(new.parameters(), lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for _ in range(steps):
        pick = torch.randint(len(train_x), (min(batch_rows, len(train_x)),), generator=generator).to(x.device)
        with torch.enable_grad():
            loss = (new(train_x[pick])[0] - train_y[pick]).square().mean() / scale
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        error = (new(x[held_out])[0] - target[held_out]).square().sum()
        norm = target[held_out].square().sum()
    return new, float(error / norm) if norm > 0 else 0.0


@torch.no_grad()
def _strongest_units(old: list[Expert], x: Tensor) -> Expert:
    """Return a new expert of the hidden units of ``old`` with the largest output energy on ``x``."""
    new = copy.deepcopy(old[0]).requires_grad_(True)
    hidden = torch.cat([expert.seen_by_units(x) for expert in old], dim=1)  # (rows, experts * width)
    strengths = torch.cat([expert.strengths() for expert in old])
    new.take(old, (hidden.square().mean(0) * strengths).topk(hidden.shape[1] // len(old)).indices)  # type: ignore[arg-type]
    return new
