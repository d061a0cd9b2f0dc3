"""The folders of states that a run keeps, and the newest that is whole.

state/night_02, state/night_03, state/night_03_2      after so many nights; ``_<k>`` where there are later ones of as many
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sleepkit.errors import SleepkitError
from sleepkit.utils.sealed import damage

__all__ = ["newest_state", "next_name", "states"]


def states(folder: Path) -> list[Path]:
    """All folders of states, whole or not, oldest first."""
    found = [(tuple(map(int, path.name.split("_")[1:])), path) for path in folder.glob("night_*[0-9]")]
    return [path for _, path in sorted(found)]


def newest_state(folder: Path, say: Callable[[str], object] = lambda text: None) -> Path | None:
    """The newest whole state of a run, or None where there is none at all; damaged ones are named and passed over.

    Args:
        folder: of the states.
        say: where a line about each damaged one goes.

    Raises:
        SleepkitError: there are states, and all are damaged.
    """
    found = states(folder)
    for path in reversed(found):
        reason = damage(path)
        if reason is None:
            return path
        say(f"{path} is damaged ({reason}); the state before it is used")
    if found:
        raise SleepkitError(f"{folder} has no state that is whole; start anew with --overwrite true, or bring back a copy of it")
    return None


def next_name(nights: int, kept: Sequence[Path]) -> str:
    """Name of a new state after so many nights, beside those that are ``kept``, oldest first."""
    name = f"night_{nights:02d}"
    taken = [path.name for path in kept if path.name.split("_")[1] == name.split("_")[1]]
    return f"{name}_{int((taken[-1].split('_') + ['1'])[2]) + 1}" if taken else name
