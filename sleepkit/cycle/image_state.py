"""What a cycle on images has lived through: two accuracies for each experience instead of answers, and the metrics of both.

    score      {class_il, task_il, probe, n}      accuracies on n held-out images; see vision/learner.py

The accuracy matrix of a run is that of its scenario: class_il, or task_il in the task scenario; in a domain stream the two are
one, `domain_il`.  The other one and that of the probe are in `matrices`.  `bwt`, `forgetting`, ... are of the scenario's matrix,
`task_il_bwt`, ... of the named one.  An experience whose classes were not met yet has no accuracy; its probe has one, so
that `fwt_probe` compares each backbone just before an experience with the backbone before any.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from sleepkit.cycle.state import CycleState, Score
from sleepkit.reporting import metrics

__all__ = ["ImageState"]

PARTS = ("bwt", "forgetting", "aia")
SUMS = ("train_flops", "train_seconds", "cpu_seconds", "unet_calls", "dream_flops")
MEANS = (
    *("stop_updates", "stopped_early", "became_target", "became_alike", "collapse_rate", "collapse_rate_at_end"),
    *("dreams_recognised", "dreams_of_future", "dreams_of_seen"),
)
LAST = ("bytes", "faa_all_units", "dreams", "dream_fidelity", "dream_diversity", "judge_accuracy")
GREATEST = ("sleep_change", "extractor_change")


@dataclass
class ImageState(CycleState):
    """Keep the two accuracies of each image experience after each night, and compute the metrics of the run from both."""

    in_context_too: ClassVar[bool] = False

    @staticmethod
    def score(found: Any) -> Score:
        """The accuracies; NaN becomes None in JSON."""
        return {"class_il": found.class_il, "task_il": found.task_il, "probe": found.probe, "n": found.n}

    @staticmethod
    def asked(experiences: Sequence[Any]) -> str:
        """Return in words how many test images the experiences have together."""
        return f"{sum(len(experience.test) for experience in experiences)} test images"

    @property
    def names(self) -> dict[str, str]:
        """Name of each matrix -> its column in the scores, the main one first."""
        scenario = self.run["config"]["scenario"]
        if scenario == "domain":
            return {"domain_il": "class_il"}
        order = ("task_il", "class_il") if scenario == "task" else ("class_il", "task_il")
        return {name: name for name in order}

    def own_scores(self, night: int) -> dict[str, float | None]:
        """Means over the experiences met so far."""
        return {name: metrics.faa(cast(Any, self._matrix(column))) for name, column in self.names.items()}

    def start_scores(self) -> dict[str, float]:
        """Return no scores: a classifier without classes has none before its first night."""
        return {}

    def accuracy_matrix(self) -> list[list[float | None]]:
        """``(nights, experiences)`` of the scenario."""
        return self._matrix(next(iter(self.names.values())))

    def matrices(self) -> dict[str, list[list[float | None]]]:
        """Return the accuracy matrices beside the main one, by name: that of the other scenario and that of the probe."""
        found = {name: self._matrix(column) for name, column in list(self.names.items())[1:]}
        if self._probes():
            found["probe"] = self._matrix("probe")
        return found

    def metrics(self) -> dict[str, float]:
        """Everything that the finished nights define, by name."""
        if not self.matrix:
            return {}
        main = next(iter(self.names))
        found: dict[str, float | None] = {}
        for name, column in self.names.items():
            baseline = [_value(score, column) for score in self.before]
            summary = metrics.summary(cast(Any, self._matrix(column)), cast(Any, baseline))
            found[name] = summary["faa"]
            if name == main:
                summary["retention_first"] = summary.pop("retention", float("nan"))
                found |= {key: value for key, value in summary.items() if value == value}
            else:
                found |= {f"{name}_{part}": summary[part] for part in PARTS if part in summary}
        if self._probes():
            start = [_value(score, "probe") for score in self.before]
            found["fwt_probe"] = metrics.fwt(cast(Any, self._matrix("probe")), cast(Any, start))
        found["nights_committed"] = sum(bool(night["committed"]) for night in self.nights)
        found["seconds_per_night"] = statistics.fmean(night["seconds"] for night in self.nights)
        found |= {name: self.nights[-1].get(name) for name in LAST}
        for name in ("assigned", "assigned_task_il"):
            placed = [night[name] for night in self.nights[1:] if night.get(name) is not None]
            if placed and main != "domain_il":
                found[f"fwt_{name}"] = statistics.fmean(placed)  # without units, before any night, the score is 0
        for name in MEANS:
            values = [night[name] for night in self.nights if night.get(name) is not None]
            found |= {name: statistics.fmean(values)} if values else {}
        found |= {name: max(night[name] for night in self.nights) for name in GREATEST if name in self.nights[0]}
        found |= {name: sum(night[name] for night in self.nights) for name in SUMS if all(name in night for night in self.nights)}
        return {name: value for name, value in found.items() if value is not None and value == value}

    def answers(self, experiences: Sequence[Any]) -> list[dict[str, Any]]:
        """Return None: images are not asked questions."""
        return []

    def _matrix(self, column: str) -> list[list[float | None]]:
        return self.padded([[_value(score, column) for score in row] for row in self.matrix])

    def _probes(self) -> bool:
        return any(_value(score, "probe") is not None for score in self.before)


def _value(score: Score | None, column: str) -> float | None:
    value = score[column] if score else None
    return None if value is None or value != value else value
