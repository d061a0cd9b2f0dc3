"""Connects a `transformers.Trainer` to the run's progress (progress.py) and tracker (tracking.py).

    observe(trainer, "training")       after its `super().__init__`

A night makes trainers of its own, several of them: each would draw its own bar, print its logs as dictionaries and open a run
at each tracker.  `observe` takes those callbacks out and puts one in that passes steps, losses and gates on.  A trainer that is
used alone, outside a run that is shown or tracked, keeps what it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sleepkit.reporting.live import progress, tracking
from sleepkit.reporting.live.plan import pace_text
from sleepkit.reporting.results import peak_memory_bytes

__all__ = ["observe"]

NUMBERS = {"loss": "loss", "gate_memory": "gate", "reward": "reward"}  # of a line of the log -> shown as
MEASURED = 5  # steps before the time that is left is said
LONG = 120.0  # seconds from which it is


def observe(trainer: Trainer, name: str) -> None:
    """Show and track a trainer's steps as those of the run.

    Args:
        name: what it does, as progress shows it.
    """
    shown, tracked = progress.is_shown(), tracking.is_tracked()
    for callback in list(trainer.callback_handler.callbacks):
        kind = type(callback)
        prints = kind.__name__.endswith(("ProgressCallback", "PrinterCallback"))  # that of notebooks, too
        tracks = kind.__module__.startswith("transformers.integrations")
        if shown and prints or tracked and tracks:
            trainer.remove_callback(callback)
    if shown or tracked:
        trainer.add_callback(_Observer(name))


class _Observer(TrainerCallback):
    def __init__(self, name: str) -> None:
        self.name = name
        self.phase: progress.Phase | None = None
        self.first = 0  # step of the run at which this training begins

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.phase = progress.begin(self.name, state.max_steps, state.global_step)
        self.first = tracking.first_step(str(args.output_dir), state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.phase is None:
            return
        self.phase()
        if self.phase.done - self.phase.first == MEASURED and (self.phase.left or 0) > LONG:
            pace = pace_text(state.max_steps, self.phase.seconds / MEASURED, peak_memory_bytes(), self.phase.done)
            progress.say(f"{self.name}: {pace}")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, (int, float))}
        if self.phase is not None and "loss" in numbers:
            self.phase(0, **{shown: numbers[name] for name, shown in NUMBERS.items() if name in numbers})
            tracking.log({f"train/{name}": value for name, value in numbers.items()}, self.first + state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.phase is not None:
            self.phase.close()
            self.phase = None
