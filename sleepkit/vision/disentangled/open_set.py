"""Open-set scores: how unlike all known classes an image is, from its distances to the nearest ones, and how good a score is.

    ratio       d1 / d2          near 1 where two classes are as far
    residual    d1               what no exemplar explains
    knn         mean of d1 .. dk
    fusion      sum of (log score - mean) / std of ratio and residual, with mean and std of known classes' held-out images

    d1 <= d2 <= ...: square roots of the distances to the nearest classes (exemplars.py).  Higher is more novel.

Novel where ratio > sigma is the rule of "Infinite dSprites" (arXiv 2312.16731, section 4); `threshold` chooses sigma.
AUROC and AUPR take the novel images as the positives; FPR95 is the share of known images taken for novel where 95 % of the
novel ones are found; OSCR is the area under correct classification against false acceptance (Dhamija et al., NeurIPS 2018).
The fusion is ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sleepkit.errors import SleepkitError
from sleepkit.reporting import metrics

__all__ = ["Fusion", "aupr", "auroc", "fpr95", "novelty", "oscr", "threshold"]

Array = npt.NDArray[np.float64]
_FUSED = ("ratio", "residual")


def novelty(distances: Tensor) -> dict[str, Array]:
    """Ratio, residual and knn of images, each ``(N,)``, from squared ``distances`` ``(N, k)`` to the nearest classes, k >= 2.

    Raises `SleepkitError` for a single class, with which there is no ratio.
    """
    if distances.shape[1] < 2 or bool(distances[:, 1].isinf().any()):
        raise SleepkitError("open-set scores compare the two nearest classes and there is one; keep exemplars of at least 2")
    d = distances.double().sqrt()
    ratio = d[:, 0] / d[:, 1].clamp(min=1e-12)
    knn = torch.where(d.isfinite(), d, torch.nan).nanmean(1)
    return {name: values.numpy() for name, values in (("ratio", ratio), ("residual", d[:, 0]), ("knn", knn))}


class Fusion:
    """The fused score; what is usual is learned from the scores of known classes' held-out images."""

    def __init__(self, known: Mapping[str, Array]) -> None:
        logs = {name: np.log(known[name] + 1e-6) for name in _FUSED}
        self.usual = {name: (values.mean(), values.std() + 1e-6) for name, values in logs.items()}

    def __call__(self, scores: Mapping[str, Array]) -> Array:
        """Return the novelty ``(N,)`` of images, from their scores."""
        parts = [(np.log(scores[name] + 1e-6) - mean) / std for name, (mean, std) in self.usual.items()]
        return np.sum(parts, axis=0)


def threshold(known: Array, accepted: float = 0.95) -> float:
    """Sigma: the score below which this share of known classes' held-out images lies."""
    if not 0 < accepted < 1:
        raise SleepkitError(f"accepted is {accepted:g}; give a share between 0 and 1")
    return float(np.quantile(known, accepted))


def auroc(known: Array, novel: Array) -> float:
    """Chance that a novel image scores above a known one; ties count one half."""
    _check(known, novel)
    return metrics.auroc(novel, known)


def aupr(known: Array, novel: Array) -> float:
    """Average precision of finding the novel images."""
    _check(known, novel)
    scores = np.concatenate([novel, known])
    positive = np.concatenate([np.ones(len(novel)), np.zeros(len(known))])
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of each group of equal scores
    found = positive.cumsum()[last]
    precision, recall = found / (last + 1), found / len(novel)
    return float((np.diff(recall, prepend=0) * precision).sum())


def fpr95(known: Array, novel: Array) -> float:
    """Share of known images at or above the score that 95 % of the novel ones reach."""
    _check(known, novel)
    return float((known >= np.quantile(novel, 0.05, method="lower")).mean())


def oscr(known: Array, correct: npt.NDArray[np.bool_], novel: Array) -> float:
    """Area under the share of known images that are accepted and classified rightly, over the share of novel ones accepted."""
    _check(known, novel)
    cuts = np.unique(np.concatenate([known, novel]))
    right, accepted = np.sort(known[correct]), np.sort(novel)
    rightly = np.concatenate([[0.0], np.searchsorted(right, cuts, "right") / len(known)])
    falsely = np.concatenate([[0.0], np.searchsorted(accepted, cuts, "right") / len(novel)])
    return float((np.diff(falsely) * (rightly[1:] + rightly[:-1]) / 2).sum())


def _check(known: Array, novel: Array) -> None:
    if not len(known) or not len(novel):
        raise SleepkitError(f"there are {len(known)} known and {len(novel)} novel images; give at least one of each")
