"""Where the processes of a launch leave notes for each other, before their first collective and beside it.

    if launched():
        store().set("key", "value")

It is the key-value store through which torch's processes find each other, at the address that the launcher has put into the
environment; gloo, NCCL and DeepSpeed use it alike.  The launcher holds it, or process 0.
"""

from __future__ import annotations

import functools
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sleepkit.errors import SleepkitError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

__all__ = ["Place", "launched", "place", "store", "wait_until"]

PATIENCE = 600.0  # seconds in which all processes have come: the first import from a shared disk takes minutes
_NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """Which process of the launch this is.

    Attributes:
        rank: its number, of ``world``.
        local: its number on its machine.
        machine: number of the launcher that started it.
        host: name of its machine.
    """

    rank: int
    world: int
    local: int
    machine: str
    host: str


def launched() -> bool:
    """Whether a launcher has started several processes, this being one of them."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and all(os.environ.get(name) for name in _NEEDED)


def place() -> Place:
    """Return the place of this process; of one that was started alone, the only one."""
    host, local = socket.gethostname(), os.environ.get("LOCAL_RANK", "0")
    rank, world = os.environ.get("RANK", local), os.environ.get("WORLD_SIZE", "1")
    return Place(int(rank), int(world), int(local), os.environ.get("GROUP_RANK", host), host)


@functools.cache
def store() -> Store:
    """The store of this launch; call it on all processes.

    Raises:
        SleepkitError: it cannot be reached, or not all processes have come to it.
    """
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        shared, _, _ = next(iter(rendezvous("env://", timeout=timedelta(seconds=PATIENCE))))
    except (OSError, RuntimeError) as error:
        raise SleepkitError(
            f"the {place().world} processes did not all meet at {where} within {PATIENCE:.0f} s; look at what each machine has "
            "printed, and whether the others can reach this address"
        ) from error
    # A launcher alone may keep its store when it starts the processes again; several count their starts differently.
    alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return PrefixStore(f"sleepkit/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') if alone else 0}", shared)


def wait_until(holds: Callable[[], bool], seconds: float, pause: float = 0.1) -> bool:
    """Ask again and again whether something holds; False if it does not within ``seconds``."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(pause)
    return True
