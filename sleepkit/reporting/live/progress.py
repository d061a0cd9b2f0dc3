"""What a run shows while it works: one live view in a terminal, plain lines everywhere else.

    with shown():                                     once, around a run
        say("night 1/3: lighthouse.md")               a line that stays
        with phase("writing questions", 40) as step:  what is done now, of how many
            step()                                    one is done
            step(3, loss=1.2)                         three are, and this is the loss

In a terminal the phases stand below the lines, with a bar, their numbers and the time that is left.  In a log, a pipe or a
file there are lines only, without control characters, and of a phase at most one every `EVERY` seconds, so that short ones
leave nothing.  Only the main process shows anything.  What cannot be shown (a closed pipe, a full disk) never ends a run.

Inside `shown`, the warnings, bars and logs of libraries do not come between (noise.py).  Left out: training itself, which
observer.py connects.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

__all__ = ["Phase", "begin", "hidden", "is_shown", "phase", "printable", "say", "shown"]

EVERY = 30.0  # seconds between two lines of a phase
SETTLED = 3  # steps before the time left is guessed


class Phase:
    """Something that is under way: ``done`` of ``total`` steps, and the last numbers told of it.

    Call it to say that steps are done; `close` it, or leave its ``with`` block, when it is over.
    """

    def __init__(self, view: _Plain, name: str, total: int | None, done: int = 0) -> None:
        self.view, self.name, self.total, self.done = view, name, total, done
        self.first, self.started = done, time.monotonic()
        self.numbers: dict[str, float] = {}

    def __call__(self, count: int = 1, **numbers: float) -> None:
        """Note that ``count`` more steps are done, and what was measured."""
        self.done += count
        self.numbers |= numbers
        self.view.changed(self)

    def close(self) -> None:
        """End it, and whatever was begun inside it and not ended."""
        self.view.end(self)

    @property
    def seconds(self) -> float:
        """Seconds since the phase began."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float | None:
        """Seconds to its end at the pace so far; None while that is not known."""
        made = self.done - self.first
        if not self.total or made < SETTLED:
            return None
        return self.seconds / made * max(0, self.total - self.done)

    def counted(self) -> str:
        """``40 of 200``, with the numbers."""
        counts = [f"{self.done:,} of {self.total:,}" if self.total else f"{self.done:,}"] if self.total or self.done else []
        return ", ".join([*counts, *(f"{name} {value:.3g}" for name, value in self.numbers.items())])


def say(text: str) -> None:
    """Show a line that stays."""
    _view.say(text)


def begin(name: str, total: int | None = None, done: int = 0) -> Phase:
    """Begin a phase that is closed by hand; inside another one if that is still open.

    Args:
        name: what is done.
        total: steps that it has; None where nobody knows.
        done: steps that an earlier session has done.
    """
    found = Phase(_view, name, total, done)
    _view.begin(found)
    return found


@contextmanager
def phase(name: str | None, total: int | None = None) -> Iterator[Phase]:
    """Run the block as a phase of the run; one without a name is not shown."""
    found = begin(name, total) if name is not None else Phase(_Silent(), "", total)
    try:
        yield found
    finally:
        found.close()


@contextmanager
def shown(plain: bool = False) -> Iterator[None]:
    """Show what this process does inside the block, live if it has a terminal and ``plain`` is false; libraries are quiet.

    A view inside another one is the outer one.
    """
    from sleepkit.reporting.live.noise import quiet

    global _view
    if _view is not _DEFAULT:
        yield
        return
    with quiet(say):
        view = _Live() if not plain and _has_terminal() else _Plain()
        _view = view if _is_main() else _Silent()
        try:
            yield
        finally:
            _view.stop()
            _view = _DEFAULT


@contextmanager
def hidden() -> Iterator[None]:
    """Show nothing of what is done inside the block, and no warning: it is done to see what it would cost."""
    import logging

    global _view
    before, _view = _view, _Silent()
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
        _view = before


def is_shown() -> bool:
    """Return whether the caller is inside a `shown` block."""
    return _view is not _DEFAULT


def _has_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown", "")


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"  # as accelerate, torchrun and deepspeed set it


class _Plain:
    """View that prints plain lines on standard output."""

    def __init__(self) -> None:
        self.open: list[Phase] = []
        self.last = time.monotonic()
        self.told: set[int] = set()  # phases of which a line was shown

    def say(self, text: str) -> None:
        if _is_main():
            with suppress(OSError, ValueError):  # a closed pipe, a full disk, a closed file
                print(printable(text, sys.stdout.encoding), flush=True)

    def begin(self, started: Phase) -> None:
        self.open.append(started)

    def changed(self, changed: Phase) -> None:
        now = time.monotonic()
        if now - max(self.last, changed.started) < EVERY:
            return
        self.last = now
        self.told.add(id(changed))
        self.say(f"{changed.name}: {changed.counted()}{_time_left(changed, ', ')}")

    def end(self, ended: Phase) -> None:
        while self.open and ended in self.open:
            last = self.open.pop()
            if id(last) in self.told:
                self.told.remove(id(last))
                self.say(f"{last.name}: {last.counted()} after {_duration(last.seconds)}")

    def stop(self) -> None:
        self.open.clear()


class _Silent(_Plain):
    """View of all processes but the main one: it shows nothing."""

    def say(self, text: str) -> None:
        pass

    def changed(self, changed: Phase) -> None:
        pass


class _Live(_Plain):
    """Lines with the open phases below them, which are drawn again and again."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        super().__init__()
        texts = [TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("counted", "left")]
        name = TextColumn("{task.description}", markup=False)
        self.console = _console()
        self.bars = Progress(name, BarColumn(24), *texts, console=self.console, transient=True, refresh_per_second=4)
        self.tasks: dict[int, TaskID] = {}
        self.bars.start()

    def say(self, text: str) -> None:
        with suppress(OSError, ValueError):
            shown = printable(text, self.console.encoding)
            self.console.print(shown, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def begin(self, started: Phase) -> None:
        super().begin(started)
        name = printable(started.name, self.console.encoding)
        counted, total, done = started.counted(), started.total, started.done
        self.tasks[id(started)] = self.bars.add_task(name, total=total, completed=done, counted=counted, left="")

    def changed(self, changed: Phase) -> None:
        if id(changed) in self.tasks:
            left = _time_left(changed, "")
            self.bars.update(self.tasks[id(changed)], completed=changed.done, counted=changed.counted(), left=left)

    def end(self, ended: Phase) -> None:
        while self.open and ended in self.open:
            task = self.tasks.pop(id(self.open.pop()), None)
            if task is not None:
                self.bars.remove_task(task)

    def stop(self) -> None:
        super().stop()
        for task in list(self.bars.task_ids):
            self.bars.remove_task(task)
        with suppress(OSError, ValueError):
            self.bars.stop()


def _console() -> Console:
    """A console that never hides the cursor, so that a process which is killed leaves the terminal as it was."""
    from rich.console import Console

    class Sane(Console):
        def show_cursor(self, show: bool = True) -> bool:
            return False

    return Sane(file=sys.stdout)


def _time_left(phase: Phase, before: str) -> str:
    left = phase.left
    return "" if left is None else f"{before}about {_duration(left)} left"


def _duration(seconds: float) -> str:
    from sleepkit.reporting.tables import format_duration

    return format_duration(seconds)


def printable(text: str, encoding: str | None) -> str:
    """Without what a terminal would obey, or cannot show."""
    kept = "".join(letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return kept.encode(encoding or "utf-8", errors="replace").decode(encoding or "utf-8")


_DEFAULT = _Plain()
_view: _Plain = _DEFAULT
