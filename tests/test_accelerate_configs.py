"""Each accelerate configuration is read by accelerate's own loader, and no key in it is stale or misspelt."""

import subprocess
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "accelerate_configs").glob("*.yaml"))
EXPECTED = {
    "cpu": ("NO", 1, 1),
    "cpu_zero2": ("DEEPSPEED", 2, 1),
    "cpu_zero3": ("DEEPSPEED", 2, 1),
    "multi_gpu": ("MULTI_GPU", 8, 1),
    "single_gpu": ("NO", 1, 1),
    "zero1": ("DEEPSPEED", 8, 1),
    "zero2": ("DEEPSPEED", 8, 1),
    "zero3": ("DEEPSPEED", 8, 1),
    "zero3_multinode": ("DEEPSPEED", 16, 2),
}  # name -> (distributed type, processes, machines)


def test_all_configs_are_covered():
    assert [path.stem for path in CONFIGS] == sorted(EXPECTED)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_parses_with_known_keys_only(path):
    config = load_config_from_file(str(path))  # raises on an unknown top-level key
    assert isinstance(config, ClusterConfig)
    assert (config.distributed_type.value, config.num_processes, config.num_machines) == EXPECTED[path.stem]
    # `accelerate launch` copies the nested keys onto its own arguments without checking them
    arguments = {action.dest for action in launch_command_parser()._actions}
    assert set(config.deepspeed_config) | set(config.fsdp_config) <= arguments


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_says_when_to_use_it_and_suits_its_device(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    config = yaml.safe_load(text)
    on_cpu = path.stem.startswith("cpu")
    assert config["use_cpu"] is on_cpu
    assert config["mixed_precision"] == "no"  # a launcher that casts would cast the experts too
    if config["distributed_type"] == "DEEPSPEED":
        assert config["deepspeed_config"]["deepspeed_multinode_launcher"] == "standard"  # the default needs pdsh
        assert f"ZeRO-{config['deepspeed_config']['zero_stage']}" in text


def test_multinode_script_passes_each_machine_its_rank(tmp_path):
    """The Slurm script with a fake `srun` that runs its command once per machine and a fake accelerate that echoes."""
    script = ROOT / "recipes" / "slurm" / "submit_multinode.sbatch"
    tools = {
        "scontrol": "echo node-a; echo node-b",
        "srun": 'shift; for rank in 0 1; do SLURM_NODEID=$rank "$@"; done',
        ".venv/bin/accelerate": 'echo "$@"',
    }
    for name, body in tools.items():
        tool = tmp_path / name
        tool.parent.mkdir(parents=True, exist_ok=True)
        tool.write_text(f"#!/bin/bash\n{body}\n")
        tool.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_GPUS_PER_NODE": "h100:4",
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_NNODES": "2",
    }
    command = ["bash", str(script), "--config", "my run.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for rank, line in enumerate(lines):
        assert f"--num_machines 2 --num_processes 8 --machine_rank {rank} " in line
        assert "--main_process_ip node-a --main_process_port 24567 recipes/sleep.py --config my run.yaml" in line
