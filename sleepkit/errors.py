"""The one exception that sleepkit raises for a mistake its user can repair.

The message is one line: what was wrong, with the offending value, and what to do about it. Faces (the command line and
the recipes) print it without a traceback. It is a `ValueError`, so code that knows nothing of sleepkit can catch it.
"""

__all__ = ["SleepkitError"]


class SleepkitError(ValueError):
    """Bad input, configuration or file: the message names the value and the remedy."""
