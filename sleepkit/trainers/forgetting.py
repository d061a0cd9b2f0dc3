"""Take nights out of a life: `SleepTrainer.forget`, `SleepTrainer.rollback` and the commands of these names.

One expert is one night, so masking it takes out exactly what only it holds: the model is then, bit for bit, the one with all
other experts.  What those hold of the night, as they rehearsed its items or took it over, is trained away where it can be
measured (language/forgetting/traces.py).  With it go

    state/          the night's items, questions and dreams for rehearsal, its documents, questions and answers; both states
    night_<NN>/     of the night all, of later ones what they wrote, as they rehearsed its items
    model/ dreams/  the expert, the card, the accepted dreams

and `results.json` has in the row of the night, each before, after and of the unslept model

    forgotten_*, others_*             closed book on its own questions and on those of all others: those of the data; where there
                                      are none, those that a night kept back from training
    forgotten_loss_*, others_loss_*   loss on what they had read, nats per token; never_read_loss_* on the retention set's prompts
    membership_before, _after         AUC of an attack by that loss (language/forgetting/membership.py)
    traces_before, _after             what other experts held of it, nats per token of its replies; others_lost is what those of
                                      other nights lost by the training, with forgetting_steps and forgetting_seconds

A command that is killed before its end has changed nothing, or is ended by the same command; a training goes on from its last
checkpoint, where the settings of the run want any.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sleepkit.errors import SleepkitError
from sleepkit.language.data.experience import Experience
from sleepkit.language.forgetting.membership import NEVER, Losses, Reading, membership
from sleepkit.language.forgetting.report import POINTS, lines_of
from sleepkit.language.forgetting.traces import Forgotten
from sleepkit.reporting.live import progress
from sleepkit.reporting.results import in_model
from sleepkit.trainers.life import blank, lived, replaced_in
from sleepkit.utils.ranks import main_finds, main_holds, main_only

if TYPE_CHECKING:
    from sleepkit.cycle.cycle import SleepCycle
    from sleepkit.cycle.state import CycleState, Score
    from sleepkit.trainers.language import SleepTrainer

__all__ = ["forget", "night_of"]

Means = dict[int, tuple[float, int]]  # a mean of each night, and of how many


class _Measured(NamedTuple):
    """What the model answers and how likely texts are to it."""

    recall: Means  # share of right answers, and number of questions
    scores: list[Score | None]
    losses: Losses

    @property
    def loss(self) -> Means:
        """Mean loss of each night's passages."""
        return {night: (sum(row) / len(row), len(row)) for night, row in self.losses.items() if row}


def forget(trainer: SleepTrainer, folder: Path, nights: Collection[int] | None = None, to: int | None = None) -> list[int]:
    """Take nights out of the life in a folder; returns their numbers.  Call it on all processes.

    Args:
        trainer: of the life.
        folder: of the run.
        nights: their numbers; None: all nights after ``to``.
        to: for a rollback, the last night that stays; 0 leaves none.

    Raises:
        SleepkitError: there is no such night, it is not in the model, or it can neither be masked nor trained away.
    """
    with main_holds(folder):
        life, rows = lived(folder)
        chosen = sorted(_nights_after(folder, rows, to) if nights is None else set(nights))
        refusal = _refusal(folder, rows, chosen)
        trainer._restart()
        cycle = trainer._life(life or [Experience("none", [""])], replaced_in(life))
        if refusal is not None and not all(night.get("forgotten") for night in _of(rows, chosen)):
            raise SleepkitError(refusal)
        change = (lambda state: life) if refusal else _Forgetting(trainer, cycle, life, chosen, to)
        trainer.record = cycle.revise(change)  # of what is forgotten already, the files that a killed command left
        trainer.experiences = cycle.experiences
        main_only(lambda: _remove(folder, [row["night"] for row in cycle.record.nights if row.get("forgotten")]))
        trainer._write(cycle)
        if refusal:
            raise SleepkitError(refusal)
    return chosen


def _nights_after(folder: Path, rows: Sequence[dict[str, Any]], to: int | None) -> list[int]:
    """The numbers of the nights after ``to`` that are in the model."""
    if to is None or not 0 <= to < len(rows):
        raise SleepkitError(f"{folder} has {len(rows)} nights, so it cannot go back to night {to}; give 0 to {len(rows) - 1}")
    chosen = [row["night"] for row in rows[to:] if in_model(row)]
    chosen = chosen or [row["night"] for row in rows[to:] if row.get("forgotten")]
    if not chosen:
        raise SleepkitError(f"nothing that {folder} learned after night {to} is in the model; see `sleepkit history {folder}`")
    return chosen


def night_of(folder: Path, name: str) -> int:
    """The number of the night that learned an experience.

    Raises:
        SleepkitError: there is none of this name in the model, or there are several.
    """
    life, rows = lived(folder)
    found = [row["night"] for row in rows if row["experience"] == name]
    found = [night for night in found if in_model(rows[night - 1])] or found[-1:]
    if len(found) == 1:
        return int(found[0])
    if found:
        raise SleepkitError(f"nights {', '.join(map(str, found))} learned {name}; give one of them by --night")
    shared = [k for k, experience in enumerate(life[: len(rows)], 1) if name in experience.titled()]
    if shared:
        raise SleepkitError(f"{name} shares night {shared[-1]} with other documents; --night {shared[-1]} forgets all of them")
    raise SleepkitError(f"{folder} has learned no {name!r}; `sleepkit history {folder}` lists what it has")


def _of(rows: Sequence[dict[str, Any]], nights: Collection[int]) -> list[dict[str, Any]]:
    return [rows[night - 1] if 0 < night <= len(rows) else {} for night in nights]


def _refusal(folder: Path, rows: Sequence[dict[str, Any]], nights: Collection[int]) -> str | None:
    """Why these nights cannot be forgotten; None if they can, as far as their rows tell."""
    if not nights:
        return "no night is named; give the number of one"
    for number, row in zip(nights, _of(rows, nights), strict=True):
        if not row:
            return f"{folder} has no night {number}; it has slept {len(rows)}, see `sleepkit history {folder}`"
        if row.get("forgotten"):
            return f"night {number} of {folder} was forgotten already, on {row['forgotten_date']}"
        if not row["committed"]:
            return f"night {number} of {folder} was undone by its gate, so there is nothing of it to forget"
    return None


class _Forgetting:
    """What `SleepCycle.revise` calls: measures, masks and trains the experts, empties the rehearsal buffer, measures again."""

    def __init__(
        self,
        trainer: SleepTrainer,
        cycle: SleepCycle[Experience],
        life: Sequence[Experience],
        nights: Sequence[int],
        to: int | None,
    ) -> None:
        self.learner, self.cycle, self.life, self.nights, self.to = trainer.learner, cycle, list(life), nights, to
        self.never = [row["prompt"] for row in trainer.anchors.prompts]

    def __call__(self, state: CycleState) -> list[Experience]:
        self._require_no_rewriting()
        self.traces = self.learner.traces(self.nights)  # refused before anything is asked
        left = [blank(one) if k in self.nights else one for k, one in enumerate(self.life, 1)]
        kept = [row["night"] for row in state.nights if in_model(row)]
        replaced = replaced_in(left)
        self.without = [j for j, later in replaced.items() if later < len(state.nights) and j + 1 not in self.nights]
        self.quiz = {night: [item for item in self.learner.rehearsal.quiz if item.night == night] for night in kept}
        others = [night for night in kept if night not in self.nights and night - 1 not in self.without]
        read = {night: self.life[night - 1] for night in kept}
        reading = Reading(self.learner.model, self.learner.tokenizer, read, self.never)

        before = self._measured(reading)
        with self.learner.bank.view(()):
            unslept = self._measured(reading)
        counted = len(self.learner.rehearsal.replay) + len(self.learner.rehearsal.quiz)
        outdated = self._outdated(left, [night for night in kept if night not in self.nights])
        place = self.cycle.output_dir / f"night_{self.nights[0]:02d}" / "forgetting"  # which `_remove` deletes
        outcome = self.learner.forget(self.traces, outdated, place, self._is_recalled)
        counted -= len(self.learner.rehearsal.replay) + len(self.learner.rehearsal.quiz)
        after = self._measured(reading)

        state.final, state.replaced, self.cycle.replaced = after.scores, replaced, replaced
        state.forget(self.nights)
        measured = {"before": before, "after": after, "unslept": unslept}
        date = main_finds(lambda: time.strftime("%Y-%m-%d"))
        for night in self.nights:
            row = state.nights[night - 1]
            row |= {"forgotten": True, "forgotten_date": date} | _row(measured, [night], others, outcome)
            row |= {} if self.to is None else {"rollback_to": self.to}
        self._tell(state, outcome, counted, _row(measured, self.nights, others, outcome))
        return left

    def _require_no_rewriting(self) -> None:
        """A rollback is exact only where no later night has put older knowledge into another expert."""
        rewritten = self.learner.levels.rewritten
        if self.to is not None and rewritten > self.to:
            raise SleepkitError(
                f"night {rewritten} merged older experts, or passed on what they knew, so the model after night {self.to} is not "
                f"there any more; go back to night {rewritten} or a later one, or start anew (--overwrite true)"
            )

    @staticmethod
    def _outdated(left: Sequence[Experience], kept: Collection[int]) -> dict[str, int]:
        """The newest night that read a document again, of those that are left, by title."""
        return {title: night for night in sorted(kept) for title in left[night - 1].replaces}

    def _measured(self, reading: Reading) -> _Measured:
        recall, scores = self._asked(self.without)
        return _Measured(recall, scores, reading.losses())

    def _asked(self, without: Sequence[int]) -> tuple[Means, list[Score | None]]:
        """Closed book on the questions of each night, or where it has none on those that it kept back; and the cycle's scores."""
        scores = self.cycle.scores(self.life, without=without)
        recall: Means = {}
        for night, own in self.quiz.items():
            score = scores[night - 1]
            if score is not None:
                recall[night] = score["contained"], score["n"]
            elif own and night - 1 not in without:
                right = [share for _, share in self.learner.self_test.answered(own)]
                recall[night] = sum(right) / len(right), len(right)
        return recall, scores

    def _is_recalled(self) -> bool:
        """Whether more of what is forgotten is answered than by the model before its night, by more than `POINTS`."""

        def shares(night: int) -> float:
            recall, _ = self._asked([j for j in range(len(self.life)) if j + 1 != night])
            return recall.get(night, (0.0, 0))[0]

        now = {night: shares(night) for night in self.nights}
        for night, slots in self.traces.before.items():
            with self.learner.bank.view(slots):
                now[night] -= shares(night)
        return main_finds(lambda: max(now.values()) > POINTS)

    def _tell(self, state: CycleState, outcome: Forgotten, items: int, row: dict[str, float | int]) -> None:
        named = ", ".join(f"night {night} ({state.nights[night - 1]['experience']})" for night in self.nights)
        count = len(outcome.slots)
        free = (
            f"{count} {'expert is' if count == 1 else 'experts are'} free again" if count else "its expert holds other nights too"
        )
        progress.say(f"forgotten: {named}; {free}, and {items} items and questions are not rehearsed any more")
        for line in lines_of(row):
            progress.say(line)


def _row(
    measured: dict[str, _Measured], nights: Sequence[int], others: Sequence[int], outcome: Forgotten
) -> dict[str, float | int]:
    """All measures of some nights and of the others, as the module lists them."""
    recalls = {when: one.recall for when, one in measured.items()}
    losses = {when: one.loss for when, one in measured.items()}
    row = _measures("forgotten", recalls, nights) | _measures("others", recalls, others)
    for name, chosen in (("forgotten_loss", nights), ("others_loss", others), ("never_read_loss", [NEVER])):
        row |= _measures(name, losses, chosen)
    told = {when: membership(measured[when].losses, measured["unslept"].losses, nights) for when in ("before", "after")}
    found = {f"membership_{when}": auc for when, auc in told.items()}
    found |= {"traces_before": outcome.gap_before, "traces_after": outcome.gap_after}
    row |= {name: value for name, value in found.items() if value is not None}
    return row | {"others_lost": outcome.lost, "forgetting_steps": outcome.steps, "forgetting_seconds": outcome.seconds}


def _measures(name: str, measured: dict[str, Means], nights: Collection[int]) -> dict[str, float | int]:
    """Means over all questions or passages of some nights, and their number; nothing where there are none."""
    found: dict[str, float | int] = {}
    for when, means in measured.items():
        scores = [means[night] for night in nights if night in means]
        count = sum(n for _, n in scores)
        if count:
            found |= {f"{name}_{when}": sum(share * n for share, n in scores) / count, f"{name}_n": count}
    return found


def _remove(folder: Path, forgotten: Collection[int]) -> None:
    """Delete what the folder of a run holds of these nights beside its state and model."""
    for night in forgotten:
        shutil.rmtree(folder / f"night_{night:02d}", ignore_errors=True)
        (folder / "dreams" / f"night_{night:02d}.jsonl").unlink(missing_ok=True)
    if not any((folder / "dreams").glob("*.jsonl")):
        (folder / "dreams" / "README.md").unlink(missing_ok=True)
    for later in folder.glob("night_[0-9]*"):
        if forgotten and int(later.name.split("_")[1]) > min(forgotten):
            for path in later.iterdir():
                if path.name != "dreams":  # which are about its own documents
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
