"""Several machines on one: ranks that no launcher of the others minds, and launchers that meet by an address.

on_machines([work, work])                    two forks, as the only ranks of two machines
Hosts("run", words).start(0)                 the launcher of the first machine, as docs/distributed.md has it
"""

import contextlib
import os
import subprocess
import time

from launch import Pipes, _no_launcher, _rank, fork, free_port, preload, wait


def on_machines(works, seconds=100, **environment):
    """Calls each work in a rank of its own, as the only one of its machine; returns their `CompletedProcess`, with output.

    None is killed because another has failed: their launchers, on machines of their own, could not do it either.

    Args:
        environment: for all; a list has the values of each.
    """
    preload()
    world = str(len(works))
    base = _no_launcher() | {"TOKENIZERS_PARALLELISM": "false", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    base |= {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    until = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        pipes = [stack.enter_context(Pipes()) for _ in works]
        children = []
        for rank, (work, pair) in enumerate(zip(works, pipes, strict=True)):
            own = {name: value[rank] if isinstance(value, list) else value for name, value in environment.items()}
            env = base | {"RANK": str(rank), "GROUP_RANK": str(rank)} | own
            children.append(fork(lambda work=work, env=env: _rank(work, env), *pair.files))
        codes = [wait([child], until - time.monotonic())[0] for child in children]
        return [
            subprocess.CompletedProcess(work, code, *pair.read()) for work, code, pair in zip(works, codes, pipes, strict=True)
        ]
