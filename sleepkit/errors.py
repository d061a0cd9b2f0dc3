"""The one exception that sleepkit raises for a mistake its user can repair, and how faces show it.

The message is one line: what was wrong, with the offending value, and what to do about it.  Faces (the command line and
the recipes) print it without a traceback, unless ``--traceback`` or ``SLEEPKIT_TRACEBACK=1`` asks for one.  It is a
`ValueError`, so code that knows nothing of sleepkit can catch it.
"""

from __future__ import annotations

import os

__all__ = ["SleepkitError", "first_line", "show_tracebacks", "tracebacks_are_shown"]

_asked = False


class SleepkitError(ValueError):
    """Bad input, configuration or file; the message is one line that names the value and the remedy.

    Commands print it and exit with code 2; in Python it is a `ValueError`.

    Example:

        >>> try:
        ...     SleepTrainer("model", train_dataset="nowhere/")
        ... except SleepkitError as error:
        ...     print(error)
    """


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, without its full stop; its type where it says nothing."""
    return str(error).strip().splitlines()[0].rstrip(".;") if str(error).strip() else type(error).__name__


def show_tracebacks(asked: bool = True) -> None:
    """Let `sleepkit.cli.guard` print tracebacks before its last line, or not: what ``--traceback`` does."""
    global _asked
    _asked = asked


def tracebacks_are_shown() -> bool:
    """Whether ``--traceback`` was given, or the environment has ``SLEEPKIT_TRACEBACK`` with another value than 0."""
    return _asked or os.environ.get("SLEEPKIT_TRACEBACK", "0") not in ("", "0")
