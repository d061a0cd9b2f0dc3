"""Work is dealt out evenly, in order, and the same on all processes."""

import random

import pytest
import torch

from sleepkit.utils.ranks import gathered_rows, of_rows, several_of_rows, shares, split


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("seed", range(4))
def test_the_dearest_share_costs_as_little_as_it_can(count, seed):
    rng = random.Random(seed)
    costs = [rng.randint(0, 20) for _ in range(30)]
    found = shares(costs, count)
    assert len(found) == count and [place for share in found for place in share] == list(range(30))
    dearest = max(sum(costs[k] for k in share) for share in found)
    assert dearest <= sum(costs) / count + max(costs)
    for limit in range(max(costs), dearest - 1):  # nothing below would do: greedy filling needs fewest shares
        needed, spent = 1, 0
        for cost in costs:
            needed, spent = (needed, spent + cost) if spent + cost <= limit else (needed + 1, cost)
        assert needed > count


def test_few_pieces_and_none():
    assert shares([5, 1, 1, 1], 2) == [[0], [1, 2, 3]]
    assert shares([1.0], 3) == [[0], [], []]
    assert shares([], 2) == [[], []] and shares([0, 0], 2) == [[0, 1], []]


def test_alone_a_process_does_all_of_it():
    assert split([[2, 0, 1]], lambda mine: [f"piece {place}" for place in mine]) == ["piece 0", "piece 1", "piece 2"]
    rows = torch.arange(10.0)
    assert torch.equal(of_rows(lambda part: part * 2, rows, 3), rows * 2)
    double, half = several_of_rows(lambda part: (part * 2, part / 2), rows, 3)
    assert torch.equal(double, rows * 2) and torch.equal(half, rows / 2)
    assert gathered_rows(rows, [10]) is rows
    with pytest.raises(ValueError, match="shorter"):
        split([[0, 1]], lambda mine: [1])
