"""What the processes of a run do together: only one of them writes files, and all go by what that one finds.

Work that no process needs to repeat is dealt out, and its results are gathered::

    shares([5, 1, 1, 1], 2)                [[0], [1, 2, 3]]            consecutive pieces, of about equal cost
    split(shares(costs), work)             work([..]) of each share on one process, all results on all of them, in order
    of_rows(function, images, 256)         a function of rows of a tensor, as rows on all processes
    gathered_rows(own, counts)             the same for tensors whose sizes all know: nothing is pickled, devices stay

What is drawn in a piece of work is seeded by the piece, not by the process, so that results are the same up to rounding however
many processes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from sleepkit.errors import SleepkitError, first_line
from sleepkit.utils.launch.agreement import agree
from sleepkit.utils.sealed import locked

__all__ = [
    "all_find",
    "alone",
    "gathered_rows",
    "main_finds",
    "main_holds",
    "main_only",
    "of_rows",
    "own_draws",
    "several_of_rows",
    "shares",
    "split",
]

T = TypeVar("T")


def main_finds(action: Callable[[], T]) -> T:
    """Return on all processes what ``action`` returns on the main one; an error there is one everywhere.

    Call it on all processes.  Each looking for itself may find different things: one that comes late sees what another has
    written meanwhile.
    """
    ranks = PartialState()
    if ranks.num_processes == 1:
        return action()
    outcome: list[object] = [None, None]
    error: BaseException | None = None
    if ranks.is_main_process:
        try:
            outcome[0] = action()
        except Exception as raised:
            error, outcome[1] = raised, first_line(raised)
    outcome = broadcast_object_list(outcome)
    if error is not None:
        raise error
    if outcome[1] is not None:
        raise SleepkitError(str(outcome[1]))
    return cast(T, outcome[0])


def main_only(action: Callable[[], object]) -> None:
    """Run ``action`` on the main process while the others wait, and raise its error everywhere; call it on all."""

    def quietly() -> None:
        action()  # what it returns may be too much to send

    main_finds(quietly)
    PartialState().wait_for_everyone()


def all_find(path: Path) -> bool:
    """Whether the main process finds a file or folder; call it on all."""
    return main_finds(path.exists)


@contextmanager
def alone() -> Iterator[None]:
    """Be the only process inside the block, for what one computes by itself with code that would share it with the others."""
    from accelerate.utils import DistributedType

    state = PartialState()._shared_state
    before = dict(state)
    state.update(num_processes=1, process_index=0, local_process_index=0, distributed_type=DistributedType.NO)
    try:
        yield
    finally:
        state.clear()
        state.update(before)


@contextmanager
def main_holds(folder: Path) -> Iterator[None]:
    """Hold a folder for this run inside the block (`sealed.locked`); call it on all processes, which must agree on it."""
    agree(folder, {})
    with ExitStack() as stack:
        main_only(lambda: stack.enter_context(locked(folder)))
        yield


def own_draws(draw: Callable[[int], Any], count: int) -> Any:
    """Random numbers for this process's items of a step: those that one process would draw for the items of all of them.

    Args:
        draw: makes numbers for so many items, a tensor or array ``(items, ...)``; its generator is equal on all processes.
        count: items of this process; where others have more or fewer, the numbers are as random, and not those of one process.
    """
    ranks = PartialState()
    first = ranks.process_index * count
    return draw(ranks.num_processes * count)[first : first + count]


def shares(costs: Sequence[float], count: int | None = None) -> list[list[int]]:
    """Deal out consecutive pieces of work, so that the dearest share costs as little as it can; the same on all processes.

    Args:
        costs: of each piece, in any unit.
        count: shares; None for as many as there are processes.

    Returns:
        Places of the pieces of each share; the last shares may be empty.
    """
    count = PartialState().num_processes if count is None else count
    low, high = max([0.0, *costs, sum(costs) / count]), float(sum(costs))
    while high - low > 1e-3 * low:
        middle = (low + high) / 2
        low, high = (low, middle) if len(_filled(costs, middle)) <= count else (middle, high)
    found = _filled(costs, high)
    return found + [[] for _ in range(count - len(found))]


def _filled(costs: Sequence[float], most: float) -> list[list[int]]:
    """Places of consecutive pieces in as few shares as cost at most ``most`` each."""
    found: list[list[int]] = []
    spent = 0.0
    for place, cost in enumerate(costs):
        if not found or spent + cost > most * (1 + 1e-9):
            found.append([])
            spent = 0.0
        found[-1].append(place)
        spent += cost
    return found


def split(dealt: Sequence[Sequence[int]], work: Callable[[Sequence[int]], Iterable[T]]) -> list[T]:
    """Do each share on one process, and return the results of all pieces, in order, on all processes; call it on all.

    Args:
        dealt: places of the pieces of each process; of all together each once.
        work: takes the places of a share, and returns a result for each of them.  It may meet other processes if all do so
            equally often.

    Raises:
        SleepkitError: on another process than this one, something went wrong.
    """
    state = PartialState()
    mine = dealt[state.process_index]
    if state.num_processes == 1:
        results = dict(zip(mine, work(mine), strict=True))
        return [results[place] for place in sorted(results)]
    own: dict[int, T] = {}
    error: Exception | None = None
    try:
        own = dict(zip(mine, work(mine), strict=True))
    except Exception as raised:
        error = raised
    parts = gather_object([(own, None if error is None else first_line(error))])
    if error is not None:
        raise error
    reason = next((told for _, told in parts if told is not None), None)
    if reason is not None:
        raise SleepkitError(reason)
    results = {place: result for part, _ in parts for place, result in part.items()}
    return [results[place] for place in sorted(results)]


def gathered_rows(own: Tensor, counts: Sequence[int]) -> Tensor:
    """Rows of all processes, one after another, on all of them, where ``own`` is; call it on all.

    Args:
        own: rows of this process, ``(counts[rank], ...)``; of the same kind on all processes.
        counts: rows of each process.
    """
    state = PartialState()
    if state.num_processes == 1:
        return own
    rows = own.new_empty(sum(counts), *own.shape[1:], device=state.device)  # where the processes can talk
    for rank, part in enumerate(rows.split(list(counts))):
        if rank == state.process_index:
            part.copy_(own)
        if part.numel():
            torch.distributed.broadcast(part.view(torch.uint8), src=rank)
    return rows.to(own.device)


def of_rows(function: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> Tensor:
    """A function of rows, ``size`` at a time and each process its share, as rows on all processes; call it on all.

    Args:
        function: takes some of the rows, and returns a row for each.
        rows: such as images, or places of what is to be made.
        size: rows at once.
    """
    return several_of_rows(lambda part: (function(part),), rows, size)[0]


def several_of_rows(function: Callable[[Tensor], tuple[Tensor, ...]], rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """As `of_rows`, of a function that returns several rows for each."""
    state = PartialState()
    ends = [len(rows) * rank // state.num_processes for rank in range(state.num_processes + 1)]
    first, last = ends[state.process_index : state.process_index + 2]
    mine = rows[first:last] if last > first else rows[:1]  # which tells what rows are like
    counts = [end - start for start, end in zip(ends, ends[1:], strict=False)]
    found = [torch.cat(parts)[: last - first] for parts in zip(*map(function, mine.split(size)), strict=True)]
    return tuple(gathered_rows(own, counts) for own in found)
