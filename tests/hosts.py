"""Several machines on one: ranks that no launcher of the others minds, and launchers that meet by an address.

on_machines([work, work])                    two forks, as the only ranks of two machines
with Machines(namespaces=True) as machines:  two networks of their own, joined by a wire
    machines.start(0, "sleep", ...)          recipes/launch/node.sh on the first
"""

import contextlib
import os
import shutil
import subprocess
import time

import psutil
from launch import BIN, ROOT, Pipes, _no_launcher, _rank, fork, free_port, preload, wait

NODE = ROOT / "recipes" / "launch" / "node.sh"
WIRE = """
ip link set lo up
unshare --net sleep infinity & other=$!
sleep 0.5
ip link add wire type veth peer name wire netns $other
ip addr add 10.77.0.1/24 dev wire && ip link set wire up
nsenter --target $other --net sh -c 'ip link set lo up; ip addr add 10.77.0.2/24 dev wire; ip link set wire up'
echo $$ $other
wait
"""


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


def why_no_namespaces():
    """Why this machine gives no networks to a user, or None."""
    if missing := [tool for tool in ("ip", "nsenter", "unshare") if shutil.which(tool) is None]:
        return f"there is no {missing[0]}"
    done = subprocess.run(["unshare", "-rn", "ip", "link", "add", "wire", "type", "veth"], capture_output=True, text=True)
    return f"no network namespaces: {done.stderr.strip()}" if done.returncode else None


class Machines:
    """Two machines on this one: by their ports alone, or in network namespaces of their own."""

    def __init__(self, namespaces=False):
        self.namespaces, self.port, self.running = namespaces, free_port(), []
        self.addresses = ["10.77.0.1", "10.77.0.2"] if namespaces else ["127.0.0.1", "127.0.0.1"]

    def __enter__(self):
        self.prefixes = ["", ""]
        if self.namespaces:
            wire = subprocess.Popen(
                ["unshare", "-rn", "bash", "-e", "-c", WIRE], stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            self.running.append(wire)
            self.prefixes = [f"nsenter --preserve-credentials -U -n -t {pid}" for pid in wire.stdout.readline().split()]
            assert len(self.prefixes) == 2
        return self

    def __exit__(self, *_):
        for process in self.running:
            self.kill(process)

    def environment(self, **more):
        """Of a launcher on any of them."""
        env = {**_no_launcher(), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "TOKENIZERS_PARALLELISM": "false"}
        env |= {"GPUS": "1", "OMP_NUM_THREADS": "1"} | ({"GLOO_SOCKET_IFNAME": "wire"} if self.namespaces else {})
        return env | more

    def start(self, machine, *words, **more):
        """Starts the launcher of a machine, in a session of its own; returns its process."""
        env = self.environment(MACHINES="2", MACHINE=str(machine), HEAD=self.addresses[0], PORT=str(self.port), **more)
        env["ADDRESS"] = self.addresses[machine]
        command = [*self.prefixes[machine].split(), NODE, *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=env, start_new_session=True, **pipes)
        self.running.append(process)
        return process

    def run(self, *words, seconds=400, **more):
        """Runs the same on both; returns their exit codes and what they printed."""
        return self.outcome([self.start(machine, *words, **more) for machine in (0, 1)], seconds)

    def outcome(self, processes, seconds=400):
        """Exit codes and outputs, when all have ended or after so many seconds."""
        until, outputs = time.monotonic() + seconds, []
        for process in processes:
            try:
                outputs.append(process.communicate(timeout=max(1, until - time.monotonic()))[0])
            except subprocess.TimeoutExpired:
                self.kill(process)
                outputs.append(f"killed after {seconds} s: {process.communicate()[0]}")
        return [process.returncode for process in processes], outputs

    def kill(self, process):
        """Ends a launcher and all that it has started, as a power failure does."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        process.wait()
