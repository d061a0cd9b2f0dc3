"""Parameters that DeepSpeed's ZeRO stage 3 has split over the ranks: made whole for a while, or for good."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def whole(parameters: Iterable[nn.Parameter], write: bool = False) -> Iterator[None]:
    """Run the block with whole parameters, which ZeRO-3 had split over the ranks; with ``write``, rank 0's changes stay."""
    split = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not split:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(split, modifier_rank=0 if write else None):
        yield


def unsplit(model: nn.Module) -> None:
    """Undo ZeRO-3's split for good: every rank holds plain, whole parameters again.  Nothing to do for other models."""
    plain: dict[int, nn.Parameter] = {}
    for split in [parameter for parameter in model.parameters() if hasattr(parameter, "ds_id")]:
        with whole([split]):  # one after the other, so that no more than one is there twice
            plain[id(split)] = nn.Parameter(split.detach().clone(), requires_grad=split.requires_grad)
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if id(parameter) in plain:
                module._parameters[name] = plain[id(parameter)]
