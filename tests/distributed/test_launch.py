"""Two processes, with DDP, ZeRO-2 and ZeRO-3, learn what one process learns with the same batches."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_model

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BIN = Path(sys.executable).parent
ITEMS = 4

pytestmark = pytest.mark.distributed


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def launch(command, folder):
    tiny_model().save_pretrained(folder / "model")
    known = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    env = {key: value for key, value in os.environ.items() if key not in known and not key.startswith("ACCELERATE_")}
    env |= {"OMP_NUM_THREADS": "1", "PATH": f"{BIN}{os.pathsep}{env['PATH']}", "TOKENIZERS_PARALLELISM": "false"}
    run = [*map(str, command), str(HERE / "train_tiny.py"), str(folder), str(ITEMS)]
    done = subprocess.run(run, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads((folder / "result.json").read_text()), load_file(folder / "state.safetensors")


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    return launch([sys.executable], tmp_path_factory.mktemp("one") / "run")


def deepspeed(stage):
    config = ROOT / "accelerate_configs" / f"cpu_zero{stage}.yaml"
    return [BIN / "accelerate", "launch", "--config_file", config, "--main_process_port", free_port()]


@pytest.mark.parametrize("way", ["ddp", "zero2", "zero3"])
def test_two_processes_equal_one(way, one_process, tmp_path):
    if way == "ddp":
        command = [BIN / "torchrun", "--master_port", free_port(), "--nproc_per_node", 2]
    else:
        pytest.importorskip("deepspeed")
        command = deepspeed(way[-1])
    expected, expected_state = one_process
    result, state = launch(command, tmp_path / "run")
    assert (expected["world"], result["world"]) == (1, 2)
    assert result["distributed"] == {"ddp": "MULTI_CPU"}.get(way, "DEEPSPEED")
    assert (result["split_when_loaded"] > 0, result["split"] > 0) == (way == "zero3", way == "zero3")
    assert result["split_after"] == 0
    assert result["checkpoints"] == expected["checkpoints"] == ["checkpoint-2", "checkpoint-3"]
    assert len(result["losses"]) == 3 and result["losses"] == pytest.approx(expected["losses"], abs=1e-5)
    assert state.keys() == expected_state.keys()
    for name, value in expected_state.items():
        torch.testing.assert_close(state[name], value, atol=1e-5, rtol=1e-5)
    assert expected["resume_difference"] == 0 and result["resume_difference"] < 1e-6
    assert all(map(math.isfinite, result["rollout_losses"])) and len(result["rollout_losses"]) == 3
