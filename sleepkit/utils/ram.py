"""Memory that is asked for before it is taken, so that too much is one line and not a process that the kernel ends.

require_memory(bytes, "60,000 images", "give --image_size")
"""

from __future__ import annotations

from sleepkit.errors import SleepkitError

__all__ = ["require_memory"]


def require_memory(needed: int, what: str, remedy: str) -> None:
    """Raise `SleepkitError` unless ``needed`` bytes of memory are free now.

    Args:
        needed: bytes.
        what: takes them, for the message.
        remedy: what to do instead.
    """
    import psutil

    free = psutil.virtual_memory().available
    if needed > free:
        raise SleepkitError(f"{what} would take {needed / 2**30:,.1f} GiB of memory and {free / 2**30:,.1f} are free; {remedy}")
