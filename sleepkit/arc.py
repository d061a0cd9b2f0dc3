"""ARC-AGI: tasks of coloured grids, as text, and their augmentations.

    task        a few pairs of grids (demonstrations) that follow one rule, and test inputs whose outputs are asked for
    grid        (rows, columns) of colours 0..9, written as rows of digits
    example     demonstrations, then an input -> its output                       as a (prompt, reply) pair

Augmentations keep a rule a rule, as they are done to every grid of a task: rotations, flips, transposition, other colours,
demonstrations in another order.  Leaving one demonstration out and asking for it makes training data of a task (test-time
training, arXiv 2411.07279); which augmentations to use is what a dream chooses (SEAL, arXiv 2506.10943, section 4.2).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sleepkit.errors import SleepkitError
from sleepkit.language.data.unpacking import open_text

Grid = np.ndarray  # (rows, columns) of 0..9
Pair = tuple[Grid, Grid]
SIDE, COLOURS = 30, 10


@dataclass(frozen=True)
class ArcTask:
    """Demonstrations and test pairs of one rule."""

    name: str
    train: list[Pair]
    test: list[Pair]

    @property
    def cells(self) -> int:
        """Of its largest grid."""
        return max(grid.size for pair in (*self.train, *self.test) for grid in pair)

    def mapped(self, change: Callable[[Grid], Grid]) -> ArcTask:
        """The task with every grid changed."""
        train, test = ([(change(a), change(b)) for a, b in pairs] for pairs in (self.train, self.test))
        return replace(self, train=train, test=test)


def load_arc(dataset: str | Path, names: Sequence[str] | None = None, largest: int = SIDE * SIDE) -> list[ArcTask]:
    """Tasks in the order of the file, or of ``names``.

    Args:
        dataset: .json[.gz] of ``{name: {train, test}}``, or a folder of ``<name>.json``, as in the official repository.
        names: of the tasks to use; None: all.
        largest: tasks with a grid of more cells are left out.

    Raises:
        SleepkitError: unreadable, not of this form, an unknown name, or nothing left.
    """
    path = Path(dataset).expanduser()
    try:
        if path.is_dir():
            found = {one.stem: json.loads(one.read_text()) for one in sorted(path.glob("*.json"))}
        else:
            with open_text(path) as file:
                found = json.load(file)
        tasks = {name: ArcTask(name, *(_pairs(row[part]) for part in ("train", "test"))) for name, row in found.items()}
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SleepkitError(
            f"{path} holds no ARC tasks ({error!r}); give {{name: {{train, test}}}} or a folder of such"
        ) from error
    for name in names or ():
        if name not in tasks:
            raise SleepkitError(f"tasks has {name!r}, which {path} has not")
    chosen = [task for task in (tasks[name] for name in names or tasks) if task.cells <= largest]
    if not chosen:
        raise SleepkitError(f"{path} has no task whose grids have at most {largest} cells; allow larger ones")
    return chosen


def _pairs(rows: Sequence[Any]) -> list[Pair]:
    pairs = [tuple(np.array(row[part], dtype=np.int64) for part in ("input", "output")) for row in rows]
    for grid in (grid for pair in pairs for grid in pair):
        if grid.ndim != 2 or not 1 <= max(grid.shape) <= SIDE or grid.min() < 0 or grid.max() >= COLOURS:
            raise ValueError(f"a grid of shape {grid.shape} with values {grid.min()}..{grid.max()}")
    return [(a, b) for a, b in pairs]


def grid_text(grid: Grid) -> str:
    """Rows of digits."""
    return "\n".join("".join(map(str, row)) for row in grid.tolist())


def example(demonstrations: Sequence[Pair], pair: Pair) -> tuple[str, str]:
    """The prompt that asks for the output of a pair, and the output."""
    return f"{demonstrations_text(demonstrations)}\n\nInput:\n{grid_text(pair[0])}\nOutput:", grid_text(pair[1])


def demonstrations_text(demonstrations: Sequence[Pair]) -> str:
    """All pairs, one under the other."""
    return "\n\n".join(f"Input:\n{grid_text(a)}\nOutput:\n{grid_text(b)}" for a, b in demonstrations)


def left_out(task: ArcTask) -> list[tuple[str, str]]:
    """Each demonstration asked for after the others."""
    return [example(task.train[:k] + task.train[k + 1 :], pair) for k, pair in enumerate(task.train)]


def _recoloured(task: ArcTask, rng: random.Random) -> list[ArcTask]:
    colours = np.array(rng.sample(range(COLOURS), COLOURS))
    return [task.mapped(lambda grid: colours[grid])]


def _reordered(task: ArcTask, rng: random.Random) -> list[ArcTask]:
    return [replace(task, train=rng.sample(task.train, len(task.train)))]


AUGMENTATIONS: dict[str, Callable[[ArcTask, random.Random], list[ArcTask]]] = {
    "rotations": lambda task, _: [task.mapped(partial(np.rot90, k=k)) for k in (1, 2, 3)],
    "flips": lambda task, _: [task.mapped(np.fliplr), task.mapped(np.flipud)],
    "transposition": lambda task, _: [task.mapped(np.transpose)],
    "colours": _recoloured,
    "order": _reordered,
}


def training_rows(task: ArcTask, augmentations: Sequence[str], most: int = 16, seed: int = 0) -> list[tuple[str, str]]:
    """Demonstrations left out in turn, of the task and of its augmentations; those of the task itself are always among them."""
    rng = random.Random(seed)
    own = left_out(task)
    more = [row for name in augmentations for other in AUGMENTATIONS[name](task, rng) for row in left_out(other)]
    more = [row for row in dict.fromkeys(more) if row not in own]
    return own[:most] + rng.sample(more, max(0, min(len(more), most - len(own))))
