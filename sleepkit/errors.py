"""The one exception that sleepkit raises for a mistake its user can repair.

The message is one line: what was wrong, with the offending value, and what to do about it. Faces (the command line and
the recipes) print it without a traceback. It is a `ValueError`, so code that knows nothing of sleepkit can catch it.
"""

__all__ = ["SleepkitError", "first_line"]


class SleepkitError(ValueError):
    """Bad input, configuration or file: the message names the value and the remedy."""


def first_line(error: BaseException) -> str:
    """Of another library's error, without its full stop; its type where it says nothing."""
    return str(error).strip().splitlines()[0].rstrip(".;") if str(error).strip() else type(error).__name__
