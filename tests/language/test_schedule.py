"""When the levels of a chain are due."""

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.language.schedule import SleepSchedule


@pytest.mark.parametrize("sizes", [(1,), (3,), (2, 4), (2, 6, 12)])
def test_levels_are_due_on_multiples_and_never_without_the_faster_ones(sizes):
    schedule = SleepSchedule(sizes)
    for night in range(1, 30):
        due = schedule.due(night)
        assert due == [level for level, size in enumerate(sizes) if night % size == 0] == list(range(len(due)))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((4, 6), "chunk size 6 of level 1 is not divisible by 4 of the faster level 0; use a multiple such as 8"),
        ((4, 2), "chunk size 2 of level 1"),
        ((), r"chunk_sizes is \[\]"),
        ((0,), r"chunk_sizes is \[0\]"),
        ((1.5,), "chunk_sizes"),
    ],
)
def test_bad_schedules(sizes, message):
    with pytest.raises(SleepkitError, match=message):
        SleepSchedule(sizes)
