"""An experiment: runs of several methods and seeds in one JSON file, as a table and as a page of its own.

    {name, config, arguments, runs: [{variant, seed, accuracy_matrix, <metric>: value, ...}], versions, hardware}

`benchmarks/run_table.py` writes such a file.  `experiment_page` puts beside it ``NAME.md`` and ``NAME_retention.png``: what
was asked for, every metric with its interval, cost, and the accuracy matrices of all seeds.

Intervals are two-sided 95 % ones of the mean, ``t(n - 1) s / sqrt(n)``: with two seeds they are as wide as they should be.
Variants are compared seed by seed: on the same passages in the same order, a variant's difference varies less than its score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sleepkit.errors import SleepkitError
from sleepkit.reporting.metrics import mean_interval
from sleepkit.reporting.tables import format_memory, format_value, grouped, markdown_table, mean_duration, meaningful, spread
from sleepkit.utils.files import read_json

QUALITY = {
    "recovery": "recovery",
    "closed_book_after": "closed book",
    "faa": "at the end",
    "closed_book_final": "of all questions",
    "anchor_kl": "anchor KL",
    "bwt": "BWT",
    "retention_first": "passage 1 kept",
    "out_of_scope_auroc": "out of scope, AUROC",
}  # metric -> heading; a table has those that some run has
COST = {
    "seconds": "seconds a night",
    "train_tokens": "train tokens a night",
    "max_steps": "steps a night",
}  # metric -> heading
Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def runs_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return one row for each variant: mean ± standard deviation over its seeds."""
    columns = _measured(runs) | COST
    rows = [
        [name, len(seeds), *(spread([run.get(column) for run in seeds], 0 if column in COST else 3, ",") for column in columns)]
        for name, seeds in grouped(runs, "variant").items()
    ]
    return markdown_table(["variant", "seeds", *columns.values()], rows)


def differences_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """What each variant has more than the first one, on the seeds of both: mean ± half of its 95 % interval.

    Empty where no variant shares a seed with the first one.
    """
    (first, reference), *others = grouped(runs, "variant").items()
    base = {run["seed"]: run for run in reference}
    columns = _measured(runs)
    rows = []
    for name, found in others:
        pairs = [(run, base[run["seed"]]) for run in found if run["seed"] in base]
        cells = []
        for column in columns:
            both = [(run.get(column), beside.get(column)) for run, beside in pairs]
            cells.append(_with_interval([one - other for one, other in both if one is not None and other is not None], "+.3f"))
        if pairs:
            rows.append([name, ", ".join(str(run["seed"]) for run, _ in pairs), *cells])
    return markdown_table([f"beside {first}", "seeds", *columns.values()], rows) if rows else ""


def _with_interval(values: Sequence[float], form: str) -> str:
    mean, half = mean_interval(values)
    shown = format_value(None) if mean is None else format(mean, form)
    return shown if half is None else f"{shown} ± {half:.3f}"


def _measured(runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {name: heading for name, heading in QUALITY.items() if any(run.get(name) is not None for run in runs)}


def matrices(runs: Sequence[Mapping[str, Any]]) -> str:
    """The accuracy matrix of each run: row i after night i, column j on experience j."""
    blocks = []
    for run in runs:
        cells = [["  – " if value is None else f"{value:4.2f}" for value in line] for line in run["accuracy_matrix"]]
        lines = [f"after night {i} of seed {run['seed']}   {'  '.join(line)}" for i, line in enumerate(cells, 1)]
        blocks.append("\n".join(lines))
    return "```\n" + "\n\n".join(blocks) + "\n```"


def experiment_page(path: Path) -> Path:
    """Write the page of an experiment beside its file; returns the page.

    Raises:
        SleepkitError: a file that cannot be read, or that holds no runs.
    """
    from sleepkit.reporting.plots import first_experience_figure

    document = read_json(path)
    if not isinstance(document, dict) or not document.get("runs"):
        raise SleepkitError(f"{path} holds no runs; give a file that benchmarks/run_table.py wrote")
    rows = [meaningful(run) for run in document["runs"]]
    variants = grouped(rows, "variant")
    picture = path.with_name(f"{path.stem}_retention.png")
    figure = first_experience_figure({name: [run["accuracy_matrix"] for run in runs] for name, runs in variants.items()})
    if figure is not None:
        figure.savefig(picture)
    command = f"`--config {document['config']} {' '.join(document['arguments'])}`"
    parts = [f"# {document['name']}", f"Runs of {command} on {document['hardware']['cpu']}."]
    parts += ["## Results", _intervals(variants), "Mean, and half of its 95 % interval over the seeds."]
    differences = differences_table(rows)
    parts += ["Differences of the runs with the same seed, likewise:", differences] if differences else []
    parts += ["## Cost", _costs(variants)]
    parts += ["## The first experience", f"![Score on the first experience after each night]({picture.name})"] if figure else []
    parts += ["## Accuracy matrices", *(f"{name}\n\n{matrices(runs)}" for name, runs in variants.items())]
    page = path.with_suffix(".md")
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return page


def _intervals(variants: Runs) -> str:
    columns = _measured([run for runs in variants.values() for run in runs])
    rows = []
    for name, runs in variants.items():
        cells = [_with_interval([run[column] for run in runs if run.get(column) is not None], ".3f") for column in columns]
        rows.append([name, ", ".join(str(run["seed"]) for run in runs), *cells])
    return markdown_table(["variant", "seeds", *columns.values()], rows)


def _costs(variants: Runs) -> str:
    rows = []
    for name, runs in variants.items():
        cells = [spread([run.get(column) for run in runs], 0, ",") for column in COST]
        peak = [run["peak_memory_bytes"] for run in runs if run.get("peak_memory_bytes")]
        cells += [mean_duration(runs)]
        cells += [format_memory(max(peak)) if peak else format_value(None)]
        rows.append([name, *cells])
    return markdown_table(["variant", *COST.values(), "a run", "peak memory"], rows)
