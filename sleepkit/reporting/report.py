"""A run for a person to read: `report.md` with its pictures, and `report.html`.

`write_report` turns the `results.json` of a folder (fields: results.py) into Markdown and into one page (reporting/page.py):
headline numbers first, then pictures, nights, examples, configuration and machine. What was not measured is left out,
and what a model wrote is escaped, never shortened.

What it leaves out: what is said (reporting/content.py), the pictures (plots.py) and the card of a published model
(cards.py), which must not quote documents or answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.reporting.content import answer_cells, example_groups, night_numbers, nights_table, summary
from sleepkit.reporting.page import write_page
from sleepkit.reporting.results import read_results
from sleepkit.reporting.tables import code_block, escape, headline, machine, markdown_table
from sleepkit.utils.files import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_report"]

ANSWERS_NAME = "answers.json"


def write_report(output_dir: str | Path) -> Path:
    """Write `report.md` with its pictures and `report.html` into a run's folder, from the `results.json` that is there.

    Returns:
        The path of `report.md`. Beside it: `report.html`, one page that needs no other file; and before_after.png,
        accuracy_matrix.png, retention.png and training.png, each only if the run has its data, and a picture of each
        further matrix; pictures of an earlier report that no longer apply are removed.

    Raises:
        SleepkitError: if the folder holds no complete `results.json`.
    """
    folder = Path(output_dir)
    results = read_results(folder)
    answers = read_json(folder / ANSWERS_NAME) if (folder / ANSWERS_NAME).exists() else []
    figures = run_figures(results)
    for name, _, figure in figures:
        if figure is None:
            (folder / f"{name}.png").unlink(missing_ok=True)
        else:
            figure.savefig(folder / f"{name}.png")
    pictures = [f"![{text}]({name}.png)" for name, text, figure in figures if figure is not None]
    pictures += [f"![{text}]({path.relative_to(folder)})" for path, text in drawn_pictures(folder)]
    groups = example_groups(results, answers)
    sections = {
        "Results": markdown_table(["measure", "value"], headline(results)),
        "Pictures": "\n\n".join(pictures),
        "Nights": _nights(results.get("nights") or []),
        "Examples": "\n\n".join("\n\n".join([f"### {group.title}", *map(_example, group.rows)]) for group in groups),
        "Configuration": code_block(results["config"]),
        "Software and machine": markdown_table(["", ""], machine(results)),
    }
    parts = [f"# {escape(results['method'])}, seed {results['seed']}", " ".join(summary(results))]
    parts += [f"## {title}\n\n{body}" for title, body in sections.items() if body]
    path = folder / "report.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    write_page(folder / "report.html", results, answers, figures, drawn_pictures(folder))
    return path


def run_figures(results: Mapping[str, Any]) -> list[tuple[str, str, Figure | None]]:
    """(name, what it shows, figure) of each picture of a run; no figure where the run has no data for it."""
    from sleepkit.reporting import plots

    figures = [
        ("before_after", "Scores before and after sleep", plots.before_after_figure(results)),
        ("accuracy_matrix", "Score on each experience after each night", plots.accuracy_matrix_figure(results)),
        ("retention", "Score of each experience from its own night on", plots.retention_figure(results)),
        ("training", "Losses and rewards during training", plots.training_figure(results)),
    ]
    for name, matrix in (results.get("matrices") or {}).items():
        figure = plots.accuracy_matrix_figure({"accuracy_matrix": matrix}, name.replace("_", " "))
        figures.append((f"{name}_matrix", f"The same for {name}", figure))
    return figures


def drawn_pictures(folder: Path) -> list[tuple[Path, str]]:
    """Pictures that the run itself has drawn, with what they show."""
    found = [(path, f"Dreams of {path.stem.replace('_', ' ')}") for path in sorted(folder.glob("dreams/*.png"))]
    found += [(path, path.stem.replace("_", " ").capitalize()) for path in sorted(folder.glob("pictures/*.png"))]
    return [(path, "Rewards of dreams") for path in folder.glob("rewards.png")] + found


def _nights(nights: Sequence[Mapping[str, Any]]) -> str:
    """What became of each night, and then all other numbers of it."""
    if not nights:
        return ""
    numbers = night_numbers(nights)
    return "\n\n".join([markdown_table(*nights_table(nights)), *([markdown_table(*numbers)] if numbers[1] else [])])


def _example(example: Mapping[str, Any]) -> str:
    lines = [f"- {label}{f' ({mark})' if mark else ''}: {escape(text)}" for label, text, mark in answer_cells(example)]
    return "\n".join([f"**{escape(str(example['question']))}**", "", *lines])
