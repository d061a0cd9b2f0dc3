"""Fields of configurations, and checks of their values: one line that names the field, its value and what is allowed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sleepkit.errors import SleepkitError

__all__ = ["RunConfig", "check_numbers", "option", "require", "require_choice", "require_repo", "require_seed", "shown"]

LARGEST = 2**63 - 1  # of a whole number: what torch and files of ours hold
SHOWN = 80  # characters of a value in a message


def option(default: Any, text: str) -> Any:
    """A dataclass field with its `--help`; a tuple is the default of a list."""
    if isinstance(default, tuple):
        return field(default_factory=lambda: list(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class RunConfig:
    """Options that say what is done with a run that is found in the output folder."""

    resume: bool = option(True, "Continue the run that is found in output_dir, where it stopped.")
    overwrite: bool = option(False, "Delete the run that is found in output_dir and start anew.")


def shown(value: Any) -> str:
    """A value as a message shows it: text in quotes, anything long cut."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
        return "a number beyond 2**63"  # Python refuses to write very large ones
    text = repr(getattr(value, "value", value))  # of an enumeration, what was typed
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 4]} ..."


def require(config: Any, names: Iterable[str], holds: Callable[[Any], bool], wanted: str) -> None:
    """Check fields of a configuration.

    Args:
        config: any dataclass.
        names: of its fields.
        holds: says whether a value can be used.
        wanted: says in words which ones can, after "give".

    Raises:
        SleepkitError: for the first field whose value cannot.
    """
    for name in names:
        value = getattr(config, name)
        if not holds(value):
            raise SleepkitError(f"{name} is {shown(value)}; give {wanted}")


def require_choice(config: Any, name: str, known: Iterable[str | None]) -> None:
    """Raise `SleepkitError` unless a field has one of the known values."""
    known = list(known)
    if getattr(config, name) not in known:
        allowed = ", ".join(one for one in known if one is not None)
        raise SleepkitError(f"{name} is {shown(getattr(config, name))}; use one of {allowed}")


def require_repo(config: Any, names: Iterable[str]) -> None:
    """Raise `SleepkitError` unless each of these fields is None or a name that a repository of the Hub may have."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    for name in names:
        try:
            if getattr(config, name) is not None:
                validate_repo_id(getattr(config, name))
        except HFValidationError:
            raise SleepkitError(
                f"{name} is {shown(getattr(config, name))}; give a repository's name, such as owner/name"
            ) from None


def require_seed(name: str, value: Any) -> None:
    """Raise `SleepkitError` unless ``value`` is a seed: a whole number from 0 to 2**63 - 1, such as a date."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise SleepkitError(f"{name} is {shown(value)}; give a whole number from 0 to 2**63 - 1")


def check_numbers(config: Any) -> None:
    """Raise `SleepkitError` for a field that is not a finite number, or a whole one that no file of ours can hold."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name, None)
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, float) and not math.isfinite(one):
                raise SleepkitError(f"{item.name} is {one}; give a finite number")
            if isinstance(one, int) and abs(one) > LARGEST:
                raise SleepkitError(f"{item.name} is {shown(one)}; give a smaller one")
