"""When to stop a dream: a small network looks at how a classifier's features of the dreamt images have moved.

    Z_k      (m, hidden)    features of a prompt's m images after k updates
    u_k      (FEATURES,)    what `describe` makes of Z_0 and Z_k: ratios, cosines and shares, the same for any classifier
    score    novelty x coherence x diversity, each from 0 to 1
               novelty     1 - greatest mean probability of a seen class
               coherence   |mean_i (Z_k,i - Z_0,i)| / mean_i |Z_k,i - Z_0,i|       whether the images moved together
               diversity   min(1, spread of Z_k / spread of Z_0)
    label    1 from the update on where the score of a full trajectory is greatest
    oracle   MLP(u_k) -> probability of "stop", trained on all full trajectories of the first night

A dream has collapsed where it has become its target (mean greatest probability of a class `CERTAIN`, or nearer to the
target's prototype than 95 % of its images) or its images have become alike (spread below `ALIKE` of that of Z_0).

Source: that an oracle on classifier features stops each dream is Dream2Learn's (arXiv 2603.01935); what it sees, how it is
labelled and built is not public.  Ours: all of the above.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FEATURES", "Oracle", "DreamFeatures", "collapse", "describe", "score", "stop_labels"]

FEATURES = 8
HIDDEN = 16
CERTAIN, ALIKE, NEARER_THAN = 0.9, 0.5, 0.05
EPOCHS, LEARNING_RATE = 400, 0.02


class DreamFeatures(NamedTuple):
    """What the classifier sees of a prompt's images: features ``(m, hidden)``, probabilities of seen classes ``(m, classes)``."""

    features: Tensor
    probabilities: Tensor


def describe(first: DreamFeatures, now: DreamFeatures, target: int, own: Tensor, other: Tensor, progress: float) -> Tensor:
    """Return the numbers ``(FEATURES,)`` by which the oracle judges a prompt.

    Args:
        first, now: before any update and after some.
        target: place of the target among the seen classes.
        own, other: prototypes ``(hidden,)`` of the target and of the class that the images start from.
        progress: updates made / most updates.
    """
    mean, start = now.features.mean(0), first.features.mean(0)
    share = now.probabilities.mean(0)
    entropy = -(share * share.clamp(min=1e-9).log()).sum() / max(share.numel(), 2) ** 0.5
    values = [
        share[target],
        now.probabilities.max(1).values.mean(),
        entropy,
        F.cosine_similarity(mean, own, dim=0),
        F.cosine_similarity(mean, other, dim=0),
        (mean - start).norm() / (own - other).norm().clamp(min=1e-9),
        spread(now.features) / spread(first.features).clamp(min=1e-9),
        torch.tensor(progress),
    ]
    return torch.stack([value.cpu().float() for value in values])


def score(first: DreamFeatures, now: DreamFeatures) -> float:
    """Return novelty x coherence x diversity of a prompt's images, 0 to 1."""
    novelty = 1 - now.probabilities.mean(0).max()
    moved = now.features - first.features
    coherence = moved.mean(0).norm() / moved.norm(dim=1).mean().clamp(min=1e-9)
    diversity = (spread(now.features) / spread(first.features).clamp(min=1e-9)).clamp(max=1)
    return (novelty * coherence * diversity).item()


def collapse(first: DreamFeatures, now: DreamFeatures, own: Tensor, near: float) -> tuple[bool, bool]:
    """Whether the dream has become its target, and whether its images have become alike.

    Args:
        own: prototype of the target, ``(hidden,)``.
        near: distance from it that only 5 % of the target's images stay below.
    """
    certain = now.probabilities.max(1).values.mean() >= CERTAIN
    replay = (now.features - own).norm(dim=1).mean() < near
    alike = spread(now.features) < ALIKE * spread(first.features)
    return bool(certain | replay), bool(alike)


def spread(features: Tensor) -> Tensor:
    """Return the mean distance from the mean."""
    return (features - features.mean(0)).norm(dim=1).mean()


def stop_labels(scores: Tensor, first: int) -> Tensor:
    """``(updates,)`` 0 before the greatest score among those from ``first`` on, 1 from there on."""
    best = first + int(scores[first:].argmax()) if first < len(scores) else len(scores) - 1
    return (torch.arange(len(scores)) >= best).float()


class Oracle(nn.Module):
    """``(n, FEATURES)`` -> ``(n,)`` probability that a dream should stop here."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("std", torch.ones(FEATURES))
        self.layers = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))

    def forward(self, described: Tensor) -> Tensor:
        found: Tensor = self.layers((described - self.mean) / self.std).squeeze(-1).sigmoid()
        return found

    @classmethod
    def trained(cls, described: Tensor, labels: Tensor, seed: int) -> Oracle:
        """Fitted to rows of trajectories, ``(n, FEATURES)`` and ``(n,)``; both labels weigh the same."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            oracle = cls()
        oracle.mean, oracle.std = described.mean(0), described.std(0).clamp(min=1e-3)
        optimizer = torch.optim.AdamW(oracle.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
        ones = labels.mean().clamp(0.01, 0.99)
        weights = torch.where(labels > 0, 0.5 / ones, 0.5 / (1 - ones))
        for _ in range(EPOCHS):
            optimizer.zero_grad()
            F.binary_cross_entropy(oracle(described), labels, weight=weights).backward()
            optimizer.step()
        return oracle.eval().requires_grad_(False)
