"""Starts programs as a user does, in processes of their own, and leaves none of them behind."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SECONDS = 400  # the longest launch takes a minute by itself, of which half is DeepSpeed compiling


def run(command, seconds=SECONDS):
    """Runs a command from the root of the repository, one thread a process; returns its `CompletedProcess`, with output.

    After ``seconds`` it and all that it started are killed: workers that outlive their launcher would starve the tests after.
    """
    launcher = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    env = {key: value for key, value in os.environ.items() if key not in launcher and not key.startswith("ACCELERATE_")}
    env |= {"OMP_NUM_THREADS": "1", "PATH": f"{BIN}{os.pathsep}{env['PATH']}", "TOKENIZERS_PARALLELISM": "false"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(list(map(str, command)), cwd=ROOT, env=env, start_new_session=True, **pipes) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            err += f"\nkilled after {seconds} s"
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def succeed(command, seconds=SECONDS):
    """As `run`; fails with the last output unless the command ends well."""
    done = run(command, seconds)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def torchrun(processes=2):
    return [BIN / "torchrun", "--master_port", free_port(), "--nproc_per_node", processes]


def deepspeed(stage):
    config = ROOT / "accelerate_configs" / f"cpu_zero{stage}.yaml"
    return [BIN / "accelerate", "launch", "--config_file", config, "--main_process_port", free_port()]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
