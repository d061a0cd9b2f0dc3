"""What the processes of a run do together: only one of them writes files, and all go by what that one finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from sleepkit.errors import SleepkitError, first_line
from sleepkit.utils.launch.agreement import agree
from sleepkit.utils.sealed import locked

__all__ = ["all_find", "main_finds", "main_holds", "main_only", "own_draws"]

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
