"""What `sleepkit sleep`, recipes/sleep.py and recipes/text_baseline.py do after they have parsed their arguments.

    run_sleep(args, config)       a `SleepTrainer` for each seed
    run_baseline(args, config)    a `BaselineTrainer` (baseline.py) for each seed, on the same data

With `seeds`, each seed has its folder `seed_<n>`, and `comparison.md` beside them has mean and spread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sleepkit.reporting.results import RunRecord
from sleepkit.runs.arguments.language import BaselineArguments, SleepArguments
from sleepkit.runs.seeds import run_seeds
from sleepkit.trainers.publish import check_publishing, publish_if_asked

if TYPE_CHECKING:
    from sleepkit.trainers.config import SleepConfig
    from sleepkit.trainers.language import SleepTrainer

__all__ = ["run_baseline", "run_sleep"]


def run_sleep(args: SleepArguments, config: SleepConfig) -> list[RunRecord]:
    """Run one seed, or each of ``args.seeds``, and print the results; everything is written below ``output_dir``.

    Returns the records in the order of the seeds.  Raises `SleepkitError` for whatever the user can repair, most of it
    before the model is loaded; and if the upload at the end fails, after everything is written.
    """
    from sleepkit.trainers.language import SleepTrainer

    check_publishing(args, config)
    records = run_seeds(args, config, lambda seeded: _run_seed(SleepTrainer, args, seeded))
    publish_if_asked(args, config, trust_remote_code=config.trust_remote_code)
    return records


def run_baseline(args: BaselineArguments, config: SleepConfig) -> list[RunRecord]:
    """Run the baseline ``args.method`` as `run_sleep` runs knowledge seeding; it leaves no model.

    Returns the records in the order of the seeds.  Raises `SleepkitError` for whatever the user can repair, most of it
    before the model is loaded.
    """
    from sleepkit.runs.baseline import BaselineTrainer

    make = partial(BaselineTrainer, baseline=args.method)
    return run_seeds(args, config, lambda seeded: _run_seed(make, args, seeded))


def _run_seed(make: Callable[..., SleepTrainer], args: SleepArguments, config: SleepConfig) -> RunRecord:
    trainer = make(
        args.model,
        config,
        args.dataset,
        args.test_dataset,
        general_prompts=args.general_prompts,
        anchors=args.anchors,
    )
    return trainer.train()
