"""Metrics against hand-computed values and plain-loop references of the published formulas."""

import json
import math

import numpy as np
import pytest

from sleepkit.errors import SleepkitError
from sleepkit.reporting import metrics

NAN = float("nan")
# Three nights, three experiences; above the diagonal: measured before the experience was met.
A = [[0.8, 0.2, 0.1], [0.6, 0.9, 0.2], [0.4, 0.9, 0.5]]
LOWER = [[0.8, NAN, NAN], [0.6, 0.9, NAN], [0.4, 0.9, 0.5]]


def test_by_hand():
    assert metrics.faa(A) == pytest.approx((0.4 + 0.9 + 0.5) / 3)
    assert metrics.aia(A) == pytest.approx((0.8 + (0.6 + 0.9) / 2 + (0.4 + 0.9 + 0.5) / 3) / 3)
    assert metrics.bwt(A) == pytest.approx((-0.4 + 0.0) / 2)
    assert metrics.forgetting(A) == pytest.approx((0.4 + 0.0) / 2)
    assert metrics.fwt(A, [0.1, 0.1, 0.1]) == pytest.approx((0.1 + 0.1) / 2)
    assert metrics.intransigence(A, [0.9, 0.9, 0.9]) == pytest.approx((0.1 + 0.0 + 0.4) / 3)
    assert metrics.retention(A) == pytest.approx(0.5)
    assert metrics.retention_per_experience(A) == pytest.approx([0.5, 1.0, 1.0])


@pytest.mark.parametrize("nights", [1, 2, 4, 6])
def test_against_loops(nights):
    experiences = 4
    rng = np.random.default_rng(nights)
    a, baseline, joint = rng.random((nights, experiences)), rng.random(experiences), rng.random(experiences)
    learned = min(nights, experiences)
    earlier = [j for j in range(experiences) if j < nights - 1]

    def mean(values):
        return sum(values) / len(values) if values else NAN

    expected = {
        "faa": mean([a[-1][j] for j in range(learned)]),
        "aia": mean([mean([a[i][j] for j in range(min(i + 1, experiences))]) for i in range(nights)]),
        "bwt": mean([a[-1][j] - a[j][j] for j in earlier]),
        "forgetting": mean([max(a[i][j] for i in range(nights - 1)) - a[-1][j] for j in earlier]),
        "retention": a[-1][0] / a[0][0],
        "retention_mean": mean([a[-1][j] / a[j][j] for j in range(learned)]),
        "fwt": mean([a[j - 1][j] - baseline[j] for j in range(1, experiences) if j - 1 < nights]),
        "intransigence": mean([joint[j] - a[j][j] for j in range(learned)]),
    }
    expected = {name: value for name, value in expected.items() if not math.isnan(value)}
    assert metrics.summary(a, baseline, joint) == pytest.approx(expected)


def test_what_was_not_measured_is_not_averaged_away():
    assert metrics.summary(LOWER) == pytest.approx(metrics.summary(A))  # nothing above the diagonal is needed...
    assert math.isnan(metrics.fwt(LOWER, [0, 0, 0]))  # ...but for forward transfer
    hole = [[0.8, NAN, NAN], [0.6, NAN, NAN], [0.4, 0.9, 0.5]]
    assert math.isnan(metrics.bwt(hole)) and math.isnan(metrics.aia(hole)) and math.isnan(metrics.forgetting(hole))
    assert metrics.faa(hole) == metrics.faa(A)


def test_best_night_may_be_any_measured_one():
    assert metrics.forgetting([[0.3, 0], [0.9, 0.5], [0.4, 0.5]]) == pytest.approx((0.5 + 0.0) / 2)
    assert metrics.forgetting([[0.3, 0], [NAN, 0.5], [0.4, 0.5]]) == pytest.approx((-0.1 + 0.0) / 2)


def test_single_night():
    assert math.isnan(metrics.bwt([[0.5]])) and math.isnan(metrics.forgetting([[0.5]]))
    values = metrics.summary([[0.5]])
    assert values == {"faa": 0.5, "aia": 0.5, "retention": 1.0, "retention_mean": 1.0}
    json.dumps(values, allow_nan=False)


def test_retention_of_nothing_is_undefined():
    assert math.isnan(metrics.retention([[0.0, 0.0], [0.3, 0.5]]))
    assert "retention" not in metrics.summary([[0.0, 0.0], [0.3, 0.5]])


def test_recovery():
    assert metrics.recovery(0.1, 0.6, 0.4) == pytest.approx(0.6)
    assert metrics.recovery([0, 0, 1, 0], [1, 1, 1, 0], [1, 0, 1, 0]) == pytest.approx(0.5)
    assert metrics.recovery(0.5, 0.5, 0.9) is None
    assert metrics.recovery(0.5, 0.4, 0.9) is None
    with pytest.raises(SleepkitError, match="after contains NaN"):
        metrics.recovery(0.5, 0.6, NAN)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.faa([[80.0]]), "contains 80; scores are shares from 0 to 1"),
        (lambda: metrics.faa([0.5, 0.6]), r"shape \(2,\)"),
        (lambda: metrics.faa([]), "at least one score"),
        (lambda: metrics.faa([[0.1], [0.1, 0.2]]), "not a rectangle"),
        (lambda: metrics.faa([[float("inf")]]), "contains inf"),
        (lambda: metrics.fwt(A, [0.1]), "baseline has 1 scores for 3 experiences"),
        (lambda: metrics.recovery(0.1, 50, 0.2), "in_context contains 50"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(SleepkitError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
