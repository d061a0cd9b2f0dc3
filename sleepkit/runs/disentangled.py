"""What recipes/disentangled.py and recipes/sprites_data.py do after they have parsed their arguments.

run_disentangled(args, config)      a trainer for each seed (trainers/disentangled.py), its nights, its table, publish
write_sprites_data(args, config)    the images of its stream, as a data set for recipes/vision_baseline.py
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sleepkit.reporting.results import RunRecord
from sleepkit.reporting.tables import format_table
from sleepkit.runs.arguments.disentangled import DisentangledArguments
from sleepkit.runs.seeds import run_seeds
from sleepkit.trainers.publish import check_publishing, publish_if_asked
from sleepkit.utils.ranks import main_only

if TYPE_CHECKING:
    from sleepkit.vision.disentangled.config import DisentangledConfig

__all__ = ["run_disentangled", "write_sprites_data"]


def run_disentangled(args: DisentangledArguments, config: DisentangledConfig) -> list[RunRecord]:
    """Run one seed, or each of ``args.seeds``, and print the results; everything is written below ``output_dir``.

    Returns the records in the order of the seeds.  Raises `SleepkitError` for whatever the user can repair, before training;
    and if the upload at the end fails, after everything is written.
    """
    check_publishing(args, config)
    records = run_seeds(args, config, lambda one: _run_seed(args, one))
    publish_if_asked(args, config)
    return records


def _run_seed(args: DisentangledArguments, config: DisentangledConfig) -> RunRecord:
    from sleepkit.trainers.disentangled import DisentangledTrainer
    from sleepkit.vision.disentangled.protocol import table_of

    record = DisentangledTrainer(args.backbone, config, args.dataset).train()
    main_only(lambda: print(f"\n{format_table(*table_of(record.metrics, config.match))}"))
    return record


def write_sprites_data(args: DisentangledArguments, config: DisentangledConfig) -> Path:
    """Write the images of the stream that `run_disentangled` would learn, as parquet files with a card; returns their folder.

    Raises `SleepkitError` if ``output_dir`` holds something already.
    """
    from sleepkit.vision.disentangled.sprites import build_sprites
    from sleepkit.vision.idsprites.export import export_parquet

    splits, folder = build_sprites(config, args.dataset).splits(), Path(str(config.output_dir))
    main_only(lambda: export_parquet(splits, folder))
    main_only(lambda: print(f"written to {folder}"))
    return folder
