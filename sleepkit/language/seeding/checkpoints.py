"""Checkpoints inside a night that can be trusted: sealed when they are whole, and known by what they are a part of.

    checkpoint-<step>/phase.json       {"identity": ..., "counters": ...}
                      MANIFEST.json    digests of all files, written last                             utils/sealed.py

One that a kill cut short, of which a bit has changed, or that another training left is named in a warning and removed, and the
one before it is taken: later ones would be rotated away in favour of it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sleepkit.errors import SleepkitError
from sleepkit.utils.files import plain, read_json, writable, write_json
from sleepkit.utils.sealed import damage, seal

__all__ = ["last_checkpoint", "seal_checkpoint"]

NAME, LAUNCH = "phase.json", "launch"  # of an identity: the words for the processes that train
logger = logging.getLogger(__name__)


def seal_checkpoint(folder: Path, identity: Mapping[str, Any], counters: Mapping[str, Any]) -> None:
    """Finish a checkpoint that has been written, on the main process; ``counters`` are what the trainer goes on counting from."""
    write_json(folder / NAME, {"identity": identity, "counters": counters})
    seal(folder)


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """Why a training does not go on from a checkpoint; None if it does."""
    if there == here:
        return None
    if {**there, LAUNCH: here[LAUNCH]} == here:
        writer = there.get(LAUNCH, "an earlier version")
        return f"it was written by {writer}, and this is a run of {here[LAUNCH]}; the training begins again"
    return "it is of another training"


def last_checkpoint(folder: Path, identity: Mapping[str, Any], every: int = 1) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint of a training and its counters, or None; all others that are of no use are removed.

    Args:
        every: only checkpoints of a multiple of so many steps can be gone on from.
    """
    steps = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*[0-9]")}
    for step, path in sorted(steps.items(), reverse=True):
        reason = damage(path)
        if reason is None:
            try:
                note = read_json(path / NAME)
                reason = _difference(note["identity"], plain(identity))
            except (SleepkitError, KeyError, TypeError):
                reason = f"its {NAME} cannot be read"
        if reason is None and step % every:
            reason = f"a night with rollouts goes on from a multiple of {every} steps"
        if reason is None:
            return path, note["counters"]
        logger.warning(f"{path} is passed over and removed: {reason}")
        with writable(path):
            shutil.rmtree(path)
    return None
