"""RAM: asked for before it is taken, so that too much is one line, and given back between two phases of a run.

    require_memory(bytes, "60,000 images", "give --image_size")
    free_memory()
    keep_few_kernels()

The C library keeps what a phase has freed in pieces that the next one cannot use: on Linux dreaming held .7 GB of it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sleepkit.errors import SleepkitError

__all__ = ["free_memory", "keep_few_kernels", "require_memory", "returning_blocks"]


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


M_MMAP_THRESHOLD = -3  # of malloc.h


LARGE = 1 << 18  # bytes: an activation of SmolLM2 on one dream has twice as many


GLIBC_LARGEST = 32 << 20  # where glibc's own threshold ends on 64 bits


KERNELS = 32  # of one process


def keep_few_kernels() -> None:
    """Let PyTorch keep few of the kernels that it makes on a CPU for each shape of a product; call it before the first one.

    It keeps 1,024 of them otherwise.  Each step of a night has other shapes: with SmolLM2 the kernels took 8 MB more at each, and
    no less time.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # of oneDNN, and of what calls it
        os.environ.setdefault(name, str(KERNELS))


def free_memory() -> None:
    """Collect garbage, and return free memory to the device and to the operating system (the latter with glibc)."""
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)
    _glibc("malloc_trim", 0)


@contextmanager
def returning_blocks() -> Iterator[None]:
    """Give blocks of `LARGE` bytes or more back to the operating system when they are freed (with glibc), inside the block.

    glibc asks the system for large blocks one by one too, but raises what it calls large with each that is freed, up to 32 MiB;
    those below are cut from its heap, and what stays between small ones is lost to other phases.  Holes that the heap has
    already are filled before the system is asked, and stay.
    """
    _glibc("mallopt", M_MMAP_THRESHOLD, LARGE)
    try:
        yield
    finally:
        _glibc("mallopt", M_MMAP_THRESHOLD, GLIBC_LARGEST)


def _glibc(function: str, *arguments: int) -> None:
    """Call a function of glibc; where there is none, nothing happens."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6")[function](*arguments)
