"""The sleep cycle: wake, sleep, judge, keep or undo, evaluate; one night for each experience of a stream.

    for night t = 1..T:   learner.wake(experience t)                  into the fast memory
                          snapshot; learner.sleep(t)                  into the weights
                          measure anchors; gate                       commit, or restore the snapshot bit for bit
                          A[t-1, j] = closed book on experience j     all experiences, those not met yet included
                          write <output_dir>/state/                   one rename commits the night

Before the first night every experience is asked closed book (where the stream starts from) and, where there are documents,
with them in context (the ceiling).  The cycle knows nothing of language or vision; a learner is what `Learner` says, and
what a score is says the class of its state.

A run that is killed at any moment and started again equals one that was not: a finished night is read back, an
unfinished one is slept again from the same weights and the same seed, and `learner.sleep` continues its own phases.
The new learner state and then `cycle.json`, which names it, are each written aside and renamed; the older learner state
is deleted last.

With several processes all ranks run the same calls (sharded weights need that), rank 0 alone writes and decides.

Left out: the metrics (cycle_state.py, metrics.py), and what wake and sleep do.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, set_seed
from torch import Tensor

from sleepkit import report, results
from sleepkit.cycle_state import CycleState, Score, evenly
from sleepkit.errors import SleepkitError
from sleepkit.gate import RetentionGate, Verdict, digest
from sleepkit.ranks import main_only
from sleepkit.reporting import progress, tracking
from sleepkit.results import RunRecord

__all__ = ["Evaluation", "Experience", "Learner", "SleepCycle"]

EXAMPLES = 12
WRITTEN = ("state", "model", results.FILE_NAME, "answers.json", "report.md", "*.png", "night_*", "dreams", "pictures")


class Experience(Protocol):
    """What is learned in one night; `to_dict` is JSON that tells it from another."""

    @property
    def name(self) -> str: ...

    def to_dict(self) -> dict[str, Any]: ...


class Evaluation(Protocol):
    """Scores on ``n`` questions or images of one experience; which they are, `CycleState.score` reads."""

    n: int


E = TypeVar("E", bound=Experience, contravariant=True)


class Learner(Protocol[E]):
    """What sleeps.  All methods are called on all ranks; only the main process of a run may write."""

    def wake(self, experience: E) -> None:
        """Take an experience into the fast memory, in place of the one before."""

    def sleep(self, night: int, output_dir: Path) -> dict[str, Any]:
        """Consolidate the fast memory; ``night`` counts from 1.

        It keeps its phases in ``<output_dir>/night_<NN>`` and continues them there when called again.  Returns a log:
        ``history`` (rows ``{step, loss, ...}``) and numbers such as ``items`` and ``train_tokens``; and for the gate
        ``before`` and ``after``, each with any of ``held_out`` and ``retention`` (see gate.py).
        """

    def evaluate(self, experiences: Sequence[E], in_context: bool = False) -> Sequence[Evaluation]:
        """Test each experience, without its documents or with them in the prompt."""

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of all that a night changes in the model."""

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Undo everything since the snapshot, bit for bit."""

    def save(self, folder: Path) -> None:
        """Write all that later nights need; the main process writes, all take part."""

    def load(self, folder: Path) -> None:
        """The inverse of `save`.  Raises `SleepkitError` if the folder is damaged."""


class SleepCycle(Generic[E]):
    """Sends a learner through a stream, one night for each experience.

    Args:
        learner: see `Learner`.
        experiences: the stream, at least one.
        measure_anchors: measures the model as it is now: ``{"anchor_kl": ..., "anchor_accuracy": ...}``; None does not.
        gate: judge of each night; None keeps every night.
        output_dir: folder of the run, its own.
        method: name of the method in the results.
        seed: of the run; night t draws from a seed made of it and t.
        config: settings that decide the result; a folder with others belongs to another run.
        resume: continue the run found in ``output_dir``; False refuses a folder that holds one.
        overwrite: delete the run found in ``output_dir`` first (files of other origin stay).
        needed_bytes: free disk space without which the run does not start.
        state_class: what a score is, and which metrics are made of them.
    """

    def __init__(
        self,
        learner: Learner[E],
        experiences: Sequence[E],
        measure_anchors: Callable[[], Mapping[str, float]] | None = None,
        gate: RetentionGate | None = None,
        output_dir: str | Path = "runs/sleep",
        *,
        method: str = "knowledge seeding",
        seed: int = 0,
        config: Mapping[str, Any] | None = None,
        resume: bool = True,
        overwrite: bool = False,
        needed_bytes: int = 0,
        state_class: type[CycleState] = CycleState,
    ) -> None:
        if not experiences:
            raise SleepkitError("the stream has no experience; give at least one document")
        self.learner, self.experiences, self.gate = learner, list(experiences), gate
        self.measure_anchors = measure_anchors or (lambda: {})
        self.output_dir = Path(output_dir)
        self.state_dir = self.output_dir / "state"
        self.record = RunRecord(method, seed, dict(config or {}))
        self.seed, self.resume, self.overwrite, self.needed_bytes = seed, resume, overwrite, needed_bytes
        self.state_class = state_class
        self.ranks = PartialState()
        self.clock = 0.0

    def run(self) -> RunRecord:
        """Live through all nights that are left, write results, answers and report, and return the record.

        Raises:
            SleepkitError: the folder belongs to another run or is damaged, or the disk is full.
            RuntimeError: a rollback did not restore the weights bit for bit.
        """
        self.clock = time.perf_counter()
        state = self._open()
        tracking.start()
        if not state.before:
            self._measure_start(state)
        for night in range(len(state.nights) + 1, len(self.experiences) + 1):
            self._night(state, night)
        return self._finish(state)

    # The folder

    def _open(self) -> CycleState:
        """The state of this run in ``output_dir``, or a new one that claims the folder."""
        run = self._identity()
        if self.overwrite:
            main_only(self._clear)
        state = self.state_class.load(self.state_dir)
        if state is None and (self.output_dir / results.FILE_NAME).exists():
            raise SleepkitError(f"{self.output_dir} holds the results of another run; choose another output_dir")
        if state is not None:
            if not self.resume:
                raise SleepkitError(f"{self.output_dir} holds a run; use --resume true or --overwrite true")
            state.require_run(run, self.output_dir)
        self._require_space()
        self.ranks.wait_for_everyone()  # nobody writes before all have looked
        if state is None:
            state = self.state_class(run)
            main_only(lambda: state.save(self.state_dir))
        elif state.learner is not None:
            self._forget_older(state)  # a run that was killed in between left them
            self.learner.load(self.state_dir / state.learner)
            self._say(f"{self.output_dir}: {len(state.nights)} of {len(self.experiences)} nights are done already")
        return state

    def _identity(self) -> dict[str, Any]:
        plain = self.record.to_dict()
        texts = (json.dumps(experience.to_dict(), sort_keys=True) for experience in self.experiences)
        return {name: plain[name] for name in ("method", "seed", "config")} | {
            "experiences": {str(j): hashlib.sha256(text.encode()).hexdigest()[:16] for j, text in enumerate(texts, 1)}
        }

    def _clear(self) -> None:
        for pattern in WRITTEN:
            for path in self.output_dir.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _require_space(self) -> None:
        place = self.output_dir.absolute()
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if free < self.needed_bytes:
            free_text, needed_text = map(report.format_memory, (free, self.needed_bytes))
            raise SleepkitError(
                f"{place} has {free_text} free, the run needs {needed_text}; free some, or choose another output_dir"
            )

    def _save(self, state: CycleState) -> None:
        """Commit the state of the cycle and of the learner."""
        now = time.perf_counter()
        state.seconds, self.clock = state.seconds + now - self.clock, now
        if state.nights:
            state.learner = f"night_{len(state.nights):02d}"
            draft, folder = self.state_dir / "draft", self.state_dir / state.learner
            main_only(lambda: _remove(draft, folder))
            self.learner.save(draft)
            self.ranks.wait_for_everyone()
            main_only(lambda: os.replace(draft, folder))
        main_only(lambda: state.save(self.state_dir))
        self._forget_older(state)

    def _forget_older(self, state: CycleState) -> None:
        older = (path for path in self.state_dir.glob("night_*") if path.name != state.learner)
        main_only(lambda: _remove(*older))

    # The nights

    def _measure_start(self, state: CycleState) -> None:
        """Closed book, in context and anchors before any night."""
        self._say(f"awake: {len(self.experiences)} experiences, {state.asked(self.experiences)}")
        set_seed(self.seed)
        state.before = self._scores()
        state.in_context = self._scores(in_context=True) if state.in_context_too else []
        state.anchors = {name: value for name, value in self.measure_anchors().items() if value == value}
        state.final = state.before
        self._save(state)
        shown = state.start_scores() | state.anchors
        if shown:
            self._say("before any sleep: " + _listed(shown))

    def _night(self, state: CycleState, night: int) -> None:
        experience = self.experiences[night - 1]
        label = f"night {night}/{len(self.experiences)}"
        self._say(f"{label}: {experience.name}")
        started = time.perf_counter()
        set_seed(1000 * self.seed + night)  # not where the night before left off: a resumed night must draw the same
        self.learner.wake(experience)
        snapshot = self.learner.snapshot()
        evening = digest(snapshot)
        log = self.learner.sleep(night, self.output_dir)
        before = state.anchors | log.get("before", {})
        after = {**self.measure_anchors(), **log.get("after", {})}
        verdict = self._decide(before, after)
        if not verdict.commit:
            self.learner.restore(snapshot)
            if digest(self.learner.snapshot()) != evening:
                raise RuntimeError(f"{label} was rolled back but the weights are not those of the evening before")
        seconds = time.perf_counter() - started
        self._say(f"{label}: {'kept' if verdict.commit else 'rolled back'} ({verdict.reason})")

        set_seed(self.seed)
        state.final = self._scores()
        state.matrix.append([_without_answers(score) for score in state.final])
        state.after.append(state.final[night - 1])
        own = state.own_scores(night)
        row: dict[str, Any] = {"night": night, "experience": experience.name}
        row |= {"committed": verdict.commit, "reason": verdict.reason} | own
        row |= after | {name: value for name, value in log.items() if isinstance(value, (int, float))}
        row["seconds"] = seconds
        state.nights.append(row)
        tracking.log_night(row)
        state.history += [{"night": night, **point} for point in log.get("history", [])]
        self._save(state)
        shown = {name: value for name, value in own.items() if value is not None}
        if shown:
            self._say(f"{label}: " + _listed(shown))

    def _scores(self, in_context: bool = False) -> list[Score | None]:
        """Of each experience; None where there was nothing to test."""
        evaluations = self.learner.evaluate(self.experiences, in_context=in_context)
        return [self.state_class.score(found) if found.n else None for found in evaluations]

    def _decide(self, before: Mapping[str, float], after: Mapping[str, float]) -> Verdict:
        verdict = self.gate.decide(before, after) if self.gate else Verdict(True, "no gate")
        return verdict if self.ranks.num_processes == 1 else broadcast_object_list([verdict])[0]

    def _finish(self, state: CycleState) -> RunRecord:
        record = self.record
        answers = state.answers(self.experiences)
        record.seconds, record.metrics, record.accuracy_matrix = state.seconds, state.metrics(), state.accuracy_matrix()
        record.matrices, record.nights, record.history = state.matrices(), state.nights, state.history
        tracking.log_final(record.metrics)
        shown = ("question", "gold", "before", "after", "in_context")
        record.examples = [{name: row[name] for name in shown if name in row} for row in evenly(answers, EXAMPLES)]
        if answers:
            main_only(lambda: results.write_json(self.output_dir / "answers.json", answers))
        record.save(self.output_dir, is_main=self.ranks.is_main_process)
        main_only(lambda: report.write_report(self.output_dir))
        return record

    # Ranks

    def _say(self, text: str) -> None:
        progress.say(text)


def _without_answers(score: Score | None) -> Score | None:
    return score and {name: value for name, value in score.items() if name != "answers"}


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {report.format_value(value)}" for name, value in values.items())


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
