"""Which items make up each step of a night."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence


class BatchPlan:
    """Which items make up each step, for all ranks, from the seed alone.

    Every batch holds ``per_device`` items for each rank, ``general_share`` of them general or replayed; memory items
    are drawn without repeats until all were seen.  This rank's slice is yielded, so a run on two processes sees the very
    batches of a run on one process with twice the batch.
    """

    def __init__(
        self,
        memory: Sequence[int],
        others: Sequence[int],
        per_device: int,
        share: float,
        steps: int,
        seed: int,
        rank: int,
        world: int,
    ) -> None:
        self.n_others = min(round(per_device * world * share), per_device * world - 1) if others else 0
        self.n_memory = per_device * world - self.n_others
        self.batch_size, self.drop_last = per_device, False
        self.memory, self.others, self.steps, self.seed, self.rank, self.world = (
            memory,
            others,
            steps,
            seed,
            rank,
            world,
        )

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        rng = random.Random(self.seed)
        memory, others = _endless(self.memory, rng), _endless(self.others, random.Random(self.seed + 1))
        for _ in range(self.steps):
            batch = [next(memory) for _ in range(self.n_memory)] + [next(others) for _ in range(self.n_others)]
            yield batch[self.rank :: self.world]


def _endless(indices: Sequence[int], rng: random.Random) -> Iterator[int]:
    while True:
        shuffled = list(indices)
        rng.shuffle(shuffled)
        yield from shuffled
