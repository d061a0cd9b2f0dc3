"""What the campaign of faults and that of bad inputs do alike: go through the commands, and count how each one ended."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

from commands import COMMANDS, Command, given_dreams, prepare
from machine import preload, side_by_side

from sleepkit.language.dreaming import trainer as dreaming_trainer

Rows = TypeVar("Rows")


def rounds(go: Callable[[Command, Path, Path], Rows]) -> Iterator[Rows]:
    """What ``go(command, inputs, folder)`` makes of each command that the command line names, or of all; the quickest first."""

    def met(command: Command) -> Rows:
        folder = Path(place) / command.name
        folder.mkdir()
        rows = go(command, prepare(folder / "inputs"), folder)
        shutil.rmtree(folder)
        return rows

    preload()
    chosen = [command for command in COMMANDS if not sys.argv[1:] or command.name in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as place, patch.object(dreaming_trainer, "dream", given_dreams):
        yield from side_by_side(met, chosen)


def counts_table(kind: str, results: Sequence[str], rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Lines of a Markdown table: for each command and kind how often each result came.

    Args:
        kind: heading of the kinds.
        results: all that there may be, in order.
        rows: command, kind and result of each try.
    """

    def cells(counts: Counter[str]) -> str:
        return " | ".join(str(counts[result]) for result in results)

    counted: dict[tuple[str, str], Counter[str]] = {}
    for command, of, result in rows:
        counted.setdefault((command, of), Counter())[result] += 1
    lines = [f"| command | {kind} | {' | '.join(results)} |", f"| --- | --- |{' ---: |' * len(results)}"]
    lines += [f"| {command} | {of} | {cells(counts)} |" for (command, of), counts in counted.items()]
    return [*lines, f"| all | | {cells(Counter(result for *_, result in rows))} |"]
