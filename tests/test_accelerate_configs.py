"""Each accelerate configuration is read by accelerate's own loader, and no key in it is stale or misspelt."""

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
    "multi_node": ("MULTI_GPU", 16, 2),
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
