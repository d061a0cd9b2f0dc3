"""The last line of a command that ends early, and its exit code.

    2    `SleepkitError`: what its user can repair       1    anything else: a full disk, too little memory, a fault
    130  Ctrl-C          143  SIGTERM                    141  nobody reads the output any more

Each is one line on stderr, `sleepkit: error: ...`; ``--traceback`` or ``SLEEPKIT_TRACEBACK=1`` prints the traceback above it.
Of several processes each machine prints one, the same, when the first of them ends (utils/launch/ends.py).
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from sleepkit.errors import SleepkitError, first_line, show_tracebacks, tracebacks_are_shown
from sleepkit.reporting.live.noise import hush_late
from sleepkit.utils.launch.ends import Last, end, heed, part, tell

__all__ = ["guard", "report"]

LONGEST = 500  # characters of another library's message
_LOST = ("Connection closed by peer", "Connection reset by peer")  # as gloo says it
CONTINUES = "the same command continues a run where it stopped"


class _Terminated(BaseException):
    """SIGTERM has come; no `Exception`, so that nothing on the way takes it for a fault."""


def guard(command: Callable[[], object]) -> int:
    """Call ``command`` and return an exit code; whatever ends it becomes one line."""
    show_tracebacks(False)
    hush_late()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels, whoever imports it
    _write_any_letter()
    try:
        with _terminable():
            heed()
            command()
            sys.stdout.flush()
        part()
        return 0
    except SleepkitError as error:
        return _end(error, f"error: {' '.join(str(error).split())}", 2, is_users=True)
    except KeyboardInterrupt as error:
        return _end(error, f"interrupted; {CONTINUES}", 130)
    except _Terminated as error:
        return _end(error, f"terminated; {CONTINUES}", 143)
    except Exception as error:
        if isinstance(_lost_output(), BrokenPipeError) and isinstance(error, BrokenPipeError):
            return 141
        return _end(error, f"error: {_described(error)}", 1)


def report(error: Exception) -> None:
    """Print an error as the last line of a command, where the command goes on."""
    _trace(error)
    line = " ".join(str(error).split()) if isinstance(error, SleepkitError) else _described(error)
    with suppress(OSError, ValueError):  # there may be no stderr
        print(f"sleepkit: error: {line}", file=sys.stderr, flush=True)


def _end(error: BaseException, line: str, code: int, is_users: bool = False) -> int:
    """Print the line of a command that ends, and let the other processes of its launch end with it; returns their exit code."""
    _trace(error)
    return end(tell(Last(line, code, is_users)))


def _described(error: Exception) -> str:
    """Return one line for an error that nobody has foreseen: its kind, what it says, and what may help."""
    said = first_line(error)
    said = said if len(said) <= LONGEST else f"{said[:LONGEST]} ..."
    more = "--traceback shows where"
    if isinstance(error, OSError) and error.strerror:
        places = " -> ".join(str(one) for one in (error.filename, error.filename2) if one is not None)
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the file and its folder"
        return f"{error.strerror}{f': {places}' if places else ''}; {remedy}, {CONTINUES} ({more})"
    if _is_memory(error, said):
        return f"out of memory ({said}); use smaller batches, images or documents, or a smaller model ({more})"
    if any(words in said for words in _LOST):
        return f"another process of the run is gone, killed or out of memory ({said}); {CONTINUES}"
    kind = type(error).__name__
    return f"{kind}: {said}; nobody has foreseen this: {more}" if said != kind else f"{kind}; nobody has foreseen this: {more}"


def _is_memory(error: Exception, said: str) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "t allocate memory" in said


def _trace(error: BaseException) -> None:
    if tracebacks_are_shown():
        traceback.print_exception(type(error), error, error.__traceback__)


def _write_any_letter() -> None:
    """Let a terminal that knows no umlauts show them as \\xfc, where it would raise an error."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) in ("strict", "surrogateescape") and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _lost_output() -> OSError | None:
    """Why our own output cannot be written, if so; then nothing more is written to it, not even at exit."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the process as Ctrl-C does, inside the block: open files are closed, drafts removed.

    Not where a launcher minds several processes: one that waits for another in a library would not come to it.
    """
    alone = os.environ.get("WORLD_SIZE", "1") == "1" and threading.current_thread() is threading.main_thread()
    if not alone:
        yield
        return

    process = os.getpid()

    def terminate(number: int, frame: Any) -> NoReturn:
        if os.getpid() != process:  # a worker that loads data: it inherits this, and has nothing to say
            os._exit(128 + number)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
