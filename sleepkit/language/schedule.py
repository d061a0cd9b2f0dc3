"""When each level of the chain passes on what it holds, in nights.

Memory blocks form a chain from fast to slow ("Language Models Need Sleep", arXiv 2606.03979; Nested Learning, arXiv
2512.24695).  Level ``l`` (0 = fastest, the context or a fast adapter) is consolidated into level ``l + 1`` when the count of
nights passes a multiple of its chunk size ``C(l)``, just before it is overwritten; the slowest block has no clock::

    due(l)  <=>  floor(night / C(l)) > floor((night - 1) / C(l)),      C(l) divisible by C(l-1)

    two levels    (1,)              context -> weights
    four levels   (1, 4, 16)        context -> fast -> medium -> slow

Divisibility means that when a level is due, all faster ones are: the levels due are always ``[0, ..., l]``.

Ours: the unit of the clock, nights, which the paper leaves open.  Left out: what a sleep does.
"""

from __future__ import annotations

from collections.abc import Sequence

from sleepkit.errors import SleepkitError

__all__ = ["SleepSchedule"]


class SleepSchedule:
    """Schedule of a chain of levels: which are due on which night.

    Args:
        chunk_sizes (sequence of `int`): nights ``C(l)`` of each level, fastest first, each divisible by the one before it.

    Raises:
        SleepkitError: no level, or chunk sizes that do not divide each other.

    Example:

        >>> SleepSchedule((1, 4)).due(4)
        [0, 1]
    """

    def __init__(self, chunk_sizes: Sequence[int]) -> None:
        sizes = tuple(chunk_sizes)
        if not sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
            raise SleepkitError(f"chunk_sizes is {list(sizes)}; give one whole number >= 1 per level, fastest first")
        for level, (fast, slow) in enumerate(zip(sizes, sizes[1:], strict=False), start=1):
            if slow % fast:
                raise SleepkitError(
                    f"chunk size {slow} of level {level} is not divisible by {fast} of the faster level {level - 1}; "
                    f"use a multiple such as {(slow // fast + 1) * fast}"
                )
        self.chunk_sizes: tuple[int, ...] = sizes

    def due(self, night: int) -> list[int]:
        """Levels that are due on a night, counted from 1, fast to slow."""
        return [level for level, size in enumerate(self.chunk_sizes) if night % size == 0]
