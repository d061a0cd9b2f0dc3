"""Published dreams: the accepted dreams of a run as a `datasets` dataset, one config for each night.

    <folder>/README.md         card: which model, nights, contexts, styles, rewards; the configs
             night_01.jsonl    rows {context, style, text, rows: [{prompt, reply}], reward, score, round, night, model}
             night_02.jsonl    datasets.load_dataset(folder, "night_02")

A night is appended without touching the others, also to a folder that another run began.  Left out: uploading (hub.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sleepkit.cards import REPOSITORY, dataset_card, published_name
from sleepkit.errors import SleepkitError
from sleepkit.language.dreams import Dream
from sleepkit.report import markdown_table
from sleepkit.results import write_jsonl

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
    folder = Path(source)
    if folder.is_dir():
        paths = sorted(folder.glob("*.jsonl"))
        if not paths:
            raise SleepkitError(f"{source} holds no .jsonl of dreams; give a folder of published dreams")
        return [one for path in paths for one in _read(path)]
    import datasets

    try:
        names = datasets.get_dataset_config_names(source)
        tables = {name: datasets.load_dataset(source, name, split="train") for name in names}
    except Exception as error:
        raise SleepkitError(f"dream set {source!r} is no folder and cannot be loaded from the Hub ({error})") from error
    return [_dream(row, f"{source}, {name}") for name, table in tables.items() for row in table]


def _read(path: Path) -> list[Dream]:
    dreams = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SleepkitError(f"{path} cannot be read ({error}); give a folder of published dreams") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SleepkitError(f"{path} line {number} is not JSON ({error}); copy the file again") from error
        dreams.append(_dream(row, f"{path} line {number}"))
    return dreams


def _dream(row: Mapping[str, Any], place: str) -> Dream:
    try:
        values = {column: row[column] for column in COLUMNS if column in row and column != "rows"}
        return Dream(rows=[(str(pair["prompt"]), str(pair["reply"])) for pair in row["rows"]], **values)
    except (KeyError, TypeError) as error:
        raise SleepkitError(f"{place} is not a dream ({error}); rows need context, style, text and rows") from error


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
