"""sleepkit's metrics as `evaluate.Metric` subclasses, usable offline (`evaluate.load` needs the network).

    AnswerContained   predictions, references: texts                 -> {"contained"}   share in [0, 1]
    TokenF1           predictions, references: texts                 -> {"token_f1"}    mean in [0, 1]
    BackwardTransfer  predictions: rows of an accuracy matrix        -> {"bwt"}
    ContinualSummary  predictions: rows of an accuracy matrix        -> `sleepkit.reporting.metrics.summary`

A reference may be a list of acceptable texts, of which the best counts, as in SQuAD.  The rows of a matrix are the
predictions, one night each, so a matrix can be added night by night; there are no references.  The formulas and their
sources are in `sleepkit.reporting.metrics` and `sleepkit.reporting.scores`; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import evaluate
import numpy.typing as npt
from datasets import Features, Value
from datasets import Sequence as SequenceFeature

from sleepkit.reporting import metrics
from sleepkit.reporting.scores import contained, token_f1

__all__ = ["AnswerContained", "BackwardTransfer", "ContinualSummary", "TokenF1"]

_SQUAD = """@article{rajpurkar2016squad, title={SQuAD: 100,000+ Questions for Machine Comprehension of Text},
author={Rajpurkar, Pranav and Zhang, Jian and Lopyrev, Konstantin and Liang, Percy}, journal={arXiv:1606.05250},
year={2016}}"""
_GEM = """@inproceedings{lopezpaz2017gem, title={Gradient Episodic Memory for Continual Learning},
author={Lopez-Paz, David and Ranzato, Marc'Aurelio}, booktitle={NeurIPS}, year={2017}}"""
_RWALK = """@inproceedings{chaudhry2018riemannian, title={Riemannian Walk for Incremental Learning},
author={Chaudhry, Arslan and Dokania, Puneet K. and Ajanthan, Thalaiyasingam and Torr, Philip H. S.},
booktitle={ECCV}, year={2018}}"""


class _TextMetric(evaluate.Metric):
    """Mean over the predictions of the best score against any reference."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation=_SQUAD,
            inputs_description="predictions: list of texts; references: list of texts, or of lists of texts",
            features=[
                Features({"predictions": Value("string"), "references": Value("string")}),
                Features({"predictions": Value("string"), "references": SequenceFeature(Value("string"))}),
            ],
        )

    @staticmethod
    def _mean_of_best(
        score: Callable[[str, str], float], predictions: Sequence[str], references: Sequence[str | list[str]]
    ) -> float:
        golds = [[gold] if isinstance(gold, str) else gold for gold in references]
        best = [max(score(text, gold) for gold in group) for text, group in zip(predictions, golds, strict=True)]
        return sum(best) / len(best)


class AnswerContained(_TextMetric):
    """Share of the predictions that contain a reference, by whole tokens after SQuAD normalisation."""

    def _compute(self, predictions: Sequence[str], references: Sequence[str | list[str]]) -> dict[str, float]:
        return {"contained": self._mean_of_best(contained, predictions, references)}


class TokenF1(_TextMetric):
    """Mean token F1 of SQuAD v1.1."""

    def _compute(self, predictions: Sequence[str], references: Sequence[str | list[str]]) -> dict[str, float]:
        return {"token_f1": self._mean_of_best(token_f1, predictions, references)}


class _MatrixMetric(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation=f"{_GEM}\n{_RWALK}",
            inputs_description="predictions: the rows of an accuracy matrix (nights, experiences), scores in [0, 1]",
            features=Features({"predictions": SequenceFeature(Value("float64"))}),
        )


class BackwardTransfer(_MatrixMetric):
    """Backward transfer of an accuracy matrix (Lopez-Paz & Ranzato 2017); NaN for a single night."""

    def _compute(self, predictions: npt.ArrayLike) -> dict[str, float]:
        return {"bwt": metrics.bwt(predictions)}


class ContinualSummary(_MatrixMetric):
    """All metrics of an accuracy matrix; `compute` takes ``baseline=`` and ``joint=`` rows too."""

    def _compute(
        self, predictions: npt.ArrayLike, baseline: npt.ArrayLike | None = None, joint: npt.ArrayLike | None = None
    ) -> dict[str, float]:
        return metrics.summary(predictions, baseline, joint)
