"""Which prompts are decoded together: by length, and only of one length where padding would change what a model says.

Padding on the left is hidden by the mask of attention.  A layer with a state of its own (Mamba, linear attention, convolutions)
must leave padding out by itself; whether it does is measured once a model, as it differs from family to family.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from sleepkit.language.models.decoder import reach, without_adapter
from sleepkit.utils.precision import close

_MEASURED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
STEPS = 3  # tokens that are decoded to see: some families go wrong after the first


def batches_of(lengths: Sequence[int], size: int, rank: int, world: int, of_one_length: bool) -> list[list[int]]:
    """Indices of the prompts of one process, at most ``size`` at a time; as many batches on all processes, as ZeRO-3 needs.

    Args:
        lengths: of all prompts, in tokens.
        size: prompts at once.
        of_one_length: put no prompts of different lengths together.
    """
    of_rank = [_batches(lengths, range(r, len(lengths), world), size, of_one_length) for r in range(world)]
    mine = of_rank[rank]
    filler = mine[0][:1] if mine else [0]  # decoded again, for nothing
    return mine + [filler] * (max(map(len, of_rank)) - len(mine))


def _batches(lengths: Sequence[int], chosen: Sequence[int], size: int, of_one_length: bool) -> list[list[int]]:
    order = sorted(chosen, key=lengths.__getitem__)
    groups = [list(alike) for _, alike in itertools.groupby(order, key=lengths.__getitem__)] if of_one_length else [order]
    return [group[start : start + size] for group in groups for start in range(0, len(group), size)]


def pads_exactly(model: nn.Module) -> bool:
    """Whether prompts of different lengths may be decoded together; measured once where layers carry states."""
    if reach(model):
        return True
    key = without_adapter(model)
    if key not in _MEASURED:
        _MEASURED[key] = _same_with_padding(model)
    return _MEASURED[key]


@torch.no_grad()
def _same_with_padding(model: Any) -> bool:
    """Decode a short prompt alone and beside a longer one, and compare its logits."""
    long, short = [k % model.config.get_text_config().vocab_size for k in range(11, 23)], [7, 5, 6, 9, 8]
    padding = [1] * (len(long) - len(short))
    ids = torch.tensor([long, padding + short], device=model.device)
    mask = torch.tensor([[1] * len(long), [0] * len(padding) + [1] * len(short)], device=model.device)
    was_training = model.training
    model.eval()
    found = [
        model.generate(
            input_ids=rows,
            attention_mask=seen,
            max_new_tokens=STEPS,
            do_sample=False,
            pad_token_id=1,
            output_logits=True,
            return_dict_in_generate=True,
        )
        for rows, seen in ((ids, mask), (ids[1:, len(padding) :], mask[1:, len(padding) :]))
    ]
    model.train(was_training)
    beside, alone = (torch.stack(one.logits[:STEPS])[:, -1] for one in found)  # (steps, vocab)
    steps = min(len(beside), len(alone))  # one of the two may have come to its end
    return close(beside[:steps], alone[:steps])
