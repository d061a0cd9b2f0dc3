"""A run, or the seeds of one, as a single HTML page: people look rather than read.

    write_page(path, results, ...)       everything that report.md has, with matrices and answers side by side
    write_seeds_page(path, runs)         a table of the seeds, and the way to the page of each

The page needs nothing else: no script, no file, no network (its own policy forbids them), pictures and styles are inside.  It
follows the reader's light or dark setting, fits a phone, and can be printed.  All text is escaped by the template.

Left out: what is said (content.py) and drawn (plots.py).
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.reporting import content
from sleepkit.reporting.tables import as_yaml, comparison_columns, format_value, headline, machine, number_columns

if TYPE_CHECKING:
    from jinja2 import Environment, Template
    from markupsafe import Markup
    from matplotlib.figure import Figure

__all__ = ["write_page", "write_seeds_page"]

SECTIONS = {
    "measures": "Results",
    "charts": "Curves",
    "matrices": "Each experience after each night",
    "nights": "Nights",
    "answers": "Answers",
    "pictures": "Pictures",
    "settings": "Settings",
    "machine": "Machine",
}  # of the page of a run, in their order
LARGE = 540  # points beyond which a chart is not shrunk to the width of a phone, but scrolled
Row = Mapping[str, Any]
Figures = Sequence[tuple[str, str, "Figure | None"]]


def write_page(
    path: Path,
    results: Row,
    answers: Sequence[Row] = (),
    figures: Figures = (),
    pictures: Sequence[tuple[Path, str]] = (),
) -> Path:
    """Write the page of a run; returns its path.

    Args:
        results: content of `results.json`.
        answers: content of `answers.json`.
        figures: (name, what it shows, figure); matrices are drawn as tables instead.
        pictures: files of pictures, each with what it shows.
    """
    nights = results.get("nights") or []
    parts = {
        "measures": headline(results),
        "charts": [(text, _svg(name, figure)) for name, text, figure in figures if figure and not name.endswith("_matrix")],
        "matrices": _matrices(results),
        "nights": content.nights_table(nights) if nights else None,
        "answers": content.example_groups(results, answers),
        "pictures": [(text, _data_uri(file)) for file, text in pictures],
        "settings": as_yaml(results["config"]),
        "machine": machine(results),
    }
    text = _template("run.html").render(
        **parts,
        title=f"{_words(results['method'])}, seed {results['seed']}",
        subject=_subject(results["config"]),
        sections=[(name, heading) for name, heading in SECTIONS.items() if parts[name]],
        summary=content.summary(results),
        tiles=content.tiles(results),
        experiences=_experiences(nights),
        numbers=content.night_numbers(nights),
    )
    path.write_text(text, encoding="utf-8")
    return path


def write_seeds_page(path: Path, runs: Mapping[str, Row]) -> Path:
    """Write the page of several seeds; returns its path.

    Args:
        runs: content of each seed's `results.json`, by the name of its folder beside the page.
    """
    headings, rows = comparison_columns(list(runs.values()))
    text = _template("seeds.html").render(
        title=f"{_words(next(iter(runs.values()))['method'])}, {len(runs)} seeds",
        sections=[("table", "All seeds"), *((name, name.replace("_", " ")) for name in runs)],
        headings=headings,
        rows=rows,
        runs=[(name, content.summary(results), headline(results)) for name, results in runs.items()],
    )
    path.write_text(text, encoding="utf-8")
    return path


def _subject(config: Row) -> str:
    """Model and data set, as the settings name them."""
    return " on ".join(str(config[name]) for name in ("model", "dataset") if config.get(name))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _matrices(results: Row) -> list[tuple[str, Sequence[Sequence[float | None]]]]:
    """(name, matrix) of those with more than one value."""
    found = {"score": results.get("accuracy_matrix") or [], **(results.get("matrices") or {})}
    measured = {name: sum(value is not None for row in rows for value in row) for name, rows in found.items()}
    return [(_words(name), rows) for name, rows in found.items() if measured[name] > 1]


def _experiences(nights: Sequence[Row]) -> list[str]:
    """Names of the experiences, for the columns of the matrices; none where nights have no names."""
    names = [str(night["experience"]) for night in nights if night.get("experience")]
    return names if len(names) == len(nights) else []


# -- pictures -----------------------------------------------------------------------------------------------------------
def _svg(name: str, figure: Figure) -> Markup:
    """A figure as an SVG element of the page: text stays text, and names inside are its own."""
    import matplotlib
    from markupsafe import Markup

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    drawn = stream.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", drawn)
    width = re.search(r'width="([\d.]+)pt"', drawn)
    assert width is not None  # matplotlib writes it
    drawn = re.sub(r' (?:width|height)="[\d.]+pt"', "", drawn, count=2)
    size = " large" if float(width[1]) > LARGE else ""
    return Markup(f'<div class="chart{size}" style="--width: {1.25 * float(width[1]):.0f}px">{drawn}</div>')


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


# -- templates ----------------------------------------------------------------------------------------------------------
def _template(name: str) -> Template:
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"value": format_value, "emphasised": _emphasised}
    environment.globals |= {"answer_cells": content.answer_cells, "number_columns": number_columns}
    return environment


def _emphasised(text: str) -> Markup:
    """Escaped text in which ``**this**`` is strong."""
    from markupsafe import Markup, escape

    parts = text.split("**")
    return Markup("").join(Markup("<strong>{}</strong>").format(part) if k % 2 else escape(part) for k, part in enumerate(parts))
