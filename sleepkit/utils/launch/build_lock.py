"""A lock that a killed build of DeepSpeed has left: DeepSpeed would wait for it for ever, and silently.

DeepSpeed compiles an operation at first use, below ``TORCH_EXTENSIONS_DIR``; a file ``lock`` beside it holds others off, and
stays where the build was killed (`torch.utils.file_baton`).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

__all__ = ["left_build_lock"]

QUIET = 600.0  # seconds in which a build that goes on has written something; a whole one takes two minutes


def left_build_lock(now: float | None = None) -> str | None:
    """Return one line about a lock in whose folder nothing was written for ten minutes; None if there is none.

    Args:
        now: seconds of the epoch; the present if it is left out.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        return None
    now = time.time() if now is None else now
    for lock in sorted(path for pattern in ("*/lock", "*/*/lock") for path in _root().glob(pattern)):
        age = now - max(path.stat().st_mtime for path in (lock, *lock.parent.iterdir()))
        if age > QUIET:
            return (
                f"{lock} is left from a build of DeepSpeed that was killed {age / 60:.0f} minutes ago, and DeepSpeed would wait "
                f"for it without end; delete it: rm {lock}"
            )
        print(f"{lock}: another process builds this operation of DeepSpeed; if none does, delete it", file=sys.stderr)
    return None


def _root() -> Path:
    """The folder below which torch puts its extensions."""
    if given := os.environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(given)
    from torch.utils.cpp_extension import get_default_build_root

    return Path(get_default_build_root())
