"""Which items make up each step of a night."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence

from sleepkit.utils.seeds import derive_seed

OFTEN = 20  # times that a short night takes an item


class BatchPlan:
    """Plan of which items make up each step, for all ranks, from the seed alone.

    Every batch holds ``per_device`` items for each rank, ``share`` of them taken in turn from the groups of ``others``
    (general, replayed), however large each is; items are drawn without repeats until all of their group were seen.  This
    rank's slice is yielded, so a run on two processes sees the very batches of a run on one process with twice the batch.

    Args:
        new: indices of the items that are learned.
        others: indices of each other group.
        per_device: items of a batch on each rank.
        share: of a batch for the other groups, 0 to 1.
        steps: batches in all.
        seed: of the order.
        rank, world: this process, and how many there are.
    """

    def __init__(
        self,
        new: Sequence[int],
        others: Sequence[Sequence[int]],
        per_device: int,
        share: float,
        steps: int,
        seed: int,
        rank: int,
        world: int,
    ) -> None:
        self.new, self.others = new, [group for group in others if group]
        self.n_others = min(round(per_device * world * share), per_device * world - 1) if self.others else 0
        self.n_new = per_device * world - self.n_others
        self.batch_size, self.drop_last = per_device, False
        self.steps, self.seed, self.rank, self.world = steps, seed, rank, world

    def steps_of(self, epochs: float, accumulated: int, least: int = 1) -> int:
        """Optimizer steps, of ``accumulated`` batches each, after which each new item was seen ``epochs`` times.

        They are ``least`` at least, unless each item was seen `OFTEN` times before.
        """

        def steps(times: float) -> int:
            return math.ceil(times * len(self.new) / (self.n_new * accumulated))

        return max(steps(epochs), min(least, steps(OFTEN)))

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        new = _endless(self.new, self.seed)
        groups = itertools.cycle([_endless(group, derive_seed(self.seed, "group", k)) for k, group in enumerate(self.others, 1)])
        for _ in range(self.steps):
            batch = [next(new) for _ in range(self.n_new)] + [next(next(groups)) for _ in range(self.n_others)]
            yield batch[self.rank :: self.world]


def _endless(indices: Sequence[int], seed: int) -> Iterator[int]:
    rng = random.Random(seed)
    while True:
        shuffled = list(indices)
        rng.shuffle(shuffled)
        yield from shuffled
