"""What `sleepkit sleep` and recipes/sleep.py do after they have parsed their arguments: a `SleepTrainer` for each seed.

With `seeds`, each seed has its folder `seed_<n>`, and `comparison.md` beside them has mean and spread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sleepkit.reporting.results import RunRecord
from sleepkit.runs.arguments.language import SleepArguments
from sleepkit.runs.seeds import run_seeds
from sleepkit.trainers.publish import check_publishing, publish_if_asked

if TYPE_CHECKING:
    from sleepkit.trainers.config import SleepConfig

__all__ = ["run_sleep"]


def run_sleep(args: SleepArguments, config: SleepConfig) -> list[RunRecord]:
    """Run one seed, or each of ``args.seeds``, and print the results; everything is written below ``output_dir``.

    Returns the records in the order of the seeds.  Raises `SleepkitError` for whatever the user can repair, most of it
    before the model is loaded; and if the upload at the end fails, after everything is written.
    """
    check_publishing(args, config, f"baseline {args.baseline} makes no experts to publish" if args.baseline else "")
    records = run_seeds(args, config, lambda seeded: _run_seed(args, seeded))
    publish_if_asked(args, config)
    return records


def _run_seed(args: SleepArguments, config: SleepConfig) -> RunRecord:
    from sleepkit.runs.baseline import BaselineTrainer
    from sleepkit.trainers.language import SleepTrainer

    make: Callable[..., SleepTrainer] = SleepTrainer
    if args.baseline is not None:
        make = partial(BaselineTrainer, baseline=args.baseline)
    trainer = make(
        args.model,
        config,
        args.dataset,
        args.test_dataset,
        general_prompts=args.general_prompts,
        anchors=args.anchors,
    )
    return trainer.train()
