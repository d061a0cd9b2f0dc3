"""The same run for several seeds, and one table of all.

With ``seeds`` each seed has its folder ``<output_dir>/seed_<n>``, and ``comparison.md`` beside them has mean and spread;
``report.html`` is the same as a page, with the way to each seed's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sleepkit.reporting.live.watch import watched
from sleepkit.reporting.page import write_seeds_page
from sleepkit.reporting.results import RunRecord
from sleepkit.reporting.tables import METRICS, comparison_table, format_duration, format_table, format_value
from sleepkit.utils.files import write_text
from sleepkit.utils.ram import free_memory
from sleepkit.utils.training_fields import settings

if TYPE_CHECKING:
    from transformers import TrainingArguments

__all__ = ["run_seeds", "with_seed"]

Config = TypeVar("Config", bound="TrainingArguments")


def run_seeds(args: Any, config: Config, run: Callable[[Config], RunRecord]) -> list[RunRecord]:
    """Run once as configured, or for each of ``args.seeds``, and print the results; returns the records in their order.

    Each run is shown and tracked as its configuration asks for.
    """
    seeds: Sequence[int] | None = args.seeds
    folder = Path(str(config.output_dir))  # given: checked when parsed
    configs = [config] if seeds is None else [with_seed(config, seed, folder / f"seed_{seed}") for seed in seeds]
    records = []
    for one in configs:
        free_memory()  # the model of the seed before hangs in circles of its trainer
        with watched(one, settings(args, one)):
            records.append(run(one))
    if config.process_index == 0:
        print(f"\n{_table(records)}\n")
        if seeds is not None:
            table = comparison_table([record.to_dict() for record in records])
            write_text(folder / "comparison.md", table + "\n")
            write_seeds_page(folder / "report.html", {f"seed_{record.seed}": record.to_dict() for record in records})
        print(f"written to {folder}")
    return records


def with_seed(config: Config, seed: int, folder: Path) -> Config:
    """Return a copy of the configuration for another seed, with a folder of its own."""
    config = copy.copy(config)
    config.seed, config.output_dir = seed, str(folder)
    return config


def _table(records: Sequence[RunRecord]) -> str:
    """The main results for the terminal, one column for each seed; all others are in the report."""
    measured = [name for name in METRICS if any(name in record.metrics for record in records)]
    rows: list[list[Any]] = [
        [METRICS[name], *(format_value(record.metrics.get(name)) for record in records)] for name in measured
    ]
    took = ["time", *(format_duration(record.seconds) for record in records)]
    return format_table(["measure", *(f"seed {record.seed}" for record in records)], [*rows, took])
