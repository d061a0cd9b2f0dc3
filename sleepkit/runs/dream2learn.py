"""Dream2Learn against the rehearsal method that it is built on, seed by seed: what recipes/dream2learn.py does.

    <output_dir>/<base>/seed_<n>       runs without dreams        <output_dir>/d2l_<base>/seed_<n>       the same with dreams
                 results.json          the paired differences     comparison.md                          both, mean and spread
                 stops.png             updates that prompts had

    fwt_probe_gain       mean over seeds of fwt_probe with dreams - without       fwt_probe_gain_low     lower end of its 95 %
    fwt_assigned_gain    accuracy on new classes that have their units and are not learned yet             interval (Student's t)
    fwt_assigned_task_il_gain    the same, each among its night's classes only: units that win over all others gain nothing here
    faa_gain, forgetting_gain, ...
    cost_ratio           CPU seconds of all nights with dreams / without

Each seed has the same stream, initial weights and probe images in both.  A generator that is missing is trained first, where the
stream is the procedural world.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from sleepkit.errors import SleepkitError
from sleepkit.reporting import metrics
from sleepkit.reporting.plots import stops_figure
from sleepkit.reporting.results import RunRecord
from sleepkit.reporting.tables import comparison_table, format_table, format_value
from sleepkit.runs.arguments.images import VisionArguments
from sleepkit.runs.compare import config_of
from sleepkit.runs.generator import GeneratorArguments, train_generator
from sleepkit.runs.images import image_trainer, run_vision
from sleepkit.runs.seeds import with_seed
from sleepkit.trainers.images import DREAMING
from sleepkit.trainers.publish import check_publishing
from sleepkit.utils.files import read_json, save_figure, write_text
from sleepkit.utils.options import require_choice
from sleepkit.utils.ranks import all_find, main_only

if TYPE_CHECKING:
    from sleepkit.vision.dream2learn.config import Dream2LearnConfig

__all__ = ["paired_metrics", "run_dream2learn"]

PAIRED = ("fwt_probe", "fwt_assigned", "fwt_assigned_task_il", "faa", "aia", "bwt", "forgetting", "task_il")


def run_dream2learn(args: VisionArguments, config: Dream2LearnConfig) -> RunRecord:
    """Run base and base + dreams for all seeds; writes, prints and returns the comparison."""
    from sleepkit.vision.dream2learn.tiny_diffusion import TinyDiffusionConfig

    require_choice(args, "method", DREAMING)
    check_publishing(args, config, "a comparison has many models: publish the run of one of them by `sleepkit publish`")
    base = args.method.removeprefix("d2l_")
    folder = Path(str(config.output_dir))
    if args.dataset == "procedural" and config.dreams and not all_find(Path(config.generator)):
        train_generator(GeneratorArguments(), TinyDiffusionConfig(output_dir=config.generator, use_cpu=config.use_cpu))
    seeds = args.seeds or [config.seed]
    # built here already, as it refuses what the run without dreams would not notice
    stream = image_trainer(args, with_seed(config, seeds[0], folder)).stream
    classes = len({label for experience in stream for label in experience.labels})
    if config.max_units is not None and config.max_units < classes:
        raise SleepkitError(
            f"max_units is {config.max_units}, which is fewer than the {classes} classes; raise it, or leave it out"
        )
    pairs = []
    for seed in seeds:
        records = []
        for method in (base, f"d2l_{base}"):
            one = with_seed(config_of(method, config), seed, folder / method / f"seed_{seed}")
            records += run_vision(dataclasses.replace(args, method=method, seeds=None), one)
        pairs.append((records[0], records[1]))
    record = RunRecord(f"dream2learn ({base})", seeds[0], {"seeds": seeds, **pairs[0][1].config})
    record.metrics = paired_metrics(pairs)
    record.seconds = sum(one.seconds for pair in pairs for one in pair)
    record.accuracy_matrix = pairs[0][1].accuracy_matrix
    record.nights = [
        {"seed": seed, **night} for seed, (_, dreaming) in zip(seeds, pairs, strict=True) for night in dreaming.nights
    ]
    first, later, hashes = _dream_files(folder / args.method)
    record.config["generator_hash"] = hashes
    record.save(folder, is_main=config.process_index == 0)

    def tell() -> None:
        table = comparison_table([one.to_dict() for pair in pairs for one in pair])
        figure = stops_figure(first, later, config.dream_updates)
        if figure is not None:
            save_figure(figure, folder / "stops.png")
        write_text(folder / "comparison.md", table + "\n")
        rows = [[name, format_value(value)] for name, value in record.metrics.items()]
        print(f"\n{table}\n\n{format_table(['measure', f'mean of {len(seeds)} seeds'], rows)}\n\nwritten to {folder}")

    main_only(tell)
    return record


def _dream_files(folder: Path) -> tuple[list[int], list[int], list[str]]:
    """Stops of the first and of later nights of all seeds, and the generators' hashes: one, if it has not changed."""
    first: list[int] = []
    later: list[int] = []
    hashes = set()
    for path in sorted(folder.glob("seed_*/dreams/night_*.json")):
        found = read_json(path)
        (first if path.stem == "night_01" else later).extend(found["stops"])
        hashes.add(found["generator"])
    return first, later, sorted(hashes)


def paired_metrics(pairs: list[tuple[RunRecord, RunRecord]]) -> dict[str, float]:
    """Differences and costs, of records without and with dreams; and what only the second have, their means."""
    found: dict[str, float | None] = {}
    for name in PAIRED:
        values = [
            (one.metrics[name], other.metrics[name]) for one, other in pairs if name in one.metrics and name in other.metrics
        ]
        if not values:
            continue
        mean, half = metrics.mean_interval([other - one for one, other in values])
        found[f"{name}_gain"] = mean
        found[f"{name}_gain_low"] = None if mean is None or half is None else mean - half
        found[f"{name}_base"], found[name] = (sum(column) / len(column) for column in zip(*values, strict=True))
    base, dreaming = (sum(pair[k].metrics["cpu_seconds"] for pair in pairs) for k in (0, 1))
    found["cost_ratio"] = dreaming / base
    for name in sorted(
        {name for _, other in pairs for name in other.metrics} - {name for one, _ in pairs for name in one.metrics}
    ):
        found[name] = metrics.mean_interval([other.metrics[name] for _, other in pairs if name in other.metrics])[0]
    return {name: value for name, value in found.items() if value is not None}
