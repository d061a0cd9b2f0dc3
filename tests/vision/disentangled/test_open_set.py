"""Open-set scores and the areas under their curves, against their definitions."""

import numpy as np
import pytest
import torch

from sleepkit.errors import SleepkitError
from sleepkit.vision.disentangled.open_set import Fusion, aupr, auroc, fpr95, novelty, oscr, threshold

RNG = np.random.default_rng(0)
KNOWN, NOVEL = RNG.integers(0, 12, 60).astype(float), RNG.integers(4, 20, 40).astype(float)


def test_areas_against_their_definitions():
    known, novel = KNOWN, NOVEL
    pairs = [(high > low) + 0.5 * (high == low) for high in novel for low in known]
    assert auroc(known, novel) == pytest.approx(np.mean(pairs))
    total, before = 0.0, 0.0
    for cut in sorted(set(np.concatenate([known, novel])), reverse=True):
        found, wrong = (novel >= cut).sum(), (known >= cut).sum()
        total += (found / len(novel) - before) * found / (found + wrong)
        before = found / len(novel)
    assert aupr(known, novel) == pytest.approx(total)
    cut = max(c for c in novel if (novel >= c).mean() >= 0.95)
    assert fpr95(known, novel) == pytest.approx((known >= cut).mean())


def test_the_best_and_the_worst():
    low, high = np.arange(10.0), np.arange(10.0) + 20
    right = np.ones(10, dtype=bool)
    assert auroc(low, high) == aupr(low, high) == oscr(low, right, high) == 1 and fpr95(low, high) == 0
    assert auroc(high, low) == oscr(high, right, low) == 0 and fpr95(high, low) == 1
    assert auroc(low, low) == 0.5
    assert oscr(low, right & (np.arange(10) < 5), high) == pytest.approx(0.5)  # who is wrong is not counted
    correct = RNG.random(60) < 0.7
    assert oscr(KNOWN, correct, NOVEL) <= auroc(KNOWN, NOVEL) == pytest.approx(oscr(KNOWN, correct | True, NOVEL))


def test_scores_of_distances():
    found = novelty(torch.tensor([[1.0, 4.0, 9.0], [4.0, 4.0, torch.inf]]))
    assert found["ratio"].tolist() == [0.5, 1] and found["residual"].tolist() == [1, 2] and found["knn"].tolist() == [2, 2]
    with pytest.raises(SleepkitError, match="keep exemplars of at least 2"):
        novelty(torch.tensor([[1.0, torch.inf]]))


def test_the_fusion_takes_both_scores():
    known = {"ratio": RNG.uniform(0.2, 0.8, 500), "residual": RNG.uniform(0.2, 0.8, 500)}
    one = {"ratio": RNG.uniform(0.4, 1.0, 500), "residual": RNG.uniform(0.4, 1.0, 500)}
    fused = Fusion(known)
    assert abs(fused(known).mean()) < 1e-9
    assert auroc(fused(known), fused(one)) > max(auroc(known[name], one[name]) for name in known)


def test_sigma():
    scores = np.linspace(0, 1, 101)
    assert threshold(scores) == pytest.approx(0.95)
    with pytest.raises(SleepkitError, match="accepted is 1; give a share between 0 and 1"):
        threshold(scores, 1.0)
    with pytest.raises(SleepkitError, match="0 known and 101 novel"):
        auroc(scores[:0], scores)
