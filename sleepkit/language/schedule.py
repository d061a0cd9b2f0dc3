"""When to sleep: chunk sizes per level of the memory chain, and a callback that makes any `transformers.Trainer` sleep.

Memory blocks form a chain from fast to slow ("Language Models Need Sleep", arXiv 2606.03979; Nested Learning, arXiv
2512.24695).  Level ``l`` (0 = fastest, the context or a fast adapter) is consolidated into level ``l + 1`` when
the clock passes a multiple of its chunk size ``C(l)``, just before it is overwritten; the slowest block has no clock::

    due(l)  <=>  floor(count / C(l)) > floor(previous_count / C(l)),      C(l) divisible by C(l-1)

    two levels    (100,)                context -> weights
    four levels   (100, 400, 1600)      context -> fast -> medium -> slow

Divisibility means that when a level is due, all faster ones are: the levels due are always ``[0, ..., l]``.  They
sleep from fast to slow, so that what was in the context reaches the slowest block that is due in the same night.

Ours: the unit of the clock, which the paper leaves open: optimizer steps, tokens, examples, or nights asked for by
hand.  A clock that jumps over several multiples of ``C(l)`` at once makes the level due once.  Left out: what a sleep
does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast, get_args

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from sleepkit.errors import SleepkitError

__all__ = ["SleepCallback", "SleepSchedule", "Unit"]

Unit = Literal["steps", "tokens", "examples", "manual"]
OnSleep = Callable[[list[int], Any, TrainerState], None]


class SleepSchedule:
    """A clock with one alarm per level.

    Args:
        chunk_sizes: ``C(l)`` per level, fastest first, positive and each divisible by the one before it.
        unit: what the clock counts.  With "manual", one tick is one request for a night, so ``(1, 4)`` sends the fast
            level to sleep at every request and the next at every fourth.

    Raises `SleepkitError` for an unknown unit, no level, or chunk sizes that do not divide each other.
    """

    def __init__(self, chunk_sizes: Sequence[int], unit: Unit = "steps") -> None:
        if unit not in get_args(Unit):
            raise SleepkitError(f"unit is {unit!r}; use one of {', '.join(get_args(Unit))}")
        sizes = tuple(chunk_sizes)
        if not sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
            raise SleepkitError(f"chunk_sizes is {list(sizes)}; give one whole number >= 1 per level, fastest first")
        for level, (fast, slow) in enumerate(zip(sizes, sizes[1:], strict=False), start=1):
            if slow % fast:
                raise SleepkitError(
                    f"chunk size {slow} of level {level} is not divisible by {fast} of the faster level {level - 1}; "
                    f"use a multiple such as {(slow // fast + 1) * fast}"
                )
        self.chunk_sizes: tuple[int, ...] = sizes
        self.unit: Unit = unit
        self.count = 0

    def due(self, previous_count: int, count: int) -> list[int]:
        """Levels due when the clock goes from ``previous_count`` to ``count``, fast to slow; [] if none."""
        return [level for level, size in enumerate(self.chunk_sizes) if count // size > previous_count // size]

    def advance(self, count: int) -> list[int]:
        """Set the clock to ``count`` and return the levels that became due.  Raises `SleepkitError` if it runs back."""
        if count < self.count:
            raise SleepkitError(
                f"the sleep clock stands at {self.count} {self.unit} and was set to {count}; start a new schedule"
            )
        levels = self.due(self.count, count)
        self.count = count
        return levels

    def state_dict(self) -> dict[str, Any]:
        """Configuration and clock, as plain JSON."""
        return {"chunk_sizes": list(self.chunk_sizes), "unit": self.unit, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the clock from `state_dict`.  Raises `SleepkitError` if it was saved by another configuration."""
        if tuple(state["chunk_sizes"]) != self.chunk_sizes or state["unit"] != self.unit:
            raise SleepkitError(
                f"the checkpoint slept by chunk_sizes {list(state['chunk_sizes'])} in {state['unit']}, this run by "
                f"{list(self.chunk_sizes)} in {self.unit}; resume with the checkpoint's schedule or start a new run"
            )
        self.count = int(state["count"])


class SleepCallback(TrainerCallback, ExportableState):
    """Makes a `Trainer` sleep: calls ``on_sleep(levels, model, state)`` after each step that makes levels due.

    It is called after the optimizer step and before a checkpoint of the same step is written, so a checkpoint holds
    either the whole night or nothing of it.  All ranks call it at the same steps: the clock is computed from the
    trainer's state, which is equal on all of them.

    Units: "tokens" needs ``include_num_input_tokens_seen`` in the `TrainingArguments`; "examples" counts the nominal
    global batch for every step, although the last batch of an epoch may be smaller; "manual" sleeps after the step in
    which `request_sleep` was called (on all ranks).

    The clock is saved in the checkpoint's ``trainer_state.json`` and restored here, when a resumed training begins;
    ``restore_callback_states_from_checkpoint`` must stay False, as Trainer would build a new callback without
    ``on_sleep``.

    Args:
        schedule: one per Trainer, with all levels.
        on_sleep: gets the levels due, fast to slow, the model that is being trained, and the trainer's state.
    """

    def __init__(self, schedule: SleepSchedule, on_sleep: OnSleep) -> None:
        self.schedule = schedule
        self.on_sleep = on_sleep
        self._requested = 0  # nights asked for by hand and not yet slept

    def request_sleep(self) -> None:
        """Ask for a night at the end of the current step (unit "manual" only)."""
        if self.schedule.unit != "manual":
            raise SleepkitError(f"the schedule counts {self.schedule.unit}; use unit='manual' to ask for nights by hand")
        self._requested += 1

    def state(self) -> dict[str, Any]:
        """What Trainer writes into ``trainer_state.json``."""
        return {"args": {}, "attributes": {"clock": self.schedule.state_dict(), "requested": self._requested}}

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._check(args, state)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._check(args, state)
        name, saved = type(self).__name__, _saved_callbacks(state)
        if state.global_step and name in saved:
            self.schedule.load_state_dict(saved[name]["attributes"]["clock"])
            self._requested = saved[name]["attributes"]["requested"]
        else:  # a new training, or a checkpoint from before this callback was added: the clock starts here
            start = {"steps": state.global_step, "tokens": state.num_input_tokens_seen}
            self.schedule.count = start.get(self.schedule.unit, 0)
            saved[name] = self.state()  # Trainer updates this entry when it saves, and fails if there is none

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        levels = self.schedule.advance(self._now(args, state))
        self._requested = 0
        if levels:
            self.on_sleep(levels, kwargs["model"], state)

    def _now(self, args: TrainingArguments, state: TrainerState) -> int:
        if self.schedule.unit == "steps":
            return state.global_step
        if self.schedule.unit == "tokens":
            return state.num_input_tokens_seen
        if self.schedule.unit == "examples":  # added up, as a resumed run may have another batch size
            return self.schedule.count + _global_batch(args, state)
        return self.schedule.count + self._requested

    def _check(self, args: TrainingArguments, state: TrainerState) -> None:
        if args.restore_callback_states_from_checkpoint:
            raise SleepkitError(
                "restore_callback_states_from_checkpoint is True, which rebuilds callbacks and loses on_sleep; "
                "leave it False: SleepCallback restores its own clock"
            )
        if self.schedule.unit == "tokens" and args.include_num_input_tokens_seen == "no":
            raise SleepkitError(
                "the sleep schedule counts tokens but Trainer does not; set include_num_input_tokens_seen='all' or 'non_padding'"
            )
        if isinstance(_saved_callbacks(state).get(type(self).__name__), list):
            raise SleepkitError(
                "this Trainer has two SleepCallbacks; give one schedule with all levels, chunk_sizes=(fast, slow)"
            )


def _saved_callbacks(state: TrainerState) -> dict[str, Any]:
    """State of each callback by class name; annotated as the list of callbacks that it is built from."""
    return cast(dict[str, Any], state.stateful_callbacks)


def _global_batch(args: TrainingArguments, state: TrainerState) -> int:
    """Examples per optimizer step, over all ranks and accumulation steps, as Trainer computes it."""
    per_rank = state.train_batch_size if args.auto_find_batch_size and state.train_batch_size else args.train_batch_size
    other_axes = args.parallelism_config.non_data_parallel_size if args.parallelism_config is not None else 1
    return per_rank * args.gradient_accumulation_steps * (args.world_size // other_axes)
