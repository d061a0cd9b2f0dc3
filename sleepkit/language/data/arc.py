"""ARC-AGI: tasks of coloured grids, as text, and their augmentations.

    task        a few pairs of grids (demonstrations) that follow one rule, and test inputs whose outputs are asked for
    grid        (rows, columns) of colours 0..9, written as rows of digits
    example     demonstrations, then an input -> its output                       as a (prompt, reply) pair

Augmentations keep a rule a rule, as they are done to every grid of a task: rotations, flips, transposition, other colours,
demonstrations in another order.  Leaving one demonstration out and asking for it makes training data of a task (test-time
training, arXiv 2411.07279); which augmentations to use is what a dream chooses (SEAL, arXiv 2506.10943, section 4.2).
"""

from __future__ import annotations

import difflib
import json
import random
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sleepkit.errors import SleepkitError, first_line
from sleepkit.language.data.unpacking import open_text
from sleepkit.utils.paths import existing
from sleepkit.utils.remarks import Remarks

Grid = np.ndarray  # (rows, columns) of 0..9
Pair = tuple[Grid, Grid]
SIDE, COLOURS = 30, 10
MOST = 2**26  # characters of a file; all tasks of ARC-AGI-1 and 2 together have a tenth


@dataclass(frozen=True)
class ArcTask:
    """Demonstrations and test pairs of one rule."""

    name: str
    train: list[Pair]
    test: list[Pair]

    @property
    def cells(self) -> int:
        """Number of cells of the largest grid of the task."""
        return max(grid.size for pair in (*self.train, *self.test) for grid in pair)

    def mapped(self, change: Callable[[Grid], Grid]) -> ArcTask:
        """Return the task with ``change`` applied to every grid."""
        train, test = ([(change(a), change(b)) for a, b in pairs] for pairs in (self.train, self.test))
        return replace(self, train=train, test=test)


def load_arc(dataset: str | Path, names: Sequence[str] | None = None, largest: int = SIDE * SIDE) -> list[ArcTask]:
    """Tasks in the order of the file, or of ``names``.

    Args:
        dataset: .json[.gz] of ``{name: {train, test}}``, or a folder of ``<name>.json``, as in the official repository; what else
            is in the folder is skipped, which is printed.
        names: of the tasks to use, none twice; None: all.
        largest: tasks with a grid of more cells are left out.

    Raises:
        SleepkitError: unreadable, not of this form (the task, the pair and the grid are named), an unknown name, or nothing left.
    """
    path = existing(dataset, "dataset")
    if path is None:
        raise SleepkitError(f"dataset {str(dataset)!r} does not exist; give ARC tasks, a .json file or a folder")
    tasks = {name: _task(name, row, path) for name, row in (_folder(path) if path.is_dir() else _json(path)).items()}
    twice = [name for name, times in Counter(names or ()).items() if times > 1]
    if twice:
        raise SleepkitError(f"tasks has {twice[0]!r} twice; name each task once")
    for name in names or ():
        if name not in tasks:
            near = difflib.get_close_matches(name, tasks, n=1) or sorted(tasks)[:1]
            raise SleepkitError(f"tasks has {name!r}, which {path} has not; it has {len(tasks)} tasks, for example {near[0]!r}")
    chosen = [task for task in (tasks[name] for name in names or tasks) if task.cells <= largest]
    if not chosen:
        raise SleepkitError(f"{path} has no task whose grids have at most {largest} cells; allow larger ones")
    return chosen


def _folder(folder: Path) -> dict[str, Any]:
    """What its .json files hold, by their names."""
    paths = sorted(folder.iterdir())
    files = [path for path in paths if path.suffix == ".json" and path.is_file() and not path.name.startswith(".")]
    if not files:
        raise SleepkitError(f"{folder} has no .json file; give a folder of <name>.json, such as the official data/training")
    remarks = Remarks()
    for path in paths:
        if path not in files:
            remarks.add("skipped, as no .json file", path.name)
    remarks.say()
    return {path.stem: _json(path) for path in files}


def _json(path: Path) -> Any:
    try:
        with open_text(path) as file:
            text = file.read(MOST + 1)
        if len(text) > MOST:
            raise SleepkitError(f"{path} has more than {MOST:,} characters; split it")
        found = json.loads(text, object_pairs_hook=_without_repetition)
    except SleepkitError:
        raise
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        raise SleepkitError(f"{path} holds no ARC tasks ({reason}); give {{name: {{train, test}}}} or a folder of such") from None
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise SleepkitError(
            f"{path} holds no ARC tasks (it is of type {kind}); give {{name: {{train, test}}}} or a folder of such"
        )
    return found


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, times in Counter(name for name, _ in pairs).items():
        if times > 1:
            raise ValueError(f"{name!r:.60} stands there twice")
    return dict(pairs)


def _task(name: str, row: Any, path: Path) -> ArcTask:
    place = f"{path} holds no ARC tasks (task {name!r:.60}"
    remedy = "give {name: {train, test}} or a folder of such, each a list of {input, output}"
    parts = []
    for part in ("train", "test"):
        pairs = row.get(part) if isinstance(row, dict) else None
        if not isinstance(pairs, list) or not pairs:
            raise SleepkitError(f"{place} has no list of pairs {part!r}); {remedy}")
        parts.append([_pair(pair, f"{place}, {part} {number}", remedy) for number, pair in enumerate(pairs)])
    return ArcTask(name, *parts)


def _pair(pair: Any, place: str, remedy: str) -> Pair:
    grids = []
    for part in ("input", "output"):
        if not isinstance(pair, dict) or part not in pair:
            raise SleepkitError(f"{place} has no {part}); {remedy}")
        why = _no_grid(pair[part])
        if why:
            raise SleepkitError(f"{place}, {part}: {why}); a grid has 1 to {SIDE} rows of equal length, of whole numbers 0 to 9")
        grids.append(np.array(pair[part], dtype=np.int64))
    return grids[0], grids[1]


def _no_grid(rows: Any) -> str | None:
    """Why something is no grid, in a few words."""
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        return "it is no list of rows"
    lengths = {len(row) for row in rows}
    if len(lengths) != 1:
        return f"its rows have {' and '.join(map(str, sorted(lengths)[:2]))} cells" if rows else "it has no rows"
    if not (1 <= len(rows) <= SIDE and 1 <= len(rows[0]) <= SIDE):
        return f"it has {len(rows)} x {len(rows[0])} cells"
    for row in rows:
        for value in row:
            if type(value) is not int or not 0 <= value < COLOURS:  # True is an int too
                return f"it has the value {json.dumps(value)[:20]}"
    return None


def grid_text(grid: Grid) -> str:
    """Write a grid as text: one line of digits for each row."""
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
