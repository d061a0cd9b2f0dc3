"""Units of a classifier: who gets which, and what is refused."""

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.vision.incremental.output_units import DREAM, FREE, REAL, OutputUnits


def test_free_units_first_then_new_ones():
    slots = OutputUnits(3)
    assert slots.take([7, 3], task=0) == [0, 1]
    assert slots.take([100, 101], task=0, state=DREAM) == [2, 3]
    assert slots.take([5], task=1) == [4] and len(slots) == 5
    assert slots.labels == [7, 3, 100, 101, 5] and slots.tasks == [0, 0, 0, 0, 1]
    assert slots.where(DREAM) == [2, 3] and slots.unit(5) == 4 and slots.labels_of(REAL) == [7, 3, 5]


def test_a_dream_becomes_a_class_and_a_released_unit_is_taken_again():
    slots = OutputUnits()
    slots.take([0, 1], 0)
    slots.take([0, 1, 2], 0, DREAM)
    slots.promote(3, label=9, task=1)
    slots.release([2, 4])
    assert slots.states == [REAL, REAL, FREE, REAL, FREE] and slots.unit(9) == 3
    assert slots.take([8], 2) == [2]


def test_there_and_back():
    slots = OutputUnits(4)
    slots.take([2, 1], 0)
    slots.take([0], 1, DREAM)
    for again in (OutputUnits.from_dict(slots.to_dict()), OutputUnits.from_tensor(slots.to_tensor())):
        assert again.to_dict() == slots.to_dict()


def test_what_is_refused():
    slots = OutputUnits(2)
    slots.take([4], 0)
    with pytest.raises(SleepkitError, match="real label 4 has unit 0 already"):
        slots.take([4], 1)
    with pytest.raises(SleepkitError, match="unit 0 is real; only a dream's"):
        slots.promote(0, 1, 1)
    with pytest.raises(SleepkitError, match="unit 9 is outside"):
        slots.promote(9, 1, 1)
    with pytest.raises(SleepkitError, match=r"real label 3 has no unit; known are \[4\]"):
        slots.unit(3)
    with pytest.raises(SleepkitError, match="one entry for each unit"):
        OutputUnits.from_dict({"states": ["real"], "labels": [], "tasks": [0]})
