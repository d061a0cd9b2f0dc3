"""Several methods and seeds on one stream of images, and one table: what recipes/vision_compare.py does.

The recipe is that of a single run, with `methods` and `seeds`.  With `joint` among the methods, the others get their
intransigence: the accuracy of joint training on an experience, in the night that joint training met it, minus theirs
(Chaudhry et al. 2018), seed by seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.errors import SleepkitError
from sleepkit.reporting import metrics
from sleepkit.reporting.tables import comparison_table
from sleepkit.runs.arguments.command_line import read
from sleepkit.runs.arguments.images import VisionArguments
from sleepkit.runs.images import run_vision
from sleepkit.runs.seeds import with_seed
from sleepkit.trainers.images import DREAMING, METHODS
from sleepkit.trainers.publish import check_publishing
from sleepkit.utils.files import write_text
from sleepkit.utils.options import require

if TYPE_CHECKING:
    from sleepkit.vision.incremental.config import IncrementalTrainingConfig

__all__ = ["ComparisonArguments", "config_of", "run_comparison", "with_intransigence"]


COMPARED = [method for method in METHODS if method not in DREAMING]  # which recipes/dream2learn.py compares


@dataclass
class ComparisonArguments:
    """Options of a comparison of methods."""

    methods: list[str] = field(default_factory=lambda: list(COMPARED), metadata={"help": f"Any of {', '.join(COMPARED)}."})

    def __post_init__(self) -> None:
        require(self, ("methods",), lambda methods: len(set(methods)) == len(methods) > 0, "each method once")
        for method in self.methods:
            if method not in COMPARED:
                raise SleepkitError(f"methods has {method!r}; use any of {', '.join(COMPARED)}")


def run_comparison(argv: Sequence[str]) -> str:
    """Run all methods and seeds of the command line; prints, writes and returns the table.

    Raises:
        SleepkitError: whatever one of the runs would raise.
    """
    from sleepkit.vision.mygo.config import GenerativeReplayConfig

    if any(word.split("=", 1)[0] == "--method" for word in argv):  # a recipe may have one, for the other script
        raise SleepkitError("--method does nothing here; give --methods with those to compare")
    comparison, args, config = read(
        argv,
        (ComparisonArguments, VisionArguments, GenerativeReplayConfig),  # which has the fields of every method
        prog="recipes/vision_compare.py",
        description="Run several methods for several seeds on one stream of images, and compare them.",
    )
    folder = Path(config.output_dir)
    check_publishing(args, config, "a comparison has many models: publish the run of one of them by `sleepkit publish`")
    records = []
    for method in comparison.methods:
        for seed in args.seeds or [config.seed]:
            one = with_seed(config_of(method, config), seed, folder / method / f"seed_{seed}")
            records += run_vision(dataclasses.replace(args, method=method, seeds=None), one)
    table = comparison_table(with_intransigence([record.to_dict() for record in records]))
    if config.process_index == 0:
        write_text(folder / "comparison.md", table + "\n")
        print(f"\n{table}\n\nwritten to {folder}")
    return table


def config_of(method: str, config: IncrementalTrainingConfig) -> IncrementalTrainingConfig:
    """Return the configuration that the method's own recipe would have read, so that its runs can be continued there."""
    from sleepkit.vision.incremental.config import IncrementalTrainingConfig

    if method == "mygo" or method in DREAMING:
        return config
    names = [item.name for item in dataclasses.fields(IncrementalTrainingConfig) if item.init]
    return IncrementalTrainingConfig(**{name: getattr(config, name) for name in names})


def with_intransigence(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records, with the metric `intransigence` where there is one of `joint` with the same seed."""
    joint = {
        record["seed"]: [row[j] for j, row in enumerate(record["accuracy_matrix"])]
        for record in records
        if record["method"] == "joint"
    }
    found = []
    for record in records:
        more = {}
        if record["method"] != "joint" and record["seed"] in joint:
            more["intransigence"] = metrics.intransigence(record["accuracy_matrix"], joint[record["seed"]])
        found.append({**record, "metrics": {**record["metrics"], **more}})
    return found
