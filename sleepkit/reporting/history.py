"""The nights of a run as a table for the terminal: `sleepkit history RUN`.

A run that is not finished, or that goes on after a finished day, is read from its state; one that is, from `results.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sleepkit.errors import SleepkitError
from sleepkit.reporting.content import nights_table
from sleepkit.reporting.results import FILE_NAME
from sleepkit.reporting.tables import format_table
from sleepkit.utils.files import read_json
from sleepkit.utils.states import newest_state

__all__ = ["history_text"]

STATE = "cycle.json"  # in the folder of a state


def history_text(folder: str | Path) -> str:
    """A row for each night (when, of what, kept or undone and why, own questions before and after, ...), and what settings
    were changed from one day to the next.

    Raises:
        SleepkitError: the folder holds no night, or damaged files.
    """
    folder = Path(folder)
    state = newest_state(folder / "state")
    found = [read_json(path) for path in (folder / FILE_NAME, state and state / STATE) if path and path.exists()]
    run = max((one for one in found if isinstance(one, dict)), key=lambda one: len(one.get("nights") or []), default={})
    nights = run.get("nights") or []
    if not nights:
        raise SleepkitError(f"{folder} holds no night; give the output folder of a run{_seeds(folder)}")
    days = run.get("days") or []
    headings, rows = nights_table([{**_day(days, night), **night} for night in nights])
    if "why" in headings:  # it is the longest, so it comes last
        place = headings.index("why")
        headings.append(headings.pop(place))
        for row in rows:
            row.append(row.pop(place))
    return "\n".join([format_table(headings, rows), *_changes(days)])


def _seeds(folder: Path) -> str:
    seeds = sorted(path.parent.name for path in folder.glob(f"seed_*/{FILE_NAME}"))
    return f", such as {folder / seeds[0]}" if seeds else ""


def _day(days: Sequence[Mapping[str, Any]], night: Mapping[str, Any]) -> dict[str, Any]:
    """The date of the day that a night belongs to, if it is known."""
    begun = [day for day in days if day.get("first_night", 1) <= night.get("night", 0)]
    return {"date": begun[-1]["date"]} if begun and begun[-1].get("date") else {}


def _changes(days: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for earlier, later in zip(days, days[1:], strict=False):
        old, new = earlier.get("config") or {}, later.get("config") or {}
        changed = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
        if changed:
            told = ", ".join(f"{name} {old.get(name)} → {new.get(name)}" for name in changed)
            lines.append(f"from night {later.get('first_night')}: {told}")
    return ["", *lines] if lines else []
