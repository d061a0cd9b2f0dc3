"""Memory given back between two phases of a run, so that its peak is that of the larger one and not of both.

The C library keeps what a phase has freed in pieces that the next one cannot use: on Linux dreaming held .7 GB of it.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

from accelerate.utils.memory import clear_device_cache

__all__ = ["free_memory"]


def free_memory() -> None:
    """Collect garbage, and return free memory to the device and to the operating system (the latter with glibc)."""
    clear_device_cache(garbage_collection=True)
    with suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
