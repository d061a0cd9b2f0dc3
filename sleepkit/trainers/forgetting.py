"""Take nights out of a life: `SleepTrainer.forget`, `SleepTrainer.rollback` and the commands of these names.

One expert is one night, so masking it takes out exactly what only it holds: the model is then, bit for bit, the one with all
other experts.  With it go

    state/          the night's items, questions and dreams for rehearsal, its documents, questions and answers; both states
    night_<NN>/     of the night all, of later ones what they wrote, as they rehearsed its items
    model/ dreams/  the expert, the card, the accepted dreams

and `results.json` has in the row of the night when it was forgotten, and closed book before, after and of the unslept model, on
its own questions (those of the data; where there are none, those that it kept back from training) and on those of all others.

Left out: training away what later nights have learned of it by rehearsal.  The measurement shows whether there is any.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.errors import SleepkitError
from sleepkit.language.data.experience import Experience
from sleepkit.reporting.live import progress
from sleepkit.reporting.results import in_model
from sleepkit.trainers.life import blank, lived, replaced_in
from sleepkit.utils.ranks import main_finds, main_holds, main_only

if TYPE_CHECKING:
    from sleepkit.cycle.cycle import SleepCycle
    from sleepkit.cycle.state import CycleState, Score
    from sleepkit.trainers.language import SleepTrainer

__all__ = ["forget", "night_of"]

Recall = dict[int, tuple[float, int]]  # share of right answers, and number of questions, by night


def forget(trainer: SleepTrainer, folder: Path, nights: Collection[int] | None = None, to: int | None = None) -> list[int]:
    """Take nights out of the life in a folder; returns their numbers.  Call it on all processes.

    Args:
        trainer: of the life.
        folder: of the run.
        nights: their numbers; None: all nights after ``to``.
        to: for a rollback, the last night that stays; 0 leaves none.

    Raises:
        SleepkitError: there is no such night, it is not in the model, or it shares its expert with others.
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
    """What `SleepCycle.revise` calls: measures, masks the experts, empties the rehearsal buffer, measures again."""

    def __init__(
        self,
        trainer: SleepTrainer,
        cycle: SleepCycle[Experience],
        life: Sequence[Experience],
        nights: Sequence[int],
        to: int | None,
    ) -> None:
        self.learner, self.cycle, self.life, self.nights, self.to = trainer.learner, cycle, list(life), nights, to

    def __call__(self, state: CycleState) -> list[Experience]:
        self._require_no_rewriting()
        left = [blank(one) if k in self.nights else one for k, one in enumerate(self.life, 1)]
        kept = [row["night"] for row in state.nights if in_model(row)]
        replaced = replaced_in(left)
        self.without = [j for j, later in replaced.items() if later < len(state.nights) and j + 1 not in self.nights]
        self.quiz = {night: [item for item in self.learner.rehearsal.quiz if item.night == night] for night in kept}
        others = [night for night in kept if night not in self.nights and night - 1 not in self.without]
        self.learner.levels.holding(self.nights)  # refused before anything is asked

        before, _ = self._asked()
        with self.learner.bank.view(()):
            unslept, _ = self._asked()
        counted = len(self.learner.rehearsal.replay) + len(self.learner.rehearsal.quiz)
        slots = self.learner.forget(self.nights, self._outdated(left, [night for night in kept if night not in self.nights]))
        counted -= len(self.learner.rehearsal.replay) + len(self.learner.rehearsal.quiz)
        after, state.final = self._asked()

        state.replaced = self.cycle.replaced = replaced
        state.forget(self.nights)
        measured = {"before": before, "after": after, "unslept": unslept}
        date = main_finds(lambda: time.strftime("%Y-%m-%d"))
        for night in self.nights:
            row = state.nights[night - 1]
            row |= {"forgotten": True, "forgotten_date": date} | _measures("forgotten", measured, [night])
            row |= _measures("others", measured, others)
            row |= {} if self.to is None else {"rollback_to": self.to}
        self._tell(state, slots, counted, measured, others)
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

    def _asked(self) -> tuple[Recall, list[Score | None]]:
        """Closed book on the questions of each night, or where it has none on those that it kept back; and the cycle's scores."""
        scores = self.cycle.scores(self.life, without=self.without)
        recall: Recall = {}
        for night, own in self.quiz.items():
            score = scores[night - 1]
            if score is not None:
                recall[night] = score["contained"], score["n"]
            elif own and night - 1 not in self.without:
                right = [share for _, share in self.learner.self_test.answered(own)]
                recall[night] = sum(right) / len(right), len(right)
        return recall, scores

    def _tell(
        self, state: CycleState, slots: Sequence[int], items: int, measured: dict[str, Recall], others: Collection[int]
    ) -> None:
        named = ", ".join(f"night {night} ({state.nights[night - 1]['experience']})" for night in self.nights)
        free = f"{len(slots)} {'expert is' if len(slots) == 1 else 'experts are'} free again"
        progress.say(f"forgotten: {named}; {free}, and {items} items and questions are not rehearsed any more")
        own, rest = _measures("x", measured, self.nights), _measures("x", measured, others)
        if not own:
            progress.say("there are no questions about it, so nothing could be measured")
        for what, row in (("closed book on what was forgotten", own), ("closed book on all other nights", rest)):
            if row:
                progress.say(
                    f"{what}: {row['x_before']:.1%} before, {row['x_after']:.1%} now, {row['x_unslept']:.1%} without any sleep "
                    f"({row['x_n']} questions)"
                )
        if own and own["x_after"] > own["x_unslept"]:
            progress.say(
                "that is more than the model without any sleep answers: other nights hold some of it, such as those that "
                "rehearsed its items"
            )


def _measures(name: str, measured: dict[str, Recall], nights: Collection[int]) -> dict[str, float | int]:
    """Shares of right answers over all questions of some nights, and their number; nothing where there are none."""
    found: dict[str, float | int] = {}
    for when, recall in measured.items():
        scores = [recall[night] for night in nights if night in recall]
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
