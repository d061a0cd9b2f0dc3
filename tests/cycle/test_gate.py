"""The gate's limits one by one, its reasons, and the digest that proves a rollback."""

import pytest
import torch

from sleepkit.cycle.gate import RetentionGate, require_finite_measures
from sleepkit.errors import SleepkitError
from sleepkit.utils.digests import digest

GATE = RetentionGate(max_anchor_kl=0.05, max_anchor_drop=0.01, min_gain=0.0, max_retention_drop=0.1)
BEFORE = {"anchor_accuracy": 0.92, "held_out": 0.1, "retention": 0.8}
GOOD = {"anchor_kl": 0.02, "anchor_accuracy": 0.92, "held_out": 0.5, "retention": 0.8}


def test_a_good_night_is_kept_with_all_numbers_in_the_reason():
    verdict = GATE.decide(BEFORE, GOOD)
    assert verdict.commit
    for part in (
        "anchor KL 0.0200",
        "anchor accuracy 0.920 -> 0.920",
        "own questions 0.100 -> 0.500",
        "earlier nights",
    ):
        assert part in verdict.reason


@pytest.mark.parametrize(
    ("name", "value", "label"),
    [
        ("anchor_kl", 0.0501, "anchor KL"),
        ("anchor_kl", float("nan"), "anchor KL"),
        ("anchor_kl", float("inf"), "anchor KL"),
        ("anchor_accuracy", 0.90, "anchor accuracy"),
        ("held_out", 0.1, "own questions"),  # a night without gain is not worth an expert
        ("held_out", float("nan"), "own questions"),
        ("retention", 0.69, "earlier nights"),
    ],
)
def test_each_limit_rolls_back_and_only_the_failed_one_is_named(name, value, label):
    verdict = GATE.decide(BEFORE, {**GOOD, name: value})
    assert not verdict.commit
    assert verdict.reason.startswith(label) and ";" not in verdict.reason


@pytest.mark.parametrize(("name", "value"), [("anchor_kl", 0.05), ("anchor_accuracy", 0.91), ("retention", 0.7)])
def test_limits_themselves_pass(name, value):
    assert GATE.decide(BEFORE, {**GOOD, name: value}).commit


@pytest.mark.parametrize(("name", "count", "few"), [("retention", "retention_n", 2), ("anchor_accuracy", "anchor_n", 4)])
def test_a_few_answers_may_flip_by_chance(name, count, few):
    lost = {**GOOD, name: BEFORE[name] - few / 10}
    assert not GATE.decide(BEFORE, lost).commit
    assert GATE.decide(BEFORE, {**lost, count: 10}).commit
    assert not GATE.decide(BEFORE, {**lost, count: 20}).commit  # these are twice as many


def test_what_was_not_measured_is_not_judged():
    assert GATE.decide({}, {}) == type(GATE.decide({}, {}))(True, "nothing was measured")
    assert GATE.decide({}, {"anchor_kl": 0.01, "anchor_accuracy": 0.0, "held_out": 0.0}).commit
    assert RetentionGate(min_gain=-1).decide(BEFORE, {**GOOD, "held_out": 0.0}).commit


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["anchor_kl", "anchor_accuracy", "held_out", "retention"])
def test_what_is_no_number_fails_whatever_the_limits_are(name, value):
    open_gate = RetentionGate(float("inf"), float("inf"), -float("inf"), float("inf"))
    after = {**GOOD, "anchor_n": 10, name: value}
    assert open_gate.decide(BEFORE, {**GOOD, "anchor_n": 10}).commit
    for before in (BEFORE, {}):  # also where there is nothing to compare it with
        verdict = open_gate.decide(before, after)
        assert not verdict.commit and str(value).removeprefix("-") in verdict.reason
    with pytest.raises(SleepkitError, match=f"night 2/3: {name} is {value} after it.*lower learning_rate"):
        require_finite_measures(after, "night 2/3")


def test_accuracy_on_no_anchors_is_no_number_and_no_fault():
    unasked = {**GOOD, "anchor_accuracy": float("nan"), "anchor_n": 0}
    require_finite_measures(unasked, "night 1")
    assert GATE.decide({name: value for name, value in BEFORE.items() if name != "anchor_accuracy"}, unasked).commit


@pytest.mark.parametrize("limits", [{"max_anchor_kl": -1.0}, {"max_anchor_drop": float("nan")}, {"min_gain": float("nan")}])
def test_impossible_limits_are_refused(limits):
    with pytest.raises(SleepkitError, match=next(iter(limits))):
        RetentionGate(**limits)


def test_digest_sees_every_bit_name_type_and_shape():
    state = {"a": torch.ones(2, 3, dtype=torch.bfloat16), "b": torch.tensor(3), "empty": torch.ones(0)}
    same = {name: state[name].clone() for name in reversed(state)}
    assert digest(state) == digest(same)
    zero = {"w": torch.tensor([0.0])}
    others = [
        {"w": torch.tensor([-0.0])},
        {"v": torch.tensor([0.0])},
        {"w": torch.tensor([[0.0]])},
        {"w": torch.tensor([0], dtype=torch.int32)},
        {},
    ]
    assert len({digest(other) for other in [zero, *others]}) == 6
    assert digest({"w": torch.arange(6).reshape(2, 3).T}) == digest({"w": torch.arange(6).reshape(2, 3).T.contiguous()})
