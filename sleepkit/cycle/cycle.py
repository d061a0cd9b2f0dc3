"""The sleep cycle: wake, sleep, judge, keep or undo, evaluate; one night for each experience of a stream.

    for night t = 1..T:   learner.wake(experience t)                  into the context
                          snapshot; learner.sleep(t)                  into the weights
                          measure retention; gate                     commit, or restore the snapshot bit for bit
                          A[t-1, j] = closed book on experience j     all experiences, those not met yet included
                          write <output_dir>/state/night_t/           one rename commits the night

Before its first night every experience is asked closed book (where the stream starts from) and, where there are documents,
with them in context (the ceiling).  The cycle knows nothing of language or vision; a learner is what `Learner` says, and
what a score is says the class of its state.

A stream may grow: a run whose nights are all slept goes on when it is given more experiences, with the settings of that
day, as far as they may change.  An experience that a later one replaces is not asked any more.

A run that is killed at any moment and started again equals one that was not: a finished night is read back, an
unfinished one is slept again from the same weights and the same seed, and `learner.sleep` continues its own phases.
A state is one folder (learner, cycle.json, experiences.jsonl), sealed with digests of its files and renamed into place
(utils/sealed.py).  The one before it is kept: where the newest is damaged, the run goes on from there, and says so.

With several processes all ranks run the same calls (sharded weights need that), rank 0 alone writes and decides.

Left out: the metrics (state.py, reporting/metrics.py), and what wake and sleep do.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, set_seed
from torch import Tensor

from sleepkit.cycle.gate import RetentionGate, Verdict, require_finite_measures
from sleepkit.cycle.state import CycleState, Score
from sleepkit.errors import SleepkitError
from sleepkit.reporting.live import progress, tracking
from sleepkit.reporting.report import write_report
from sleepkit.reporting.results import FILE_NAME, RunRecord, plan_in
from sleepkit.reporting.tables import format_memory, format_value
from sleepkit.utils.digests import digest
from sleepkit.utils.files import writable, write_json, write_jsonl
from sleepkit.utils.phases import digest_of
from sleepkit.utils.ranks import main_finds, main_holds, main_only
from sleepkit.utils.run_folder import RunFolder
from sleepkit.utils.sealed import LOCK, damage, seal, sync
from sleepkit.utils.seeds import derive_seed, evenly
from sleepkit.utils.states import newest_state, next_name, states

__all__ = ["Evaluation", "Experience", "Learner", "SleepCycle", "WRITTEN"]

EXAMPLES = 12
STATES_KEPT = 2
DRAFT = "draft"
EXPERIENCES_NAME = "experiences.jsonl"
WRITTEN = (
    *(
        "state",
        "night_[0-9]*",
        "model",
        "dreams",
        "pictures",
        "tracking",
        FILE_NAME,
        "answers.json",
        "report.md",
        "report.html",
    ),
    *("base.json", "baselines.md", "before_after.png", "accuracy_matrix.png", "retention.png", "training.png", "*_matrix.png"),
)


class Experience(Protocol):
    """Experience of one night, as the cycle sees it; `to_dict` is JSON that tells it from another."""

    @property
    def name(self) -> str: ...

    def to_dict(self) -> dict[str, Any]: ...


class Evaluation(Protocol):
    """Scores on ``n`` questions or images of one experience; which they are, `CycleState.score` reads."""

    n: int


E = TypeVar("E", bound=Experience, contravariant=True)


class Learner(Protocol[E]):
    """What a `SleepCycle` lets sleep: all methods are called on all ranks, and only the main process of a run may write."""

    def wake(self, experience: E) -> None:
        """Take an experience into the context, in place of the one before."""

    def sleep(self, night: int, output_dir: Path) -> dict[str, Any]:
        """Move what the context holds into the weights; ``night`` counts from 1.

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
        """Read what `save` has written.  Raises `SleepkitError` if the folder is damaged."""


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
        inputs: digests of what the settings only name, such as the weights of the model.
        named: settings that only name what ``inputs`` or the experiences are digests of, and may differ at any time.
        changeable: settings that may differ on a day that brings new experiences; other differences are another run.
        growing: whether the stream may go on where the one of the run in ``output_dir`` ended.
        replaced: index of an experience -> index of the later one that replaces it; it is not asked any more then.
        resume: continue the run found in ``output_dir``; False refuses a folder that holds one.
        overwrite: delete what a run of ours wrote in ``output_dir`` first (files of other origin stay).
        needed_bytes: free disk space without which the run does not start.
        state_class: what a score is, and which metrics are made of them.
        say: where the lines about the run go, on the main process.

    Raises:
        SleepkitError: a stream without experiences.

    Example:

        >>> cycle = SleepCycle(learner, experiences, gate=RetentionGate(), output_dir="runs/mine")
        >>> record = cycle.run()
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
        inputs: Mapping[str, str] | None = None,
        named: Collection[str] = (),
        changeable: Collection[str] = (),
        growing: bool = False,
        replaced: Mapping[int, int] | None = None,
        resume: bool = True,
        overwrite: bool = False,
        needed_bytes: int = 0,
        state_class: type[CycleState] = CycleState,
        say: Callable[[str], None] = progress.say,
    ) -> None:
        if not experiences:
            raise SleepkitError("the stream has no experience; give at least one document")
        self.learner, self.experiences, self.gate = learner, list(experiences), gate
        self.measure_anchors = measure_anchors or (lambda: {})
        self.output_dir = Path(output_dir)
        self.state_dir = self.output_dir / "state"
        self.folder = RunFolder(self.output_dir, WRITTEN)
        self.record = RunRecord(method, seed, dict(config or {}))
        self.inputs, self.named, self.changeable, self.growing = dict(inputs or {}), named, changeable, growing
        self.replaced = dict(replaced or {})
        self.seed, self.resume, self.overwrite, self.needed_bytes = seed, resume, overwrite, needed_bytes
        self.state_class, self.say = state_class, say
        self.ranks = PartialState()
        self.clock = 0.0

    def run(self) -> RunRecord:
        """Live through all nights that are left, write results, answers and report, and return the record.

        Raises:
            SleepkitError: the folder belongs to another run or is damaged or in use, or the disk is full.
            RuntimeError: a rollback did not restore the weights bit for bit.
        """
        self.clock = time.perf_counter()
        self._require_space()
        with main_holds(self.output_dir):
            state = self._open()
            tracking.start()
            if len(state.before) < len(self.experiences):
                self._measure_start(state)
            for night in range(len(state.nights) + 1, len(self.experiences) + 1):
                self._night(state, night)
            return self._finish(state)

    def rejoin(self) -> int:
        """Take the learner to where the last night of the run in ``output_dir`` has left it; a new folder becomes the run's.

        Settings that a new day may change may differ.

        Returns:
            `int`: how many nights the run has slept.

        Raises:
            SleepkitError: the folder belongs to another run, is damaged or in use.
        """
        with main_holds(self.output_dir):
            state = self._rejoined()
            return 0 if state is None else len(state.nights)

    def revise(self, change: Callable[[CycleState], Sequence[E]]) -> RunRecord:
        """Let ``change`` alter what earlier nights have left, in the learner and in the state, and write all of it again.

        Args:
            change: alters both, and returns the experiences as they are now.  What it leaves takes the place of every state that
                is kept, so that no run goes back to what was there before.

        Returns:
            `RunRecord`: the results, with the settings of the last night.

        Raises:
            SleepkitError: as `rejoin`, or as ``change``; nothing is written then.
        """
        self.clock = time.perf_counter()
        self._require_space()
        with main_holds(self.output_dir):
            state = self._rejoined()
            if state is None:
                raise SleepkitError(f"{self.output_dir} holds no night; give the output folder of a run")
            self.experiences = list(change(state))
            state.experiences = self._experiences()
            self.record.config = dict(state.run["config"])
            for _ in range(STATES_KEPT):
                self._save(state)
            return self._finish(state)

    def _rejoined(self) -> CycleState | None:
        """The newest state of the run, with the learner as it is there; None if there is none."""
        newest = self._newest()
        if newest is None:
            return None
        state = self.state_class.load(newest)
        state.require_run(self._identity(), self.output_dir, {*self.named, *self.changeable})
        if state.nights:
            self.learner.load(newest)
        return state

    # The folder

    def _newest(self) -> Path | None:
        """The newest state of the run in ``output_dir``; None, and the folder is claimed, if there is none yet."""
        newest = main_finds(lambda: newest_state(self.state_dir, self._say))
        if newest is None:
            if main_finds(lambda: (self.output_dir / FILE_NAME).exists()):
                raise SleepkitError(f"{self.output_dir} holds the results of another run; choose another output_dir")
            main_only(self.folder.claim)
        return newest

    def _open(self) -> CycleState:
        """The state of this run in ``output_dir``, or a new one that claims the folder."""
        if self.overwrite:
            main_only(self._clear)
        newest = self._newest()
        if newest is None:
            state = self.state_class(self._identity(), days=[self._today(1)], replaced=self.replaced)
            state.experiences = self._experiences()
            self._save(state)
            return state
        if not self.resume:
            raise SleepkitError(f"{self.output_dir} holds a run; use --resume true or --overwrite true")
        state = self.state_class.load(newest)
        before = state.run["config"]
        self._continue(state)
        main_only(self._forget_older)  # which a run that was killed in between left
        if state.nights:
            self.learner.load(newest)
            self._say(f"{self.output_dir}: {len(state.nights)} of {len(self.experiences)} nights are done already")
            self._say_batch(state, before)
        return state

    def _continue(self, state: CycleState) -> None:
        """Take up the run of ``state`` with today's experiences and settings, if it may."""
        before, today = state.experiences, self._experiences()
        same = 0
        while same < min(len(before), len(today)) and before[same] == today[same]:
            same += 1
        if same < len(state.nights) or (not self.growing and before != today):
            there, here = (f"{row[same]['name']!r:.60}" if same < len(row) else "missing" for row in (before, today))
            raise SleepkitError(
                f"{self.output_dir} belongs to another run (experiences.{same + 1} is {there} there and {here} here, or has "
                "another content); choose another output_dir, or start anew with --overwrite true"
            )
        a_new_day = same == len(state.nights) < len(today)
        state.require_run(self._identity(), self.output_dir, {*self.named, *(self.changeable if a_new_day else ())})
        state.run = self._identity()
        if a_new_day:
            state.days = [day for day in state.days if day["first_night"] <= same] + [self._today(same + 1)]
        state.experiences, state.replaced = today, self.replaced
        state.before, state.in_context = state.before[:same], state.in_context[:same]

    def _say_batch(self, state: CycleState, config: Mapping[str, Any]) -> None:
        """Say if a step takes more or fewer items from now on, because other processes share it; ``config`` is that of before."""
        here = self.ranks.num_processes
        there = state.nights[-1].get("processes", here)
        was, now = _items_in_step(config) * there, _items_in_step(self.record.config) * here
        if there != here and was != now and len(state.nights) < len(self.experiences):
            self._say(
                f"a step takes {now} items from here on, where it took {was}: there are {here} processes in place of {there}, "
                f"with {_items_in_step(self.record.config)} each (per_device_train_batch_size, gradient_accumulation_steps)"
            )

    def _identity(self) -> dict[str, Any]:
        plain = self.record.to_dict()
        return {name: plain[name] for name in ("method", "seed", "config")} | {"inputs": self.inputs}

    def _today(self, first_night: int) -> dict[str, Any]:
        """Return what tells a day of a life: its first night, its date, and the settings of its nights."""
        date = main_finds(lambda: time.strftime("%Y-%m-%d"))
        return {"first_night": first_night, "date": date, "config": self._identity()["config"]}

    def _experiences(self) -> list[dict[str, str]]:
        """Name and digest of each."""
        return [{"name": e.name, "digest": digest_of(e.to_dict())} for e in self.experiences]

    def _clear(self) -> None:
        if any(path.name != LOCK for path in self.output_dir.iterdir()):
            self.folder.clear()

    def _require_space(self) -> None:
        place = self.output_dir.absolute()
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if free < self.needed_bytes:
            free_text, needed_text = map(format_memory, (free, self.needed_bytes))
            raise SleepkitError(
                f"{place} has {free_text} free, the run needs {needed_text}; free some, or choose another output_dir"
            )

    def _save(self, state: CycleState) -> None:
        """Commit the state of the cycle and of the learner."""
        now = time.perf_counter()
        state.seconds, self.clock = state.seconds + now - self.clock, now
        draft = self.state_dir / DRAFT
        main_only(lambda: _emptied(draft))
        if state.nights:
            self.learner.save(draft)
            self.ranks.wait_for_everyone()
        main_only(lambda: self._commit(state, draft))

    def _commit(self, state: CycleState, draft: Path) -> None:
        write_jsonl(draft / EXPERIENCES_NAME, (experience.to_dict() for experience in self.experiences))
        state.save(draft)
        seal(draft)
        self._forget_damaged()
        os.replace(draft, self.state_dir / next_name(len(state.nights), states(self.state_dir)))
        sync(self.state_dir)
        self._forget_older()
        self.folder.note()

    def _forget_damaged(self) -> None:
        for path in states(self.state_dir):
            if damage(path) is not None:
                shutil.rmtree(path)

    def _forget_older(self) -> None:
        for path in states(self.state_dir)[:-STATES_KEPT]:
            shutil.rmtree(path, ignore_errors=True)

    # The nights

    def _measure_start(self, state: CycleState) -> None:
        """Ask closed book and in context, and measure the retention set, before the first night of what is new."""
        new = self.experiences[len(state.before) :]
        self._say(f"awake: {len(new)} {'more ' if state.before else ''}experiences, {state.asked(new)}")
        set_seed(derive_seed(self.seed, "start"))
        before = self.scores(new)
        state.in_context += self.scores(new, in_context=True) if state.in_context_too else []
        if not state.nights:
            state.anchors = {name: value for name, value in self.measure_anchors().items() if value == value}
        state.before += before
        state.final = [*state.final[: len(state.nights)], *state.before[len(state.nights) :]]
        self._save(state)
        shown = state.start_scores() | (state.anchors if not state.nights else {})
        if shown:
            self._say("before any sleep: " + _listed(shown))

    def _night(self, state: CycleState, night: int) -> None:
        experience = self.experiences[night - 1]
        label = f"night {night}/{len(self.experiences)}"
        self._say(f"{label}: {experience.name}")
        started = time.perf_counter()
        set_seed(derive_seed(self.seed, "night", night))  # not where the night before left off: a resumed night draws the same
        self.learner.wake(experience)
        snapshot = self.learner.snapshot()
        before_night = digest(snapshot)
        log = self.learner.sleep(night, self.output_dir)
        before = state.anchors | log.get("before", {})
        after = {**self.measure_anchors(), **log.get("after", {})}
        if self.gate is None:
            require_finite_measures(after, label)
        verdict = self._decide(before, after)
        if not verdict.commit:
            self.learner.restore(snapshot)
            if digest(self.learner.snapshot()) != before_night:
                raise RuntimeError(f"{label} was rolled back but the weights are not those before the night")
        seconds = time.perf_counter() - started
        self._say(f"{label}: {'kept' if verdict.commit else 'rolled back'} ({verdict.reason})")

        set_seed(derive_seed(self.seed, "start"))
        outdated = [j for j, later in self.replaced.items() if later < night]
        state.final = self.scores(self.experiences, without=outdated)
        state.matrix.append([_without_answers(score) for score in state.final])
        state.after.append(state.final[night - 1])
        scores = state.own_scores(night)
        row: dict[str, Any] = {"night": night, "experience": experience.name, "date": state.days[-1]["date"]}
        row |= {"committed": verdict.commit, "reason": verdict.reason, **scores} | _held_out_rows(before, after)
        row |= after | {name: value for name, value in log.items() if isinstance(value, (int, float))}
        row |= {"seconds": seconds, "processes": self.ranks.num_processes}
        state.nights.append(row)
        tracking.log_night(row)
        state.history += [{"night": night, **point} for point in log.get("history", [])]
        state.self_tests += [{"night": night, "committed": verdict.commit, **asked} for asked in log.get("self_test", [])]
        self._save(state)
        shown = {name: value for name, value in scores.items() if value is not None}
        if shown:
            self._say(f"{label}: " + _listed(shown))

    def scores(self, experiences: Sequence[E], in_context: bool = False, without: Sequence[int] = ()) -> list[Score | None]:
        """Evaluate these experiences; None where there was nothing to test, or nothing is to be tested any more.

        Args:
            experiences: those of the life so far, in its order.
            in_context: with each experience in the prompt.
            without: indices of those that are not asked.
        """
        asked = [experience for j, experience in enumerate(experiences) if j not in without]
        evaluations = iter(self.learner.evaluate(asked, in_context=in_context) if asked else [])
        results = [None if j in without else next(evaluations) for j in range(len(experiences))]
        return [self.state_class.score(result) if result is not None and result.n else None for result in results]

    def _decide(self, before: Mapping[str, float], after: Mapping[str, float]) -> Verdict:
        verdict = self.gate.decide(before, after) if self.gate else Verdict(True, "no gate")
        return verdict if self.ranks.num_processes == 1 else broadcast_object_list([verdict])[0]

    def _finish(self, state: CycleState) -> RunRecord:
        record = self.record
        answers = state.answers(self.experiences)
        record.seconds, record.metrics, record.accuracy_matrix = state.seconds, state.metrics(), state.accuracy_matrix()
        record.matrices, record.nights, record.history = state.matrices(), state.nights, state.history
        record.days = state.days
        record.plan = record.plan or main_finds(lambda: plan_in(self.output_dir))  # of the nights that were slept last
        tracking.log_final(record.metrics)
        shown = ("question", "gold", "before", "after", "in_context")
        record.examples = [{name: row[name] for name in shown if name in row} for row in evenly(answers, EXAMPLES)]
        record.examples += [{"own": True, **row} for row in state.self_tests]
        if answers:
            main_only(lambda: write_json(self.output_dir / "answers.json", answers))
        else:
            main_only(lambda: (self.output_dir / "answers.json").unlink(missing_ok=True))
        record.save(self.output_dir, is_main=self.ranks.is_main_process)
        main_only(lambda: write_report(self.output_dir))
        main_only(self.folder.note)
        return record

    # Ranks

    def _say(self, text: str) -> None:
        if self.ranks.is_main_process:
            self.say(text)


def _held_out_rows(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Any]:
    """The gate's own questions in the row of a night: tonight's, and those of earlier nights, before and after it."""
    row: dict[str, Any] = {}
    for name in ("held_out", "retention"):
        if name in before and name in after:
            row |= {f"{name}_before": before[name], f"{name}_after": after[name], f"{name}_n": after.get(f"{name}_n")}
    return row


def _items_in_step(config: Mapping[str, Any]) -> int:
    """Items that each process takes in a step."""
    return int(config.get("per_device_train_batch_size", 0) * config.get("gradient_accumulation_steps", 1))


def _without_answers(score: Score | None) -> Score | None:
    return score and {name: value for name, value in score.items() if name != "answers"}


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {format_value(value)}" for name, value in values.items())


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with writable(folder):
        folder.mkdir(parents=True)
