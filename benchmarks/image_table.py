"""Collects finished runs on images, of any recipe that makes them, into one results file.

    python benchmarks/image_table.py split_mnist runs/vision_split_mnist runs/mygo_split_mnist

Every results.json below the folders is a run; a method's runs are the seeds of its row.  Of recipes/dream2learn.py's folders the
comparison alone is taken, which has the differences of all seeds.  Written to
benchmarks/results/NAME.json, which `make tables` turns into the README's table; paths on this machine are left out of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from make_tables import PAIRED, ROOT, render

from sleepkit.results import FILE_NAME, read_results, write_json
from sleepkit.vision_compare import with_intransigence

PATHS = ("dataset", "test_dataset", "output_dir", "backbone", "generator", "others_dataset", "lcm_lora")


def row(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the table and its readers need of one run."""
    config = results["config"]
    method = "mygo as published" if config.get("mode") == "as_published" else results["method"]
    found = {name: results[name] for name in ("seed", "metrics", "seconds", "accuracy_matrix", "versions", "hardware")}
    return {"method": method, **found, "config": {name: value for name, value in config.items() if name not in PATHS}}


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
    document = {"image_runs": with_intransigence([row(read_results(folder)) for folder in found])}
    write_json(options.results / f"{options.name}.json", document)
    print(render(document))


if __name__ == "__main__":
    main()
