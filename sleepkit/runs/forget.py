"""What `sleepkit forget` and `sleepkit rollback` do: load the model of a run as its last night left it, and take nights out."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from sleepkit.errors import SleepkitError
from sleepkit.language.data.experience import Experience
from sleepkit.reporting.live import progress
from sleepkit.runs.arguments.run_of import parse_run
from sleepkit.trainers.forgetting import forget, night_of
from sleepkit.trainers.language import SleepTrainer

__all__ = ["run_forget", "run_rollback"]


def run_forget(run: str, nights: Collection[int], experience: str | None, model: str | None = None) -> None:
    """Forget nights by their numbers, or the one that learned an experience.

    Raises:
        SleepkitError: as `trainers.forgetting.forget`; or none or both are given.
    """
    folder = Path(run)
    if bool(nights) == bool(experience):
        raise SleepkitError("say which night is to be forgotten: give --night 3, or --experience with its name")
    with progress.shown(plain=True):
        forget(_LifeOf(run, model), folder, nights or [night_of(folder, str(experience))])


def run_rollback(run: str, to: int, model: str | None = None) -> None:
    """Forget all nights after one; errors as in `run_forget`."""
    with progress.shown(plain=True):
        forget(_LifeOf(run, model), Path(run), to=to)


class _LifeOf(SleepTrainer):
    """Trainer of a finished run, with its own settings and nothing to read."""

    def __init__(self, run: str, model: str | None) -> None:
        args, config = parse_run(run, model)
        prompts, anchors = args.general_prompts, args.anchors
        super().__init__(args.model, config, args.dataset, args.test_dataset, general_prompts=prompts, anchors=anchors)

    def _read(self, train_dataset: Any, eval_dataset: Any) -> list[Experience]:
        return []
