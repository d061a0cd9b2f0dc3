"""The `evaluate` classes compute what the plain functions compute, without `evaluate.load`."""

import numpy as np
import pytest

from sleepkit.reporting import metrics
from sleepkit.reporting.evaluate_metrics import AnswerContained, BackwardTransfer, ContinualSummary, TokenF1

A = [[0.8, float("nan")], [0.6, 0.9]]


def test_matrix_metrics(tmp_path):
    assert BackwardTransfer(cache_dir=str(tmp_path)).compute(predictions=A) == pytest.approx({"bwt": -0.2})
    metric = ContinualSummary(cache_dir=str(tmp_path))
    assert metric.compute(predictions=np.array(A)) == pytest.approx(metrics.summary(A))
    full, row = [[0.8, 0.1], [0.6, 0.9]], [0.0, 0.0]
    assert metric.compute(predictions=full, baseline=row, joint=row) == pytest.approx(metrics.summary(full, row, row))


def test_night_by_night(tmp_path):
    metric = ContinualSummary(cache_dir=str(tmp_path))
    for row in ([0.8, None], [0.6, 0.9]):
        metric.add(prediction=row)
    assert metric.compute() == pytest.approx(metrics.summary(A))


def test_text_metrics(tmp_path):
    predictions, references = ["It is the Eiffel Tower.", "no"], ["Eiffel tower", "yes"]
    contained, f1 = AnswerContained(cache_dir=str(tmp_path)), TokenF1(cache_dir=str(tmp_path))
    assert contained.compute(predictions=predictions, references=references) == {"contained": 0.5}
    assert f1.compute(predictions=predictions, references=references) == pytest.approx({"token_f1": (4 / 6) / 2})
    several = [["Paris", "the Eiffel tower"], ["yes", "no"]]
    assert contained.compute(predictions=predictions, references=several) == {"contained": 1.0}
    assert f1.compute(predictions=predictions, references=several) == pytest.approx({"token_f1": (4 / 6 + 1) / 2})
