"""What the processes of a run do together: only one of them writes files, and all go by what that one finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar, cast

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from sleepkit.errors import SleepkitError, first_line
from sleepkit.utils.sealed import locked

__all__ = ["all_find", "alone", "main_finds", "main_holds", "main_only"]

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
    """Hold a folder for this run inside the block (`sealed.locked`); call it on all processes."""
    with ExitStack() as stack:
        main_only(lambda: stack.enter_context(locked(folder)))
        yield
