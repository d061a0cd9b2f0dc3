"""One way to make the seeds of a run's many draws, so that no two of them overlap.

    derive_seed(seed, "night", 3)    ->  a number from 0 to 2**32 - 1
    evenly(rows, 3)                  ->  a choice that needs no draw

Sums such as ``seed + night`` draw night 2 of seed 0 as night 1 of seed 1, and ``1000 * seed`` leaves NumPy's range with a
date as the seed.  A digest of the seed and of what is drawn does neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["derive_seed", "evenly"]

Row = TypeVar("Row")


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose of a run, the same on every machine.

    Args:
        seed: the run's seed, any whole number.
        purpose: what is drawn, such as ``"night", 3``; other purposes give unrelated seeds.

    Returns:
        A number from 0 to 2**32 - 1, which Python, NumPy and torch all take.
    """
    return int.from_bytes(hashlib.sha256(repr((seed, *purpose)).encode()).digest()[:4], "big")


def evenly(rows: Sequence[Row], count: int) -> list[Row]:
    """Return at most ``count`` rows, spread evenly over all of them, in their order."""
    count = min(count, len(rows))
    return [rows[k * len(rows) // count] for k in range(count)]
