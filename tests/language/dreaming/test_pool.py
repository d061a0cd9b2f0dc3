"""The reservoir of rehearsed dreams: bounded, and each row that was offered is in it with equal probability."""

from sleepkit.language.dreaming.pool import DreamPool
from sleepkit.language.questions.items import SyntheticExample


def rows(start, count):
    return [SyntheticExample(f"question {k}", "answer", "", "replay") for k in range(start, start + count)]


def test_each_row_is_kept_with_equal_probability():
    times = dict.fromkeys((row.prompt for row in rows(0, 20)), 0)
    for seed in range(1000):
        pool = DreamPool(5)
        pool.add(rows(0, 12), seed)  # of two nights
        pool.add(rows(12, 8), 1000 + seed)
        assert len(pool.items) == 5 and pool.seen == 20 and len({row.prompt for row in pool.items}) == 5
        for row in pool.items:
            times[row.prompt] += 1
    assert all(190 < count < 310 for count in times.values()), times  # 250 on average, with a deviation of 14


def test_fewer_rows_than_fit_are_all_kept_and_a_pool_of_none_keeps_none():
    pool, none = DreamPool(5), DreamPool(0)
    for one in (pool, none):
        one.add(rows(0, 4), seed=0)
    assert pool.items == rows(0, 4) and none.items == []


def test_equal_seeds_keep_the_same_and_a_snapshot_gives_it_back():
    one, other, third = DreamPool(3), DreamPool(3), DreamPool(3)
    for pool, seed in ((one, 7), (other, 7), (third, 8)):
        pool.add(rows(0, 30), seed)
    assert one == other != third
    before = one.to_tensor()
    one.add(rows(30, 30), seed=9)
    assert one != other
    one.from_tensor(before)
    assert one == other
