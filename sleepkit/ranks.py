"""What the processes of a run do together: only one of them writes files, and all go by what that one finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

__all__ = ["all_find", "main_only"]


def main_only(action: Callable[[], object]) -> None:
    """Run on the main process while the others wait; call it on all."""
    ranks = PartialState()
    if ranks.is_main_process:
        action()
    ranks.wait_for_everyone()


def all_find(path: Path) -> bool:
    """Whether the main process finds a file or folder; call it on all.

    Each looking for itself may find different things: one that comes late sees what another has written meanwhile.
    """
    found = [path.exists()]
    return bool(broadcast_object_list(found)[0]) if PartialState().num_processes > 1 else found[0]
