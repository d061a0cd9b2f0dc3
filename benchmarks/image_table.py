"""Collects finished runs on images, or of recipes/dream.py and arc.py, into one results file.

    python benchmarks/image_table.py split_mnist runs/vision_split_mnist runs/mygo_split_mnist

Every results.json below the folders is a run; a method's runs are the seeds of its row.  Of recipes/dream2learn.py's folders the
comparison alone is taken, which has the differences of all seeds.  Written to
benchmarks/results/NAME.json, which `make tables` turns into the README's table (paths on this machine are left out of it), and
NAME.md, the same with NAME.png, the accuracy of each method over the nights.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from make_tables import PAIRED, ROOT, render

from sleepkit.reporting.metrics import accuracy_of_nights
from sleepkit.reporting.plots import experiences_met_figure
from sleepkit.reporting.results import FILE_NAME, read_results
from sleepkit.reporting.tables import grouped
from sleepkit.runs.compare import with_intransigence
from sleepkit.utils.files import write_json

PATHS = ("dataset", "test_dataset", "output_dir", "backbone", "generator", "others_dataset", "lcm_lora")
MOST_NIGHTS = 50  # of which the whole matrix is kept
VARIANTS: dict[str, dict[str, Any]] = {
    " as published": {"generator": "cgan", "freeze_features": True},
    " as in the paper": {"output": "affine6", "backbone": "resnet18", "refinements": 0, "pose_replay": 0, "match": "nearest"},
    " without further looks": {"output": "similarity4", "refinements": 0},
    " of VAEs of images": {"generator": "vae", "replay_space": "pixels"},
}
"""Settings that make a method another one in the tables."""


def row(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the table and its readers need of one run."""
    config = results["config"]
    method = results["method"]
    method += next((name for name, options in VARIANTS.items() if options.items() <= config.items()), "")
    found = {name: results[name] for name in ("seed", "metrics", "seconds", "accuracy_matrix", "versions", "hardware")}
    return {"method": method, **found, "config": {name: value for name, value in config.items() if name not in PATHS}}


def shortened(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a run of many nights, the matrix' last row and the mean of every other one are enough."""
    matrix = run["accuracy_matrix"]
    if len(matrix) <= MOST_NIGHTS:
        return run
    means = accuracy_of_nights(matrix).round(4).tolist()
    return {**run, "accuracy_matrix": matrix[-1:], "accuracy_of_nights": means}


def runs_below(folder: Path) -> list[Path]:
    """Folders of the runs; see the module."""
    if (folder / FILE_NAME).is_file() and read_results(folder)["method"].startswith(PAIRED):
        return [folder]
    return sorted(path.parent for path in folder.rglob(FILE_NAME))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="of the table")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args(argv)
    found = [path for folder in options.folders for path in runs_below(folder)]
    rows = with_intransigence([row(read_results(folder)) for folder in found])
    curves = {name: [run["accuracy_matrix"] for run in runs] for name, runs in grouped(rows, "method").items()}
    if figure := experiences_met_figure(curves):
        figure.savefig(options.results / f"{options.name}.png")
    document = {"image_runs": [shortened(one) for one in rows]}
    write_json(options.results / f"{options.name}.json", document)
    table = render(document)
    picture = f"![Accuracy on the experiences met so far, after each night]({options.name}.png)" if figure else ""
    about = f"# {options.name}\n\nMean ± standard deviation over seeds. On {rows[0]['hardware'].get('cpu', 'this machine')}."
    (options.results / f"{options.name}.md").write_text(f"{about}\n\n{table}\n\n{picture}".rstrip() + "\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
