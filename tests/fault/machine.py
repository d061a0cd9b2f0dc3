"""Runs whole commands in processes of their own, and lets them meet with a fault at a chosen moment.

    run(["recipes/sleep.py", "--dataset", ...], Fault("kill", at=17))  ->  Outcome(code, out, err, events, seconds)

A command runs in a fork of this process, which has imported the heavy packages already, so that it takes a second or two.
Moments are counted in changes of the file system (`sys.addaudithook`: files opened for writing, renames, removals, folders
made) below the folder that is watched.  A Trainer's steps are moments too.

    kill, term, interrupt    the process gets SIGKILL, SIGTERM or SIGINT at the moment
    full                     from the moment on no file can be written: "No space left on device"
    denied                   the file of this moment cannot be written: "Permission denied"
    nan                      at the moment, a step, gradients become not a number
    clock                    from the moment on it is ten years ago
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import launch  # noqa: E402
from launch import ROOT, preload  # noqa: E402

__all__ = ["ROOT", "Fault", "Outcome", "preload", "run", "side_by_side"]
KINDS = ("kill", "term", "interrupt", "full", "denied", "nan", "clock")
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "interrupt": signal.SIGINT}
SECONDS = 240


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and when.

    Attributes:
        kind: one of `KINDS`, or "" for nothing.
        at: the moment, counted from 1; of steps for "nan", else of changes of files.
    """

    kind: str = ""
    at: int = 0


@dataclass
class Outcome:
    """How a command ended.

    Attributes:
        code: exit code; negative for a signal.
        out, err: all that was printed.
        moments: changes of files, in order, each ``event path``.
        steps: optimizer steps of all trainers.
    """

    code: int
    out: str
    err: str
    moments: list[str] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0

    @property
    def traceback(self) -> bool:
        """Whether somebody who typed the command saw a traceback."""
        return "Traceback (most recent call last)" in self.out + self.err

    @property
    def line(self) -> str:
        """The one line of an error; empty if there is none, or more than one."""
        said = [line for line in re.split(r"[\r\n]", self.err) if line.startswith("sleepkit: ")]
        return said[0] if len(said) == 1 else ""

    @property
    def is_told(self) -> bool:
        """Whether it ended with one line, about something that was foreseen."""
        return self.code in (1, 2) and bool(self.line) and "nobody has foreseen" not in self.line


def run(command: list[str], fault: Fault | None = None, watch: Path | None = None, seconds: float = SECONDS) -> Outcome:
    """Run a command to its end, or to its fault.

    Args:
        command: path of a recipe, or ``sleepkit``, and its arguments.
        watch: folder whose changes are the moments.
    """
    started = time.monotonic()

    def work() -> int:
        _arm(fault or Fault(), watch, log_file.fileno())
        return launch.command(*command)()

    with _Pipes() as pipes:
        *printed, log_file = pipes.files
        (code,) = launch.wait([launch.fork(work, *printed)], seconds)
        out, err, log = pipes.read()
    moments = [line for line in log.split("\n") if line and line != "step"]
    return Outcome(code, out, err, moments, log.count("\nstep\n") + log.startswith("step\n"), time.monotonic() - started)


def side_by_side(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """``work`` of each item as it is done, in forks of this process, as many at once as there are processors."""
    _WORK[:] = [lambda item=item: work(item) for item in items]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork")) as pool:
        for done in as_completed([pool.submit(_worked, number) for number in range(len(items))]):
            yield done.result()


_WORK: list[Callable[[], Any]] = []  # forks inherit it, and need not pickle it


def _worked(number: int) -> Any:
    return _WORK[number]()


class _Pipes(launch.Pipes):
    """Files for what a child prints and for its moments."""

    names = ("out", "err", "log")


def _arm(fault: Fault, watch: Path | None, log: int) -> None:
    counted = {"files": 0, "steps": 0}
    where = str(watch.resolve()) if watch is not None else "\0"

    def changed(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = (isinstance(mode, str) and any(c in mode for c in "wax+")) or (
                isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            )
            if not writes:
                return
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            path = arguments[0]
        else:
            return
        text = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
        if not os.path.abspath(text).startswith(where):
            return
        counted["files"] += 1
        os.write(log, f"{event} {text}\n".encode("utf-8", "replace"))
        _strike(fault, counted["files"])

    if watch is not None:
        sys.addaudithook(changed)

    from transformers import TrainerCallback
    from transformers.trainer_callback import CallbackHandler

    class Steps(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            counted["steps"] += 1
            os.write(log, b"step\n")
            if fault.kind == "nan" and counted["steps"] == fault.at:
                for parameter in kwargs["model"].parameters():
                    if parameter.grad is not None:
                        parameter.grad.fill_(float("nan"))

    initial = CallbackHandler.__init__

    def with_steps(self, callbacks, *arguments, **options):  # type: ignore[no-untyped-def]
        initial(self, [*callbacks, Steps()], *arguments, **options)

    CallbackHandler.__init__ = with_steps  # type: ignore[method-assign]


def _strike(fault: Fault, moment: int) -> None:
    if fault.kind in SIGNALS and moment == fault.at:
        os.kill(os.getpid(), SIGNALS[fault.kind])
    elif fault.kind == "full" and moment >= fault.at:
        raise OSError(errno.ENOSPC, "No space left on device")
    elif fault.kind == "denied" and moment == fault.at:
        raise PermissionError(errno.EACCES, "Permission denied")
    elif fault.kind == "clock" and moment == fault.at:
        now = time.time
        time.time = lambda: now() - 10 * 365 * 86400  # type: ignore[assignment]
