"""One call for a whole run on images: what recipes/vision_baseline.py and recipes/mygo.py do with their parsed arguments.

    run_vision(args, config)    a trainer for each seed (sleepkit/trainers/images.py), its nights, publish

    <output_dir>/results.json   metrics, matrices and settings     model/    classifier and model card: what is published
                 report.md      with its pictures                  state/    to resume from

With `seeds`, each seed has its folder `seed_<n>`, and `comparison.md` beside them has mean and spread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sleepkit.reporting.results import RunRecord
from sleepkit.runs.arguments.images import VisionArguments
from sleepkit.runs.seeds import run_seeds
from sleepkit.trainers.images import Dream2LearnTrainer, GenerativeReplayTrainer, ImageTrainer
from sleepkit.trainers.publish import check_publishing, publish_if_asked

if TYPE_CHECKING:
    from sleepkit.vision.incremental.config import IncrementalTrainingConfig

__all__ = ["image_trainer", "run_vision"]


def run_vision(args: VisionArguments, config: IncrementalTrainingConfig) -> list[RunRecord]:
    """Run one seed, or each of ``args.seeds``, and print the results; everything is written below ``output_dir``.

    Returns the records in the order of the seeds.  Raises `SleepkitError` for whatever the user can repair, before training;
    and if the upload at the end fails, after everything is written.
    """
    check_publishing(args, config)
    records = run_seeds(args, config, lambda one: image_trainer(args, one).train())
    publish_if_asked(args, config)
    return records


def image_trainer(args: VisionArguments, config: IncrementalTrainingConfig) -> ImageTrainer:
    """Build the trainer of ``args.method``.

    Raises:
        SleepkitError: data, model and method that cannot be read or do not go together.
    """
    kinds = (GenerativeReplayTrainer, Dream2LearnTrainer, ImageTrainer)
    kind = next(one for one in kinds if args.method in one.methods)
    return kind(args.backbone, config, args.dataset, args.test_dataset, method=args.method)
