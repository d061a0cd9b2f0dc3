"""Fields of configurations, and checks of their values: one line that names the field, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Any

from sleepkit.errors import SleepkitError

__all__ = ["option", "require", "require_choice"]


def option(default: Any, text: str) -> Any:
    """A dataclass field with its `--help`; a tuple is the default of a list."""
    if isinstance(default, tuple):
        return field(default_factory=lambda: list(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


def require(config: Any, names: Iterable[str], holds: Callable[[Any], bool], wanted: str) -> None:
    """Raise `SleepkitError` for the first of these fields whose value is none that is ``wanted``."""
    for name in names:
        if not holds(getattr(config, name)):
            raise SleepkitError(f"{name} is {getattr(config, name)}; give {wanted}")


def require_choice(config: Any, name: str, known: Iterable[str | None]) -> None:
    """Raise `SleepkitError` unless a field has one of the known values."""
    known = list(known)
    if getattr(config, name) not in known:
        shown = ", ".join(one for one in known if one is not None)
        raise SleepkitError(f"{name} is {getattr(config, name)!r}; use one of {shown}")
