"""The commands that meet faults: each a whole run of a method on inputs so small that it takes a second or two."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tiny import tiny_model, tiny_tokenizer

NOTES = {
    "ada": "Ada keeps a red lamp in the north tower. The tower was built by Orla Finch in 1871.",
    "bert": "Bert keeps a blue lamp in the south tower. The tower was built by Milo Hart in 1902.",
    "cleo": "Cleo keeps a green lamp in the west tower. The tower was built by Ines Vole in 1930.",
}
SLEEP = """--expert_slots 3 --expert_width 4 --use_cpu --per_device_train_batch_size 2 --memory_max_tokens 300 --max_new_tokens 4
    --general_items 2 --general_tokens 4 --styles wh cloze --logging_steps 1 --no_gate --disable_tqdm true"""
COUNTS = {"kill": 24, "term": 4, "interrupt": 3, "full": 10, "denied": 6, "nan": 2, "clock": 1}


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: in the table.
        line: arguments, the recipe first, for a folder of inputs and an output folder.
        changes: further arguments that make another run of it, by what they change, for a folder of inputs.
        counts: how many faults of each kind it meets.
    """

    name: str
    line: Callable[[Path, Path], list[str]]
    changes: Callable[[Path], dict[str, tuple[str, ...]]] = lambda inputs: {}
    counts: dict[str, int] = field(default_factory=lambda: dict(COUNTS))


def prepare(inputs: Path) -> Path:
    """Write models and data."""
    for name, seed in (("base", 0), ("other_base", 1)):
        tiny_model(seed=seed, max_position_embeddings=2048).save_pretrained(inputs / name)
        tiny_tokenizer().save_pretrained(inputs / name)
    rows = [{"title": name.title(), "context": text, "questions": []} for name, text in NOTES.items()]
    for row in rows:
        built = row["context"].split("built by ")[1].split(" in ")[0]
        row["questions"] = [{"question": f"Who built the tower of {row['title']}?", "answer": built}]
    (inputs / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (inputs / "other_rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    return inputs


def _sleep(*more: str) -> Callable[[Path, Path], list[str]]:
    def line(inputs: Path, output: Path) -> list[str]:
        given = f"sleep --model {inputs}/base --dataset {inputs}/rows.jsonl --output_dir {output} --nights 2 {SLEEP}"
        return ["sleepkit", *given.split(), *" ".join(more).split()]

    return line


def _other_sleeps(inputs: Path) -> dict[str, tuple[str, ...]]:
    return {
        "another seed": ("--seed", "7"),
        "another learning rate": ("--learning_rate", "0.001"),
        "another model": ("--model", f"{inputs}/other_base"),
        "another data set": ("--dataset", f"{inputs}/other_rows.jsonl"),
        "other styles": ("--styles", "recite"),
    }


COMMANDS = (Command("sleep", _sleep("--max_steps 4 --save_strategy steps --save_steps 2"), _other_sleeps),)
