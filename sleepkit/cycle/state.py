"""What a cycle has lived through so far: scores, verdicts and logs, as one JSON file, and the metrics made of them.

    <state>/cycle.json    this, in a folder of its own with the learner's files (cycle.py)
    before[j]      closed book on experience j before it was slept on  matrix[i][j]   after night i + 1
    in_context[j]  with the documents in the prompt (ceiling)          after[j]       after its own night, j + 1
                                                                       final[j]       after the last night so far

A score is ``{contained, token_f1, n, answers}``: two shares in [0, 1] over ``n`` questions, and an answer for each (the
matrix is without them); an experience without questions has None, and so has one that was not there yet or is replaced.
What is asked otherwise (images: image_state.py) is a subclass that says what its scores and metrics are.  All metrics pool
questions, so that an experience weighs as much as it has questions::

    recovery        (after - before) / (in_context - before)      each experience right after its own night
    recovery_final  (final - before) / (in_context - before)      all experiences after the last night
    self_test       share of the model's own questions that were not trained on: the only measure where nobody gave questions

Left out: running a cycle (cycle.py).
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

from sleepkit.errors import SleepkitError
from sleepkit.reporting import metrics
from sleepkit.reporting.results import in_model
from sleepkit.reporting.scripts import apart
from sleepkit.utils.files import read_json, write_json

__all__ = ["CycleState", "Score"]

FILE_NAME = "cycle.json"
Score = dict[str, Any]


@dataclass
class CycleState:
    """The state of a cycle between two nights; fields as in the module.

    Attributes:
        run: identity of the run: method, seed, config, and digests of what the config only names.
        days: rows ``{first_night, date, config}``, one for each day that brought experiences or other settings.
        experiences: name and digest of each, in the order of their nights.
        replaced: index of an experience -> index of the later one that replaces it.
        self_tests: rows ``{night, committed, question, gold, before, after, right_before, right_after}``: questions of the
            model's own that were not trained on.
        anchors: measures of the unslept model on the retention set.
        nights: one row per night, as in `results.json`.
        history: rows of the training logs, with their night.
        seconds: time that the run has taken, over all its sessions.
    """

    in_context_too: ClassVar[bool] = True  # whether there is a ceiling with the documents in the prompt

    run: dict[str, Any]
    days: list[dict[str, Any]] = field(default_factory=list)
    experiences: list[dict[str, str]] = field(default_factory=list)
    replaced: dict[int, int] = field(default_factory=dict)
    self_tests: list[dict[str, Any]] = field(default_factory=list)
    before: list[Score | None] = field(default_factory=list)
    in_context: list[Score | None] = field(default_factory=list)
    after: list[Score | None] = field(default_factory=list)
    final: list[Score | None] = field(default_factory=list)
    matrix: list[list[Score | None]] = field(default_factory=list)
    anchors: dict[str, float] = field(default_factory=dict)
    nights: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def save(self, folder: Path) -> None:
        """Write the state into ``folder``, atomically."""
        write_json(folder / FILE_NAME, self)

    @classmethod
    def load(cls, folder: Path) -> CycleState:
        """The state that a folder holds.  Raises `SleepkitError` if another version wrote it."""
        path = folder / FILE_NAME
        data = read_json(path)
        names = {item.name for item in dataclasses.fields(cls)}
        if not isinstance(data, dict) or set(data) != names:
            raise SleepkitError(f"{path} is of another version; start anew with --overwrite true")
        data["replaced"] = {int(old): new for old, new in data["replaced"].items()}
        return cls(**data)

    def require_run(self, run: Mapping[str, Any], output_dir: Path, changeable: Container[str] = ()) -> None:
        """Raise `SleepkitError`, naming the first difference, unless this is the state of ``run``.

        Args:
            changeable: settings (fields of ``config``) that may differ.
        """
        theirs, ours = _flat(self.run), _flat(run)
        for name in sorted({*theirs, *ours}):
            if theirs.get(name) != ours.get(name) and name.removeprefix("config.") not in changeable:
                raise SleepkitError(
                    f"{output_dir} belongs to another run ({name} is {theirs.get(name)!r:.60} there and "
                    f"{ours.get(name)!r:.60} here); choose another output_dir, or start anew with --overwrite true"
                )

    @staticmethod
    def score(found: Any) -> Score:
        """A learner's evaluation of one experience as JSON."""
        shares = {"contained": float(found.contained), "token_f1": float(found.token_f1)}
        return {**shares, "n": int(found.n), "answers": list(found.answers)}

    @staticmethod
    def asked(experiences: Sequence[Any]) -> str:
        """How much is asked in an evaluation, for the first line of a run."""
        return f"{sum(len(experience.questions) for experience in experiences)} questions"

    def own_scores(self, night: int) -> dict[str, float | None]:
        """Return the scores that the row of a night holds about its own experience, and that the run prints."""
        j = night - 1
        own, before, ceiling = (scores[j] for scores in (self.final, self.before, self.in_context))
        if not (own and before and ceiling):
            return {}
        after = own["contained"]
        return {"closed_book": after, "recovery": metrics.recovery(before["contained"], ceiling["contained"], after)}

    def start_scores(self) -> dict[str, float]:
        """Return the scores that the run prints before the first night."""
        return {name: value for name, value in self.metrics().items() if name in ("closed_book_before", "in_context")}

    def matrices(self) -> dict[str, list[list[float | None]]]:
        """Further matrices than `accuracy_matrix`, by name."""
        return {}

    def accuracy_matrix(self) -> list[list[float | None]]:
        """``(nights, experiences)`` shares of questions whose gold answer is contained; None without questions."""
        return self.padded([[score["contained"] if score else None for score in row] for row in self.matrix])

    def padded(self, matrix: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
        """Rows of nights before some experiences were there, as long as the others."""
        return [[*row, *[None] * (len(self.experiences) - len(row))] for row in matrix]

    def metrics(self) -> dict[str, float]:
        """Everything that the finished nights define, by name; see `report.METRICS` and the module."""
        found: dict[str, float | None] = {}
        for key, suffix in (("contained", ""), ("token_f1", "_f1")):
            before, ceiling = _pooled(self.before, key), _pooled(self.in_context, key)
            after, final = _pooled(self.after, key), _pooled(self.final, key)
            found[f"closed_book_before{suffix}"] = before
            found[f"in_context{suffix}"] = ceiling
            found[f"closed_book_after{suffix}"] = after
            found[f"closed_book_final{suffix}"] = final
            if before is not None and ceiling is not None and after is not None and final is not None:
                found[f"recovery{suffix}"] = metrics.recovery(before, ceiling, after)
                found[f"recovery_final{suffix}"] = metrics.recovery(before, ceiling, final)
        found["recovery_per_experience"] = _mean([night.get("recovery") for night in self.nights])
        found |= self._self_test_metrics()
        lasting = [j for j in range(len(self.matrix)) if self._is_asked(j)]
        if lasting:
            rows, scores = self.accuracy_matrix(), [score["contained"] if score else float("nan") for score in self.before]
            kept = [*lasting, *range(len(self.matrix), len(self.experiences))]  # what is replaced is not judged any more
            matrix, baseline = [[rows[i][j] for j in kept] for i in lasting], [scores[j] for j in kept]
            summary = metrics.summary(cast(Any, matrix), baseline)  # None counts as NaN there
            summary["retention_first"] = summary.pop("retention", float("nan"))
            found |= {name: value for name, value in summary.items() if value == value}
        found |= self._anchor_metrics()
        found["nights_committed"] = sum(map(in_model, self.nights))
        found["seconds_per_night"] = _mean([night["seconds"] for night in self.nights])
        found["coverage"] = _mean([night.get("coverage") for night in self.nights])
        found["train_tokens"] = sum(night.get("train_tokens") or 0 for night in self.nights) or None
        words = [len(apart(answer).split()) for score in self.after if score for answer in score["answers"]]
        found["answer_length_words"] = _mean(words)
        return {name: value for name, value in found.items() if value is not None}

    def _is_asked(self, j: int) -> bool:
        """Whether an experience is still judged after the last night: it is neither replaced nor forgotten."""
        forgotten = {night["night"] for night in self.nights if night.get("forgotten")}
        return self.replaced.get(j, len(self.matrix)) >= len(self.matrix) and j + 1 not in forgotten

    def forget(self, nights: Collection[int]) -> None:
        """Drop questions and answers about the experiences of some nights; the numbers of their time stay."""
        self.self_tests = [asked for asked in self.self_tests if asked["night"] not in nights]
        for night in nights:
            for scores in (self.before, self.in_context, self.after, self.final):
                scores[night - 1] = None

    def _self_test_metrics(self) -> dict[str, float | None]:
        """Share of the model's own questions, not trained on, that it answered before their night and after it."""
        asked = self.self_tests
        if not asked:
            return {}
        after = [row["right_after"] if row["committed"] else row["right_before"] for row in asked]  # what was undone is gone
        before = [row["right_before"] for row in asked]
        means = {"self_test_before": statistics.fmean(before), "self_test_after": statistics.fmean(after)}
        return {**means, "self_test_n": len(asked)}

    def _anchor_metrics(self) -> dict[str, float | None]:
        """Return the retention measures over the nights that were kept: highest and last KL, accuracy before and after."""
        kept = list(filter(in_model, self.nights))
        kls = [night["anchor_kl"] for night in kept if night.get("anchor_kl") is not None]
        accuracy = self.anchors.get("anchor_accuracy")
        measured = "anchor_kl" in self.anchors
        return {
            "anchor_kl": max(kls, default=0.0) if measured else None,
            "anchor_kl_final": (kls[-1] if kls else 0.0) if measured else None,
            "anchor_accuracy_before": accuracy,
            "anchor_accuracy_after": kept[-1].get("anchor_accuracy") if kept else accuracy,
        }

    def answers(self, experiences: Sequence[Any]) -> list[dict[str, Any]]:
        """Return one row for each question: the answers before any night, after its own, at the end, and in context."""
        columns = {"before": self.before, "after": self.after, "final": self.final, "in_context": self.in_context}
        return [
            {"experience": experience.name, "question": question.question, "gold": question.answer}
            | {"kind": question.kind}
            | {name: score["answers"][k] for name, scores in columns.items() if (score := scores[j])}
            for j, experience in enumerate(experiences)
            for k, question in enumerate(experience.questions)
        ]


def _pooled(scores: Sequence[Score | None], key: str) -> float | None:
    """Mean over all questions; None where there is none."""
    measured = [score for score in scores if score]
    total = sum(score["n"] for score in measured)
    return sum(score[key] * score["n"] for score in measured) / total if total else None


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.fmean(present) if present else None


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested mappings as one: ``{"config": {"alpha": 1}}`` -> ``{"config.alpha": 1}``."""
    if not isinstance(value, Mapping):
        return {name: value}
    parts: dict[str, Any] = {}
    for key, item in value.items():
        parts |= _flat(item, f"{name}.{key}" if name else key)
    return parts
