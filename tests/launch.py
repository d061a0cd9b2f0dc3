"""Starts programs as a user does, in processes of their own, and leaves none of them behind.

    succeed([sys.executable, "recipes/sleep.py", "--dataset", ...])    a new interpreter, or a launcher with its workers
    together(command("recipes/sleep.py", "--dataset", ...), 2)         two ranks, as torchrun starts them

The second way forks this process, which has imported the heavy packages already: a launch costs a second in place of half a
minute.
"""

import contextlib
import gc
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SECONDS = 400  # the longest launch takes a minute by itself, of which most is DeepSpeed compiling


def run(command, seconds=SECONDS):
    """Runs a command from the root of the repository, one thread a process; returns its `CompletedProcess`, with output.

    After ``seconds`` it and all that it started are killed: workers that outlive their launcher would starve the tests after.
    """
    env = {**_no_launcher(), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "TOKENIZERS_PARALLELISM": "false"}
    env["OMP_NUM_THREADS"] = "1"
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


@contextlib.contextmanager
def holding(folder):
    """Another process that works in a folder; yields it."""
    code = "import sys, time; from pathlib import Path; from sleepkit.utils.sealed import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            yield other
        finally:
            other.kill()


def deepspeed(stage):
    """The launcher with the configuration that users take for two processes."""
    return [BIN / "accelerate", "launch", "--config_file", _zero(stage), "--main_process_port", free_port()]


def compile_nothing():
    """DeepSpeed compiles for a minute a faster way for its processes to talk; without it, they talk as torch's do."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _zero(stage):
    return ROOT / "accelerate_configs" / f"cpu_zero{stage}.yaml"


def _no_launcher():
    """The environment without what a launcher of this process may have set."""
    launcher = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    return {key: value for key, value in os.environ.items() if key not in launcher and not key.startswith("ACCELERATE_")}


# -- forks ------------------------------------------------------------------------------------------------------------
def preload():
    """Import once what every command imports."""
    import accelerate
    import datasets
    import diffusers
    import matplotlib.figure
    import peft
    import torch
    import transformers
    import trl
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer
    from trl import TrlParser

    import sleepkit.cli
    import sleepkit.cycle.cycle

    _ = accelerate, datasets, diffusers, matplotlib.figure, peft, transformers, trl, TrlParser
    _ = AutoModelForCausalLM, AutoTokenizer, Trainer, sleepkit.cli, sleepkit.cycle.cycle
    torch.set_num_threads(1)
    gc.freeze()  # as in conftest.py: each training of a fork collects garbage


def command(script, *words):
    """What the process of a recipe, of another script, or of ``sleepkit`` does; call it for the exit code."""

    def run_it():
        from sleepkit import cli

        sys.argv = [str(script), *map(str, words)]
        if script == "sleepkit":
            return cli.main(sys.argv[1:])
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as end:
            return _code(end)
        return 0

    return run_it


def forked(work, seconds=SECONDS):
    """Calls ``work`` in one process; returns its `CompletedProcess`, with output."""
    preload()
    with Pipes() as pipes:
        (code,) = wait([fork(work, *pipes.files)], seconds)
        return subprocess.CompletedProcess(work, code, *pipes.read())


def together(work, processes=2, stage=None, seconds=SECONDS):
    """Calls ``work`` in so many ranks at once, or in one process by itself; fails with the last output unless all end well.

    Args:
        stage: of ZeRO, as `deepspeed`; None for DDP.
    """
    done = ranks(work, processes, None if stage is None else f"cpu_zero{stage}", seconds)
    ends = [f"\nrank {k} ended with {one.returncode}:\n{one.stdout[-2000:]}{one.stderr[-4000:]}" for k, one in enumerate(done)]
    assert not any(one.returncode for one in done), "".join(ends)


def ranks(work, processes=2, config=None, seconds=SECONDS):
    """Calls ``work`` in so many ranks at once; returns their `CompletedProcess`es, with output.

    Args:
        config: name of a file of accelerate_configs/, whose launcher's environment they get; None for torchrun's.
    """
    preload()
    env = _no_launcher() if config is None else launcher_environment(config, processes)
    env["TOKENIZERS_PARALLELISM"] = "false"
    if processes > 1:
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        env |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    with contextlib.ExitStack() as stack:
        pipes = [stack.enter_context(Pipes()) for _ in range(processes)]
        places = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {} for rank in range(processes)]
        children = [
            fork(lambda more=more: _rank(work, env | more), *pair.files) for more, pair in zip(places, pipes, strict=True)
        ]
        codes = wait(children, seconds, patience=10)  # for the line of the first of them
        return [subprocess.CompletedProcess(work, code, *pair.read()) for code, pair in zip(codes, pipes, strict=True)]


def launcher_environment(config, processes):
    """What ``accelerate launch`` with a file of accelerate_configs/ gives so many workers on this machine."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env, prepare_simple_launcher_cmd_env

    path = ROOT / "accelerate_configs" / f"{config}.yaml"
    here = ["--num_machines", "1", "--num_processes", str(processes), "--main_process_port", "0", "unused.py"]
    args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", str(path), *here]))
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        env = prepare_deepspeed_cmd_env(args)[1]
    else:
        env = prepare_multi_gpu_env(args) if processes > 1 else prepare_simple_launcher_cmd_env(args)[1]
    launcher = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    return {key: value for key, value in env.items() if key not in launcher}


def _rank(work, env):
    import torch
    from accelerate.state import AcceleratorState, PartialState

    os.environ.clear()
    os.environ.update(env)
    AcceleratorState._reset_state(reset_partial_state=True)  # of this process's tests; a rank finds its place by itself
    assert not PartialState._shared_state
    if "ACCELERATE_USE_DEEPSPEED" in env:
        compile_nothing()
    code = work()
    if not code and torch.distributed.is_initialized():
        torch.distributed.barrier()  # the first rank holds the others' store
    return code


class Pipes:
    """Files for what a child prints."""

    names = ("out", "err")

    def __enter__(self):
        self.files = [os.fdopen(os.memfd_create(name), "w+b", buffering=0) for name in self.names]
        return self

    def __exit__(self, *_):
        for file in self.files:
            file.close()

    def read(self):
        return [os.pread(file.fileno(), 1 << 26, 0).decode("utf-8", "replace") for file in self.files]


def fork(work, out, err):
    """The number of a child that prints to ``out`` and ``err``, calls ``work`` for its exit code, and never comes back."""
    child = os.fork()
    if child:
        return child
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    code = 70
    try:
        os.chdir(ROOT)
        code = work() or 0
    except SystemExit as end:
        code = _code(end)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _code(end):
    return end.code if isinstance(end.code, int) else 0 if end.code is None else 1


def wait(children, seconds, patience=0):
    """Exit codes of children, negative for a signal; ``patience`` seconds after one has failed, or after ``seconds`` (-999), the
    others are killed."""
    codes, until, failed = {}, time.monotonic() + seconds, None
    while len(codes) < len(children):
        for child in set(children) - set(codes):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
        failed = failed or (any(codes.values()) and time.monotonic())
        late = time.monotonic() > until
        if late or (failed and time.monotonic() >= failed + patience):
            for child in set(children) - set(codes):
                os.kill(child, signal.SIGKILL)
                status = os.waitpid(child, 0)[1]
                codes[child] = -999 if late else os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return [codes[child] for child in children]


if __name__ == "__main__":  # for launchers: launch.py <recipe> <its arguments>
    compile_nothing()
    sys.exit(command(*sys.argv[1:])())
