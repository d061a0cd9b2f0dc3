"""Writes the README's tables again from the saved results, so that no number in it is typed by hand.

    <!-- table:NAME -->   whatever stands between these two lines is replaced
    <!-- /table -->       by the table of benchmarks/results/NAME.json

`NAME-matrix` is the accuracy matrix of each seed of knowledge seeding in NAME.json, `summary` all files that hold
knowledge seeding's own results.  A file holds one of: runs that `run_table.py` collected (`runs`), the speed of one step
(`systems`), or one run's own `results.json` (`metrics`).  Left out: prose; what the numbers mean is the README's to say.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sleepkit.errors import SleepkitError
from sleepkit.report import format_duration, format_memory, format_value, headline, markdown_table
from sleepkit.results import read_json

ROOT = Path(__file__).parent.parent
MARKER = re.compile(r"(?P<head><!-- table:(?P<name>[\w-]+) -->\n)(?P<body>.*?)(?P<tail><!-- /table -->)", re.DOTALL)
COLUMNS = {
    "recovery": "recovery",
    "closed_book_after": "closed book",
    "anchor_kl": "anchor KL",
    "bwt": "BWT",
    "retention_first": "passage 1 kept",
    "seconds": "seconds a night",
    "train_tokens": "train tokens a night",
    "max_steps": "steps a night",
}  # metric -> heading


def render(document: Mapping[str, Any]) -> str:
    """The Markdown table of a results file.

    Raises:
        SleepkitError: a file of none of the three kinds.
    """
    if "runs" in document:
        return _runs(document["runs"])
    if "systems" in document:
        return _systems(document)
    if "metrics" in document:
        rows = [*headline(document), ("time", format_duration(document["seconds"]))]
        return markdown_table(["measure", "value"], rows)
    raise SleepkitError(f"a results file with {', '.join(document) or 'nothing'} has no table; give runs, systems or metrics")


def _runs(runs: Sequence[Mapping[str, Any]]) -> str:
    """One row for each variant in the order of the runs: mean ± standard deviation over its seeds."""
    variants: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        variants.setdefault(run["variant"], []).append(run)
    rows = [[name, len(seeds), *(_spread([s.get(c) for s in seeds], c) for c in COLUMNS)] for name, seeds in variants.items()]
    return markdown_table(["variant", "seeds", *COLUMNS.values()], rows)


def _spread(values: Sequence[float | None], column: str) -> str:
    present = [value for value in values if value is not None]
    if not present:
        return format_value(None)
    digits = 0 if column in ("seconds", "train_tokens", "max_steps") else 3
    mean = f"{statistics.fmean(present):,.{digits}f}"
    return mean if len(present) == 1 else f"{mean} ± {statistics.stdev(present):,.{digits}f}"


def _systems(document: Mapping[str, Any]) -> str:
    """Speed and memory of each system, and the cost of night n."""
    kinds = ("step", "as_used", "on_policy")
    heads = ["system", *(f"tokens/s, {kind.replace('_', ' ')}" for kind in kinds), "peak", "above idle"]
    heads += ["we are faster (step)", "(as used)", "(on-policy)", "our share of its peak", "why"]
    rows = []
    for name, row in document["systems"].items():
        speeds = [f"{row[f'tokens_per_second_{kind}']:,.0f}" for kind in kinds]
        peak = [format_memory(row["peak_bytes"]), format_memory(row["peak_bytes"] - row["idle_bytes"])]
        ratios = [f"{row[f'speedup_{kind}']:.2f}x" if f"speedup_{kind}" in row else "–" for kind in kinds]
        share = f"{row['memory_share']:.2f}x" if "memory_share" in row else "–"
        rows.append([name, *speeds, *peak, *ratios, share, row["reason"]])
    nights = [[int(n), f"{row['seconds_step']:.3f}", format_memory(row["peak_bytes"])] for n, row in document["nights"].items()]
    costs = markdown_table(["experts in use", "seconds a step", "peak"], nights)
    return f"{markdown_table(heads, rows)}\n\n{costs}"


def matrices(document: Mapping[str, Any]) -> str:
    """The accuracy matrix of each seed of knowledge seeding: row i after night i, column j on passage j."""
    blocks = []
    for run in document["runs"]:
        if run["variant"] == "knowledge_seeding":
            cells = [["  – " if value is None else f"{value:4.2f}" for value in line] for line in run["accuracy_matrix"]]
            lines = [f"after night {i} of seed {run['seed']}   {'  '.join(line)}" for i, line in enumerate(cells, 1)]
            blocks.append("\n".join(lines))
    return "```\n" + "\n\n".join(blocks) + "\n```"


SUMMARY = {
    "closed_book_before": "closed book before",
    "closed_book_after": "after",
    "in_context": "in context",
    "recovery": "recovery",
    "anchor_kl": "anchor KL",
    "bwt": "BWT",
    "retention_first": "passage 1 kept",
}


def summary(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """One row for each experiment that knowledge seeding was in, from results files by name."""
    rows = []
    for name, document in sorted(documents.items()):
        runs = [run for run in document.get("runs", ()) if run["variant"] == "knowledge_seeding"]
        if document.get("method") == "knowledge_seeding":
            runs = [{**document["metrics"], "seconds_total": document["seconds"]}]
        if runs:
            seconds = [run["seconds_total"] for run in runs if run.get("seconds_total") is not None]
            took = format_duration(statistics.fmean(seconds)) if seconds else format_value(None)
            rows.append([name, len(runs), *(_spread([run.get(c) for run in runs], c) for c in SUMMARY), took])
    return markdown_table(["results", "seeds", *SUMMARY.values(), "time"], rows)


def fill(text: str, results: Path) -> tuple[str, list[str]]:
    """Replace each table whose file is there; returns the new text and the names whose file is not."""
    missing = []

    def table(match: re.Match[str]) -> str:
        if match["name"] == "summary":
            documents = {path.stem: read_json(path) for path in results.glob("*.json")}
            return f"{match['head']}{summary(documents)}\n{match['tail']}"
        name = match["name"].removesuffix("-matrix")
        path = results / f"{name}.json"
        if not path.is_file():
            missing.append(name)
            return match[0]
        if name != match["name"]:
            return f"{match['head']}{matrices(read_json(path))}\n{match['tail']}"
        return f"{match['head']}{render(read_json(path))}\n{match['tail']}"

    return MARKER.sub(table, text), missing


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args(argv)
    text, missing = fill(options.readme.read_text(encoding="utf-8"), options.results)
    options.readme.write_text(text, encoding="utf-8")
    for name in missing:
        print(f"{options.results / name}.json is not there; its table is as it was")


if __name__ == "__main__":
    main()
