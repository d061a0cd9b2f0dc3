"""One process of a launch that ends by an error ends all others, with its line: none waits for it in a collective.

    heed()                               at the start of a command: a thread asks, twice a second, whether another has ended
    code = end(tell(Last("no room", 1))) at its bad end: leaves word, and prints the word of the process that ended first
    part()                               at its good end

A launcher ends the other processes of its own machine by itself, but not those of other machines, and a collective waits for
``ddp_timeout`` at worst.  A process that is killed (`kill -9`, too little memory) leaves no word: its launcher's restart, or
the broken connection, is what the others see.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from sleepkit.utils.launch.store import launched, place, store, wait_until

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

__all__ = ["Last", "end", "heed", "part", "tell"]

EVERY = 0.5  # seconds between two looks
GRACE = 8.0  # seconds in which the others end too


@dataclass(frozen=True)
class Last:
    """The last word of a process.

    Attributes:
        line: what it says.
        code: with which all exit.
        is_users: whether the user can repair it: then all find the same, and to start again would not help.
        rank, machine, host: its place, filled in by `tell`.
    """

    line: str
    code: int
    is_users: bool = False
    rank: int = 0
    machine: str = ""
    host: str = ""


class _Notes:
    """The store, once `heed` has found it, and whether this process still looks into it."""

    store: Store | None = None
    over = threading.Event()
    ending = threading.Lock()  # the thread that holds it ends the process


def heed() -> None:
    """Begin to look for the end of other processes; nothing for one that was started alone."""
    _Notes.ending = threading.Lock()
    if launched():
        _Notes.store = store()
        _Notes.over.clear()
        threading.Thread(target=_look, args=(_Notes.store,), name="sleepkit-ends", daemon=True).start()


def tell(last: Last) -> Last:
    """Leave word that this process ends; returns the word of the one that ended first."""
    _Notes.over.set()
    _Notes.ending.acquire()
    here, notes = place(), _Notes.store
    last = replace(last, rank=here.rank, machine=here.machine, host=here.host)
    if notes is None:
        return last
    with suppress(RuntimeError):  # the process that holds the store may be gone
        if notes.add("claimed", 1) == 1:
            notes.set("last", json.dumps(asdict(last)))
        if wait_until(lambda: notes.check(["last"]), GRACE):
            last = Last(**json.loads(notes.get("last")))
    return last


def end(last: Last) -> int:
    """Print a word once on each machine, let all processes do so, and return the exit code."""
    here = place()
    mine, elsewhere = last.rank == here.rank, last.machine != here.machine
    if here.local == 0 if last.is_users else mine or (elsewhere and here.local == 0):
        host = f" on {last.host}" if elsewhere else ""
        whose = f" (process {last.rank}{host})" if not last.is_users and last.rank else ""
        with suppress(OSError, ValueError):  # there may be no stderr
            print(f"sleepkit: {last.line}{whose}", file=sys.stderr, flush=True)
    _leave(mine)
    if _Notes.store is not None and last.is_users and here.local == 0 and _restarts():
        os.kill(os.getppid(), signal.SIGTERM)  # the launcher, which would start all again, to the same end
    return last.code


def part() -> None:
    """End well: stop looking."""
    _Notes.over.set()
    _leave(False)


def _leave(is_first: bool) -> None:
    """Let process 0, which may hold the store, be the last, and before it the one whose word the others must read."""
    notes, here = _Notes.store, place()
    if notes is None:
        return
    with suppress(RuntimeError):
        if here.rank == 0 or is_first:
            others = here.world - (1 if here.rank == 0 else 2)
            wait_until(lambda: notes.add("gone", 0) >= others, GRACE)
        if here.rank != 0:
            notes.add("gone", 1)


def _restarts() -> bool:
    """Whether our parent is a launcher that would start us again."""
    done, most = (int(os.environ.get(f"TORCHELASTIC_{name}", "0")) for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    return done < most


def _look(notes: Store) -> None:
    """Look into the store until this process ends; end it when another one has left word."""
    while not _Notes.over.wait(EVERY):
        try:
            if not notes.check(["last"]):
                continue
            last = Last(**json.loads(notes.get("last")))
        except RuntimeError:
            return
        if _Notes.ending.acquire(blocking=False):
            os._exit(end(last))
