"""Output units of a classifier that grows: each is free, holds a real class, or holds a dream.

    unit       0      1      2       3      4
    state      real   real   dream   free   free
    label      7      3      0       -1     -1      class id of the data set, or number of the dream
    task       0      0      1       -1     -1      experience that brought it

A new class takes the first free unit, and a new unit where none is free; a dream's unit may become a real class' unit, which
then starts from the dream's weights (Dream2Learn).  The table is plain lists, so that it lives in a model's `config.json`.

Ours: all of it.  Left out: weights, which are the classifier's (classifier.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sleepkit.errors import SleepkitError

__all__ = ["DREAM", "FREE", "REAL", "OutputUnits"]

FREE, REAL, DREAM = STATES = ("free", "real", "dream")


class OutputUnits:
    """Table of a classifier's output units: each is free, or holds a real class or a dream.

    Args:
        size (`int`, defaults to 0): number of units, all free.
    """

    def __init__(self, size: int = 0) -> None:
        self.states = [FREE] * size
        self.labels = [-1] * size
        self.tasks = [-1] * size

    def __len__(self) -> int:
        return len(self.states)

    def take(self, labels: Sequence[int], task: int, state: str = REAL) -> list[int]:
        """Give each label a unit, free ones first, and return the units in the order of the labels.

        Raises:
            SleepkitError: a label that has a unit of this state already.
        """
        for label in labels:
            if label in self.labels_of(state):
                raise SleepkitError(f"{state} label {label} has unit {self.unit(label, state)} already; take each label once")
        units = self.where(FREE)[: len(labels)]
        units += range(len(self), len(self) + len(labels) - len(units))
        for unit, label in zip(units, labels, strict=True):
            self._set(unit, state, label, task)
        return units

    def promote(self, unit: int, label: int, task: int) -> None:
        """Make a dream's unit the unit of a real class.  Raises `SleepkitError` if it holds no dream."""
        if not 0 <= unit < len(self) or self.states[unit] != DREAM:
            found = self.states[unit] if 0 <= unit < len(self) else f"outside 0..{len(self) - 1}"
            raise SleepkitError(f"unit {unit} is {found}; only a dream's unit is promoted, one of {self.where(DREAM)}")
        if label in self.labels_of(REAL):
            raise SleepkitError(f"real label {label} has unit {self.unit(label)} already; take each label once")
        self._set(unit, REAL, label, task)

    def release(self, units: Sequence[int]) -> None:
        """Make these units free again."""
        for unit in units:
            self._set(unit, FREE, -1, -1)

    def where(self, state: str) -> list[int]:
        """Return the units of a state, in ascending order."""
        return [unit for unit, found in enumerate(self.states) if found == state]

    def labels_of(self, state: str) -> list[int]:
        """Labels of a state, in the order of their units."""
        return [self.labels[unit] for unit in self.where(state)]

    def unit(self, label: int, state: str = REAL) -> int:
        """The unit of a label.  Raises `SleepkitError` if it has none."""
        for unit, (found, kind) in enumerate(zip(self.labels, self.states, strict=True)):
            if found == label and kind == state:
                return unit
        raise SleepkitError(f"{state} label {label} has no unit; known are {self.labels_of(state)}")

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the units as JSON."""
        return {"states": list(self.states), "labels": list(self.labels), "tasks": list(self.tasks)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Sequence[Any]]) -> OutputUnits:
        """Build the table that `to_dict` has returned.  Raises `SleepkitError` for lists of unequal length or unknown states."""
        slots = cls(len(data["states"]))
        slots.states, slots.labels, slots.tasks = list(data["states"]), list(data["labels"]), list(data["tasks"])
        if not len(slots.states) == len(slots.labels) == len(slots.tasks) or set(slots.states) - set(STATES):
            raise SleepkitError(f"slots is {data!r:.80}; states, labels and tasks have one entry for each unit")
        return slots

    def to_tensor(self) -> Tensor:
        """``(units, 3)`` int64: state, label, task."""
        rows = zip((STATES.index(state) for state in self.states), self.labels, self.tasks, strict=True)
        return torch.tensor(list(rows), dtype=torch.int64).reshape(-1, 3)

    @classmethod
    def from_tensor(cls, rows: Tensor) -> OutputUnits:
        """Return the units that `to_tensor` has made a tensor of."""
        slots = cls(len(rows))
        for unit, (state, label, task) in enumerate(rows.tolist()):
            slots._set(unit, STATES[state], label, task)
        return slots

    def _set(self, unit: int, state: str, label: int, task: int) -> None:
        row: tuple[list[Any], ...] = (self.states, self.labels, self.tasks)
        for column, value in zip(row, (state, label, task), strict=True):
            column[unit : unit + 1] = [value]  # appends where the unit is new
