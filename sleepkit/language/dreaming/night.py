"""The accepted dreams of one night: kept in a file, read back by whoever publishes them, and rehearsed as items.

    <run>/night_<NN>/dreams/accepted.jsonl       sealed, as other phases of a night are (sleepkit/utils/phases.py)

Left out: how dreams are made and judged (trainer.py), and the rounds and dreamers beside that file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sleepkit.language.dreaming.dreams import Dream, load_dreams, save_dreams
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.utils.phases import PhaseFile
from sleepkit.utils.ranks import main_only

__all__ = ["DREAMS_FOLDER", "accepted_dreams", "forget_dreams", "keep_dreams", "rehearsed"]

DREAMS_FOLDER, ACCEPTED_NAME = "dreams", "accepted.jsonl"


def forget_dreams(night: Path, identity: Mapping[str, Any]) -> None:
    """Remove the accepted dreams from the folder of a night: they are another run's, or are written again."""
    main_only(PhaseFile(night / DREAMS_FOLDER / ACCEPTED_NAME, identity).forget)


def keep_dreams(dreams: Sequence[Dream], night: Path, identity: Mapping[str, Any]) -> None:
    """Write the accepted dreams into the folder of a night, with what decides them."""
    phase = PhaseFile(night / DREAMS_FOLDER / ACCEPTED_NAME, identity)
    main_only(lambda: phase.write(lambda draft: save_dreams(dreams, draft)))


def accepted_dreams(night: Path) -> list[Dream]:
    """Read the accepted dreams from the folder of a finished night; none if it has not dreamed.

    Raises:
        SleepkitError: the file is not as it was written.
    """
    path = night / DREAMS_FOLDER / ACCEPTED_NAME
    if not path.is_file():
        return []
    PhaseFile(path, {}).require_whole()
    return load_dreams(path)


def rehearsed(dreams: Iterable[Dream], texts: Mapping[str, str]) -> list[SyntheticExample]:
    """Return a row of each dream as an item to learn.

    Args:
        dreams: that were accepted.
        texts: of the contexts that they are about, by name; the teacher has them in view.
    """
    return [
        SyntheticExample(prompt, reply, texts[dream.context], "dream", dream.context)
        for dream in dreams
        for prompt, reply in dream.rows
    ]
