"""Metrics of continual learning, computed from one accuracy matrix.

``A`` is ``(nights, experiences)``: ``A[i, j]`` is the score on experience ``j`` after night ``i``, in [0, 1], NaN
where it was not measured.  Experience ``j`` is learned in night ``j``, so the diagonal is "just learned", below it
"later", above it "not met yet".  With ``T`` nights, the last row is ``A[T-1]``; the averages run over the experiences
learned by then::

    FAA            mean_j        A[T-1, j]                          final average accuracy
    AIA            mean_i        mean_{j<=i} A[i, j]                average incremental accuracy
    BWT            mean_{j<T-1}  A[T-1, j] - A[j, j]                below 0: later nights hurt
    forgetting     mean_{j<T-1}  max_{i<T-1} A[i, j] - A[T-1, j]    drop from the best night
    FWT            mean_{j>=1}   A[j-1, j] - baseline[j]            raw: nights helped what was not met yet
    intransigence  mean_j        joint[j] - A[j, j]                 what learning one by one costs
    retention_j                  A[T-1, j] / A[j, j]                share of the first-night score that is left
    recovery       (after - before) / (in_context - before)         share of the in-context gain in the weights

Sources: BWT and FWT: Lopez-Paz & Ranzato 2017 ("Gradient Episodic Memory", arXiv 1706.08840, section 2); forgetting and
intransigence: Chaudhry et al. 2018 ("Riemannian Walk", arXiv 1801.10112, section 3); AIA: Rebuffi et al. 2017 (iCaRL,
arXiv 1611.07725) and, as "average accuracy" over the stream, De Lange et al. 2022 ("A continual learning survey",
arXiv 1909.08383).

Ours: retention and recovery; intransigence is averaged over the experiences (Chaudhry et al. report it for one task);
a matrix with more nights than experiences, or fewer, is allowed.  A score that a formula needs and that was not
measured makes the result NaN: nothing is averaged away silently.  Left out: anytime metrics, which need scores inside
a night.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sleepkit.errors import SleepkitError

__all__ = [
    "accuracy_of_nights",
    "aia",
    "as_accuracy_matrix",
    "auroc",
    "bwt",
    "faa",
    "forgetting",
    "fwt",
    "intransigence",
    "mean_interval",
    "recovery",
    "retention",
    "retention_per_experience",
    "summary",
]

Array = npt.NDArray[np.float64]


def as_accuracy_matrix(matrix: npt.ArrayLike) -> Array:
    """Check an accuracy matrix and return it as float64 ``(nights, experiences)``; ``None`` entries become NaN.

    Raises `SleepkitError` if it is empty, ragged or not two-dimensional, or if a score is outside [0, 1].
    """
    return _scores(matrix, "accuracy matrix", dimensions=2)


def faa(matrix: npt.ArrayLike) -> float:
    """Final average accuracy: mean of the last row over the experiences learned, in [0, 1]."""
    a = as_accuracy_matrix(matrix)
    return _mean(a[-1, : _learned(a)])


def aia(matrix: npt.ArrayLike) -> float:
    """Average incremental accuracy, in [0, 1]: mean over the nights of the mean score on what was learned so far.

    Rebuffi et al. 2017; De Lange et al. 2022.
    """
    return _mean(accuracy_of_nights(matrix))


def accuracy_of_nights(matrix: npt.ArrayLike) -> Array:
    """``(nights,)``: the mean score on what was learned so far, after each night."""
    a = as_accuracy_matrix(matrix)
    return np.array([a[i, : i + 1].mean() for i in range(len(a))])


def bwt(matrix: npt.ArrayLike) -> float:
    """Backward transfer, in [-1, 1]: mean change since the night of learning (Lopez-Paz & Ranzato 2017).

    NaN after a single night.
    """
    a = as_accuracy_matrix(matrix)
    j = _earlier(a)
    return _mean(a[-1, j] - a[j, j])


def forgetting(matrix: npt.ArrayLike) -> float:
    """Forgetting, in [-1, 1]: mean drop from the best score of any earlier night (Chaudhry et al. 2018, section 3).

    The maximum runs over the measured nights before the last one, those before the experience was met included, as in
    the paper.  Below 0 when the last night is the best.  NaN after a single night.
    """
    a = as_accuracy_matrix(matrix)
    j = _earlier(a)
    best = np.fmax.reduce(a[:-1, j], axis=0) if len(j) else np.empty(0)  # fmax: NaN only where no night was measured
    return _mean(best - a[-1, j])


def fwt(matrix: npt.ArrayLike, baseline: npt.ArrayLike) -> float:
    """Raw forward transfer, in [-1, 1]: mean of ``A[j-1, j] - baseline[j]`` (Lopez-Paz & Ranzato 2017).

    ``baseline`` is ``(experiences,)``: the scores before any night.  NaN if the scores above the diagonal were not
    measured, or with a single experience.
    """
    a = as_accuracy_matrix(matrix)
    row = _row(a, baseline, "baseline")
    j = np.arange(1, min(len(a) + 1, a.shape[1]))
    return _mean(a[j - 1, j] - row[j])


def intransigence(matrix: npt.ArrayLike, joint: npt.ArrayLike) -> float:
    """Intransigence, in [-1, 1]: mean of ``joint[j] - A[j, j]`` over the experiences learned (Chaudhry et al. 2018).

    ``joint`` is ``(experiences,)``: the scores of a model that learned all experiences at once.  Ours: the mean over
    the experiences; the paper gives it for one task.
    """
    a = as_accuracy_matrix(matrix)
    row = _row(a, joint, "joint")
    j = np.arange(_learned(a))
    return _mean(row[j] - a[j, j])


def retention_per_experience(matrix: npt.ArrayLike) -> Array:
    """``A[T-1, j] / A[j, j]`` for each experience learned, ``(learned,)``, >= 0; NaN where that score was 0."""
    a = as_accuracy_matrix(matrix)
    j = np.arange(_learned(a))
    first = a[j, j]
    return np.divide(a[-1, j], first, out=np.full(len(j), np.nan), where=first > 0)


def retention(matrix: npt.ArrayLike) -> float:
    """Share of the first experience's first-night score that is left after the last night; may exceed 1."""
    return float(retention_per_experience(matrix)[0])


def recovery(before: npt.ArrayLike, in_context: npt.ArrayLike, after: npt.ArrayLike) -> float | None:
    """Return the share of the gain of having the text in context that the weights now give without it.

    Args:
        before, in_context, after: a score from 0 to 1, or scores of each question, which are pooled into one mean: a ratio of
            means, not a mean of ratios, so that questions which the context does not help cannot blow it up.

    Returns:
        ``(after - before) / (in_context - before)``, or None where the context did not help.
    """
    low, high, reached = _pooled(before, "before"), _pooled(in_context, "in_context"), _pooled(after, "after")
    return (reached - low) / (high - low) if high > low else None


def summary(matrix: npt.ArrayLike, baseline: npt.ArrayLike | None = None, joint: npt.ArrayLike | None = None) -> dict[str, float]:
    """Return all metrics that an accuracy matrix defines, by name.

    A metric that is not defined (one night has no backward transfer) is left out rather than given as NaN, which is not JSON.

    Args:
        matrix: ``(nights, experiences)``, accuracies from 0 to 1.
        baseline: scores before any night, which add ``fwt``.
        joint: scores of joint training, which add ``intransigence``.
    """
    per_experience = retention_per_experience(matrix)
    values = {
        "faa": faa(matrix),
        "aia": aia(matrix),
        "bwt": bwt(matrix),
        "forgetting": forgetting(matrix),
        "retention": float(per_experience[0]),
        "retention_mean": _mean(per_experience),
    }
    if baseline is not None:
        values["fwt"] = fwt(matrix, baseline)
    if joint is not None:
        values["intransigence"] = intransigence(matrix, joint)
    return {name: value for name, value in values.items() if not np.isnan(value)}


def auroc(positives: npt.ArrayLike, negatives: npt.ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative; ties count half.  NaN without both."""
    values = [np.asarray(given, dtype=np.float64) for given in (positives, negatives)]
    n, m = map(len, values)
    if not n or not m:
        return float("nan")
    _, inverse, counts = np.unique(np.concatenate(values), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # from 1, the mean of ties
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


def mean_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and half the width of its 95 % interval ``t(n - 1) s / sqrt(n)``; None where there are too few values."""
    n = len(values)
    mean = sum(values) / n if n else None
    if n < 2:
        return mean, None
    quantile = _T95[n - 2] if n - 2 < len(_T95) else 1.96
    return mean, quantile * float(np.std(values, ddof=1)) / n**0.5


def _learned(a: Array) -> int:
    """Number of experiences that have had their night."""
    return min(a.shape)


def _earlier(a: Array) -> npt.NDArray[np.int64]:
    """Indices of the experiences learned before the last night."""
    return np.arange(min(len(a) - 1, a.shape[1]))


def _mean(values: Array) -> float:
    """Mean, NaN (without numpy's warning) of nothing."""
    return float(values.mean()) if values.size else float("nan")


def _pooled(scores: npt.ArrayLike, name: str) -> float:
    mean = _mean(_scores(scores, name))
    if np.isnan(mean):
        raise SleepkitError(f"{name} contains NaN; recovery compares the same questions three times, so score each of them")
    return mean


def _row(a: Array, row: npt.ArrayLike, name: str) -> Array:
    values = _scores(row, name, dimensions=1)
    if len(values) != a.shape[1]:
        raise SleepkitError(f"{name} has {len(values)} scores for {a.shape[1]} experiences; give one score for each")
    return values


def _scores(values: npt.ArrayLike, name: str, dimensions: int | None = None) -> Array:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SleepkitError(f"{name} is not a rectangle of numbers ({error}); fill unmeasured entries with NaN") from None
    if array.size == 0 or dimensions not in (None, array.ndim):
        wanted = "scores" if dimensions is None else f"{dimensions} dimension{'s' * (dimensions > 1)}"
        raise SleepkitError(f"{name} has shape {array.shape}; it needs at least one score and {wanted}")
    bad = array[~(np.isnan(array) | ((array >= 0) & (array <= 1)))]
    if bad.size:
        raise SleepkitError(f"{name} contains {bad[0]:g}; scores are shares from 0 to 1 (divide percentages by 100)")
    return array
