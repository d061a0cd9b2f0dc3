"""Which dream's unit a new class takes over: one-to-one, by how many of its images fall on which dream.

    H (classes, dreams)    share of a new class' images whose greatest logit among dreams is that of the dream
    greedy                 the greatest entry, then the greatest of what is left, ...
    hungarian              the greatest sum (Kuhn 1955; scipy)
    none                   no takeover

Source: that new classes are mapped onto dreams by hits is Dream2Learn's (arXiv 2603.01935).  Ours: all that is precise here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sleepkit.errors import SleepkitError

__all__ = ["ASSIGNMENTS", "assign", "hit_shares"]

ASSIGNMENTS = ("greedy", "hungarian", "none")


def hit_shares(logits: Tensor, labels: Tensor, classes: list[int]) -> Tensor:
    """``H``, of logits ``(n, dreams)`` of images with ``labels`` ``(n,)``."""
    hits = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).double()
    return torch.stack([hits[labels == label].mean(0) for label in classes])


def assign(shares: Tensor, way: str) -> dict[int, int]:
    """Row of ``H`` -> its column; rows without a hit that is left get none.  Raises `SleepkitError` without scipy."""
    if way == "none" or not shares.numel():
        return {}
    if way == "hungarian":
        try:
            from scipy.optimize import linear_sum_assignment
        except ImportError:
            raise SleepkitError(
                "assignment is 'hungarian', which needs scipy; install sleepkit[vision] or use 'greedy'"
            ) from None

        rows, columns = linear_sum_assignment(shares.numpy(), maximize=True)
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return {row: column for row, column in pairs if shares[row, column] > 0}
    left, found = shares.clone(), {}
    while left.max() > 0:
        row, column = divmod(int(left.argmax()), left.shape[1])
        found[row] = column
        left[row], left[:, column] = 0, 0
    return found
