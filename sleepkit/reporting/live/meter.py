"""Notes how long the phases of a run take, and how many tokens pass through the model in each.

    with metering(decoder) as seen:           once, around a run
        ...
    seen.seconds, seen.tokens                 by phase; tokens are read, written (one at a time) or trained on

    @timed("targets")                         above a function that is a phase
    def prepare(self, items): ...

Phases lie in one another: the time of an inner one is not that of the outer one.  Padding counts, as it is computed.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Seen", "metering", "phase", "timed"]

P = ParamSpec("P")
R = TypeVar("R")
OTHER = "other"


class Seen:
    """What was seen of a run in this process.

    Attributes:
        seconds: by phase.
        tokens: by phase, of each kind: read, written, trained.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.tokens: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.open = [OTHER]
        self.since = time.perf_counter()

    def turn(self) -> None:
        """Give the time since the last turn to the phase that is open."""
        now = time.perf_counter()
        self.seconds[self.open[-1]] += now - self.since
        self.since = now

    def passed(self, tokens: int, new: int, is_trained: bool) -> None:
        """Note tokens of one pass, ``new`` in each row."""
        kind = "trained" if is_trained else "written" if new == 1 else "read"
        self.tokens[self.open[-1]][kind] += tokens

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by phase."""
        return {
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "tokens": {name: dict(kinds) for name, kinds in self.tokens.items()},
        }


_seen: Seen | None = None


@contextmanager
def metering(decoder: nn.Module) -> Iterator[Seen]:
    """Meter a run inside the block.

    Args:
        decoder: whose passes are counted, by the tokens that enter it.
    """
    global _seen
    outer, _seen = _seen, Seen()
    seen = _seen
    handle = decoder.register_forward_pre_hook(_counted, with_kwargs=True)
    try:
        yield seen
    finally:
        seen.turn()
        handle.remove()
        _seen = outer


def _counted(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    import torch

    given = args[0] if args else kwargs.get("input_ids")
    entered = kwargs.get("inputs_embeds") if given is None else given
    if _seen is not None and entered is not None:
        rows, new = entered.shape[:2]
        _seen.passed(rows * new, new, torch.is_grad_enabled())


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Run the block as a phase of the run that is metered, if one is."""
    seen = _seen
    if seen is None:
        yield
        return
    seen.turn()
    seen.open.append(name)
    try:
        yield
    finally:
        seen.turn()
        seen.open.pop()


def timed(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a phase."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with phase(name):
                return function(*args, **kwargs)

        return run

    return decorate
