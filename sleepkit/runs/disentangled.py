"""One call for a whole run of disentangled learning: build stream and learner, live through the nights, measure, draw, publish.

run_disentangled(args, config)    what recipes/disentangled.py does after it has parsed its arguments

<output_dir>/results.json   metrics, matrices and settings     model/      canonicaliser and exemplars
             report.md      with its pictures                  pictures/   accuracy over nights; images as they are straightened
             state/         to resume from                     baselines.md   the table of pose sources
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sleepkit.reporting.report import write_report
from sleepkit.reporting.results import RunRecord
from sleepkit.reporting.tables import format_table, markdown_table
from sleepkit.runs.arguments.disentangled import DisentangledArguments, build_sprites
from sleepkit.runs.images import image_cycle
from sleepkit.runs.publish import check_publishing, publish_if_asked
from sleepkit.runs.seeds import run_seeds
from sleepkit.utils.files import save_figure, write_text
from sleepkit.utils.ranks import main_only
from sleepkit.utils.seeds import derive_seed

if TYPE_CHECKING:
    from sleepkit.vision.disentangled.config import DisentangledConfig

__all__ = ["run_disentangled"]


def run_disentangled(args: DisentangledArguments, config: DisentangledConfig) -> list[RunRecord]:
    """Run one seed, or each of ``args.seeds``, and print the results; everything is written below ``output_dir``.

    With ``args.export`` nothing is run: the images are written there, for `recipes/vision_baseline.py`.

    Returns the records in the order of the seeds.  Raises `SleepkitError` for whatever the user can repair, before training;
    and if the upload at the end fails, after everything is written.
    """
    check_publishing(args, config, "the export is no model" if args.export is not None else "")
    if args.export is not None:
        from sleepkit.vision.idsprites.export import export_parquet

        splits, folder = build_sprites(args, config.seed).splits(), args.export
        main_only(lambda: export_parquet(splits, folder))
        print(f"written to {folder}")
        return []
    records = run_seeds(args, config, lambda one: _run_seed(args, one))
    publish_if_asked(args, config)
    return records


def _run_seed(args: DisentangledArguments, config: DisentangledConfig) -> RunRecord:
    from accelerate.utils import set_seed

    from sleepkit.reporting.cards import canonicalizer_card, model_name, published_name
    from sleepkit.vision.disentangled.learner import DisentangledLearner, build_canonicalizer
    from sleepkit.vision.disentangled.protocol import SHOWN, measure, table_rows

    stream = build_sprites(args, config.seed)
    set_seed(derive_seed(config.seed, "start"))
    model = build_canonicalizer(config, stream[0].exemplars)
    learner = DisentangledLearner(model, config)
    record = image_cycle(args, config, learner, list(stream), "disentangled").run()
    found = measure(learner, stream, args.novel_classes, args.novel_images)
    record.metrics |= found | {"bytes_per_class": learner.memory.bytes / len(learner.memory.labels.unique())}
    headers, rows = ["pose", "comparison", *SHOWN.values()], table_rows(found, config.match)
    folder = Path(str(config.output_dir))

    def finish() -> None:
        from sleepkit.vision.disentangled.pictures import accuracy_curve, straightened_grid

        pictures = folder / "pictures"
        save_figure(accuracy_curve(record.accuracy_matrix), pictures / "accuracy_over_nights.png")
        save_figure(straightened_grid(learner, stream), pictures / "straightened.png")
        write_text(folder / "baselines.md", markdown_table(headers, rows) + "\n")
        record.save(folder)
        write_report(folder)
        model.save_pretrained(folder / "model")
        learner.memory.save(folder / "model" / "exemplars")
        dataset = published_name(args.dataset) if args.dataset else "Infinite dSprites"
        name = model_name(args.push_to_hub_repo, "canonicalizer")
        canonicalizer_card(record.to_dict(), model_name=name, dataset=dataset).save(folder / "model" / "README.md")
        print(f"\n{format_table(headers, rows)}")

    main_only(finish)
    return record
