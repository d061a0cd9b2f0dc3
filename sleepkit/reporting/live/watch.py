"""What goes on beside a run: progress in the terminal and trackers, as its configuration asks for.

with watched(config, settings):
    ...                             the run
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sleepkit.reporting.live.progress import shown
from sleepkit.reporting.live.tracking import is_tracked, tracked
from sleepkit.utils.launch.agreement import agree

if TYPE_CHECKING:
    from transformers import TrainingArguments

__all__ = ["watched"]


@contextmanager
def watched(config: TrainingArguments, settings: Mapping[str, Any]) -> Iterator[None]:
    """Show the run inside the block (plainly with ``disable_tqdm``) and track it (``report_to``); nested blocks do nothing.

    Call it on all processes, which first see whether they are about to do the same (utils/launch/agreement.py).

    Raises:
        SleepkitError: the processes differ; a tracker that is unknown or not installed; one that cannot start, when it does.
    """
    if is_tracked():
        yield
        return
    agree(str(config.output_dir), {**vars(config), **settings})
    with shown(plain=bool(config.disable_tqdm)), tracked(config, settings):
        yield
