"""One call for a whole run of disentangled learning: build stream and learner, live through the nights, measure, draw, publish.

run_disentangled(args, config)    what recipes/disentangled.py does after it has parsed its arguments

<output_dir>/results.json   metrics, matrices and settings     model/      canonicaliser and exemplars
             report.md      with its pictures                  pictures/   accuracy over nights; images as they are straightened
             state/         to resume from                     baselines.md   the table of pose sources
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.arguments import cycle_options
from sleepkit.disentangled_arguments import DisentangledArguments, build_sprites
from sleepkit.ranks import main_only
from sleepkit.report import format_table, markdown_table, write_report
from sleepkit.results import RunRecord
from sleepkit.seeds import run_seeds

if TYPE_CHECKING:
    from sleepkit.vision.disentangled_config import DisentangledConfig

__all__ = ["run_disentangled"]

HEADERS = ["pose", "comparison", "accuracy", "off the grid", "one-shot", "AUROC", "pose RMS"]


def run_disentangled(args: DisentangledArguments, config: DisentangledConfig) -> list[RunRecord]:
    """Run one seed, or each of ``args.seeds``, and print the results; everything is written below ``output_dir``.

    With ``args.export`` nothing is run: the images are written there, for `recipes/vision_baseline.py`.

    Returns the records in the order of the seeds.  Raises `SleepkitError` for whatever the user can repair, before training.
    """
    if args.export is not None:
        from sleepkit.vision.idsprites.export import export_parquet

        splits, folder = build_sprites(args, config.seed).splits(), args.export
        main_only(lambda: export_parquet(splits, folder))
        print(f"written to {folder}")
        return []
    return run_seeds(args.seeds, config, lambda one: _run_seed(args, one))


def _run_seed(args: DisentangledArguments, config: DisentangledConfig) -> RunRecord:
    from accelerate.utils import set_seed

    from sleepkit.cycle import SleepCycle
    from sleepkit.vision.disentangled_learner import DisentangledLearner, build_canonicalizer
    from sleepkit.vision.disentangled_protocol import measure, table_rows
    from sleepkit.vision_state import ImageState

    stream = build_sprites(args, config.seed)
    set_seed(config.seed)
    model = build_canonicalizer(config, stream[0].exemplars)
    learner = DisentangledLearner(model, config)
    options = cycle_options(args, config)
    options["config"] |= {"scenario": "class"}
    cycle: Any = SleepCycle(
        learner,
        list(stream),
        method="disentangled",
        needed_bytes=3 * sum(values.numel() * values.element_size() for values in model.state_dict().values()),
        state_class=ImageState,
        **options,
    )
    record: RunRecord = cycle.run()
    found = measure(learner, stream, args.novel_classes, args.novel_images)
    record.metrics |= found | {"bytes_per_class": learner.memory.bytes / len(learner.memory.labels.unique())}
    rows = table_rows(found, learner)
    folder = Path(str(config.output_dir))

    def finish() -> None:
        from sleepkit.vision.disentangled_pictures import accuracy_curve, straightened_grid

        pictures = folder / "pictures"
        pictures.mkdir(exist_ok=True)
        accuracy_curve(record.accuracy_matrix).savefig(pictures / "accuracy_over_nights.png")
        straightened_grid(learner, stream).savefig(pictures / "straightened.png")
        (folder / "baselines.md").write_text(markdown_table(HEADERS, rows) + "\n", encoding="utf-8")
        record.save(folder)
        write_report(folder)
        model.save_pretrained(folder / "model")
        learner.memory.save(folder / "model" / "exemplars")
        print(f"\n{format_table(HEADERS, rows)}")
        if args.push_to_hub_repo is not None:
            from sleepkit.hub import push_folder

            print(f"pushed: {push_folder(folder / 'model', args.push_to_hub_repo, token=config.hub_token)}")

    main_only(finish)
    return record
