"""Parameters that DeepSpeed's ZeRO stage 3 has split over the ranks: made whole for a while, or for good; and passes in step.

Split parameters are gathered for each pass through the model, so all ranks have to run equally many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from accelerate import PartialState
from torch import nn

from sleepkit.utils.ranks import split

T = TypeVar("T")
Passes = list[list[int]]


def is_zero3() -> bool:
    """True if DeepSpeed's ZeRO-3 splits the weights over the ranks."""
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    return bool(is_deepspeed_zero3_enabled())


def passes_in_step(dealt: Sequence[Sequence[int]], cut: Callable[[Sequence[int]], Passes]) -> Passes:
    """Return the passes of this process; under ZeRO-3 as many as each other has, some of them for nothing.

    Args:
        dealt: pieces of work of each process, such as prompts.
        cut: puts the pieces of one process together to passes through the model.
    """
    rank = PartialState().process_index
    if not is_zero3():
        return cut(dealt[rank]) if dealt[rank] else []
    of_rank = [cut(share) if share else [] for share in dealt]
    mine = of_rank[rank]
    again = next(passes[0][:1] for passes in (mine, *of_rank) if passes)
    return mine + [again] * (max(map(len, of_rank)) - len(mine))


def split_passes(
    dealt: Sequence[Sequence[int]], cut: Callable[[Sequence[int]], Passes], work: Callable[[Passes], Mapping[int, T]]
) -> list[T]:
    """Run each process's passes there, and return the results of all pieces, in order, on all processes.

    Args:
        dealt: pieces of work of each process; of all together each once.
        cut: puts the pieces of one process together to passes through the model.
        work: runs passes, and returns the results of their pieces.
    """

    def of_share(mine: Sequence[int]) -> list[T]:
        done = work(passes_in_step(dealt, cut))
        return [done[place] for place in mine]

    return split(dealt, of_share)


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
    for part in [parameter for parameter in model.parameters() if hasattr(parameter, "ds_id")]:
        with whole([part]):  # one after the other, so that no more than one is there twice
            plain[id(part)] = nn.Parameter(part.detach().clone(), requires_grad=part.requires_grad)
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if id(parameter) in plain:
                module._parameters[name] = plain[id(parameter)]
