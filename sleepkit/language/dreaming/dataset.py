"""Published dreams: the accepted dreams of a run as a `datasets` dataset, one config for each night.

    <folder>/README.md         card: which model, nights, contexts, styles, rewards; the configs
             night_01.jsonl    rows {context, style, text, rows: [{prompt, reply}], reward, score, round, night, model}
             night_02.jsonl    datasets.load_dataset(folder, "night_02")

A night is appended without touching the others, also to a folder that another run began.  Left out: uploading (hub.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sleepkit.errors import SleepkitError, first_line
from sleepkit.language.data.columns import Row, shown, text_of
from sleepkit.language.data.documents import local_path
from sleepkit.language.data.row_files import file_rows
from sleepkit.language.dreaming.dreams import Dream
from sleepkit.reporting.cards import REPOSITORY, dataset_card, published_name
from sleepkit.reporting.tables import markdown_table
from sleepkit.utils.files import write_jsonl

_NEEDED = "context, style, text and rows of {prompt, reply}"
COLUMNS = ("context", "style", "text", "rows", "reward", "score", "round", "night")


def add_night(folder: Path, name: str, dreams: Sequence[Dream], model: str) -> None:
    """Write the accepted dreams of one night as config ``name``; an existing one of that name is replaced.

    ``model`` is who dreamed: a Hub id, or the last part of a folder.
    """
    model = published_name(model)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for one in dreams:
        row = {column: getattr(one, column) for column in COLUMNS}
        rows.append(row | {"rows": [{"prompt": p, "reply": r} for p, r in one.rows], "model": model})
    write_jsonl(folder / f"{name}.jsonl", rows)


def write_card(folder: Path, *, name: str, model: str, source: str) -> None:
    """Write ``README.md`` from the nights that are there."""
    nights = {path.stem: _read(path) for path in sorted(folder.glob("*.jsonl"))}
    styles = Counter(one.style for dreams in nights.values() for one in dreams)
    card = dataset_card(styles, name=name, writer=model, source=source)
    configs = [{"config_name": night, "data_files": f"{night}.jsonl"} for night in nights]
    card.data.configs = configs  # type: ignore[attr-defined]
    rows = [
        (night, len(dreams), len({one.context for one in dreams}), _mean([one.reward for one in dreams]))
        for night, dreams in nights.items()
    ]
    code = f'from datasets import load_dataset\n\ndreams = load_dataset("{REPOSITORY}", "{min(nights)}", split="train")\n'
    code += "print(dreams[0])\n"
    card.text += f"\n{markdown_table(['night', 'dreams', 'contexts', 'mean reward'], rows)}\n\n```python\n{code}```\n"
    card.text += f"\nAnother run sleeps on them with `--dream_set {REPOSITORY}`.\n"
    card.save(folder / "README.md")


def load_dream_set(source: str) -> list[Dream]:
    """All nights of a published set, from a folder or the Hub.

    Raises:
        SleepkitError: not there, unreadable, or without the columns of dreams.
    """
    folder = local_path(source)
    if folder is not None and folder.is_dir():
        paths = sorted(folder.glob("*.jsonl"))
        if not paths:
            raise SleepkitError(f"{source} holds no .jsonl of dreams; give a folder of published dreams")
        return [one for path in paths for one in _read(path)]
    import datasets

    try:
        names = datasets.get_dataset_config_names(source)
        tables = {name: datasets.load_dataset(source, name, split="train") for name in names}
    except Exception as error:
        reason = first_line(error)
        raise SleepkitError(f"dream set {source!r} is no folder and cannot be loaded from the Hub ({reason})") from error
    return [_dream(row, f"{source}, {name}") for name, table in tables.items() for row in table]


def _read(path: Path) -> list[Dream]:
    return [_dream(row, place) for place, row in file_rows(path)]


def _dream(row: Row, place: str) -> Dream:
    if not isinstance(row, Mapping):
        raise SleepkitError(f"{place} is not a dream but a {type(row).__name__}; rows need {_NEEDED}")
    pairs = row.get("rows")
    if not isinstance(pairs, list) or not all(isinstance(pair, Mapping) for pair in pairs):
        raise SleepkitError(f"{place} is not a dream (its rows are {shown(pairs)}); rows need {_NEEDED}")
    read = [(text_of(pair, "prompt", place, _NEEDED), text_of(pair, "reply", place, _NEEDED)) for pair in pairs]
    style, text, context = (text_of(row, column, place, _NEEDED) for column in ("style", "text", "context"))
    numbers: dict[str, Any] = {
        column: row[column] for column in ("reward", "score", "round", "night") if row.get(column) is not None
    }
    for column, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SleepkitError(f"{place} has a {column} of type {type(value).__name__} ({shown(value)}); give a number")
    return Dream(style, text, read, context, **numbers)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
