"""The seeds of a command: one run, or the same with several seeds one after the other (runs/seeds.py)."""

from __future__ import annotations

from dataclasses import dataclass

from sleepkit.utils.options import check_numbers, option, require, require_seed

__all__ = ["SeedArguments"]


@dataclass
class SeedArguments:
    """Option that lets a command run several seeds."""

    seeds: list[int] | None = option(None, "Run several seeds one after the other, each into <output_dir>/seed_<n>.")

    def __post_init__(self) -> None:
        check_numbers(self)
        require(self, ("seeds",), lambda seeds: seeds is None or 0 < len(set(seeds)) == len(seeds), "each seed once")
        for seed in self.seeds or ():
            require_seed("seeds", seed)
