"""When dreams stop: scores, collapse, the oracle, and which dream a new class takes over."""

from importlib.util import find_spec

import pytest
import torch

from sleepkit.vision.dream2learn.assignment import assign, hit_shares
from sleepkit.vision.dream2learn.oracle import FEATURES, DreamFeatures, Oracle, collapse, describe, score, spread, stop_labels


def sight(offset=0.0, scale=1.0, share=(0.5, 0.5), m=8, seed=0):
    features = scale * torch.randn(m, 4, generator=torch.Generator().manual_seed(seed)) + offset
    return DreamFeatures(features, torch.tensor(share).expand(m, -1))


def test_a_score_asks_for_novelty_coherence_and_diversity():
    first = sight()
    moved = score(first, sight(offset=2.0))
    assert moved == pytest.approx(0.5, abs=1e-3)  # all moved together, none is certain
    assert score(first, sight(offset=2.0, share=(0.99, 0.01))) == pytest.approx(0.01, abs=1e-3)
    assert score(first, sight(seed=1)) < 0.5 * moved  # moved, but each elsewhere
    alike = DreamFeatures(first.features.mean(0) + 0.1 * (first.features - first.features.mean(0)) + 5, first.probabilities)
    assert score(first, alike) == pytest.approx(0.1 * moved, rel=0.2)
    assert score(first, first) == 0


def test_what_the_oracle_sees_is_the_same_for_features_of_any_scale():
    own, other = torch.ones(4), -torch.ones(4)
    first, now = sight(), sight(offset=1.0, share=(0.8, 0.2))
    one = describe(first, now, 0, own, other, 0.5)
    assert one.shape == (FEATURES,) and one[0] == pytest.approx(0.8) and one[-1] == 0.5
    ten = [DreamFeatures(10 * each.features, each.probabilities) for each in (first, now)]
    torch.testing.assert_close(describe(*ten, 0, 10 * own, 10 * other, 0.5), one)


def test_collapse():
    first, own = sight(), torch.full((4,), 9.0)
    assert collapse(first, first, own, 1.0) == (False, False)
    assert collapse(first, sight(share=(0.95, 0.05)), own, 1.0) == (True, False)
    assert collapse(first, DreamFeatures(first.features + 9, first.probabilities), own, 3.0) == (True, False)
    assert collapse(first, DreamFeatures(0.4 * first.features, first.probabilities), own, 1.0) == (False, True)
    assert spread(first.features) > 0


def test_labels_stop_at_the_greatest_score_that_may_be():
    assert stop_labels(torch.tensor([0.9, 0.1, 0.3, 0.2]), 1).tolist() == [0, 0, 1, 1]
    assert stop_labels(torch.tensor([0.9, 0.1]), 2).tolist() == [0, 1]


def test_an_oracle_learns_when_to_stop():
    torch.manual_seed(0)
    described = torch.rand(400, FEATURES)
    labels = (described[:, 0] + described[:, 5] > 1.1).float()
    oracle = Oracle.trained(described[:300], labels[:300], seed=1)
    found = (oracle(described[300:]) >= 0.5).float()
    assert (found == labels[300:]).float().mean() > 0.93
    again = Oracle()
    again.load_state_dict(Oracle.trained(described[:300], labels[:300], seed=1).state_dict())
    assert torch.equal(again(described), oracle(described)) and not oracle.layers[0].weight.requires_grad


def test_shares_of_hits():
    logits = torch.tensor([[3.0, 0, 0], [2, 0, 1], [0, 1, 0], [0, 0, 1]])
    shares = hit_shares(logits, torch.tensor([5, 5, 2, 2]), [2, 5])
    assert shares.tolist() == [[0, 0.5, 0.5], [1, 0, 0]]


def test_assignment_is_one_to_one():
    shares = torch.tensor([[0.6, 0.4, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert assign(shares, "greedy") == {0: 0}  # the second class has no hit that is left
    if find_spec("scipy"):
        assert assign(shares, "hungarian") == {0: 1, 1: 0}
    assert assign(shares, "none") == {} == assign(torch.zeros(2, 0), "greedy")
