"""Dream2Learn from the command line: base and base + dreams on paired seeds, what they leave, and bad input in one line."""

from pathlib import Path

import launch
import pytest
import torch
import yaml
from launch import ROOT
from safetensors.torch import load_file
from tiny_images import write_npz
from tiny_painter import save_tiny_generator

from sleepkit.errors import SleepkitError
from sleepkit.reporting.results import RunRecord, read_results
from sleepkit.runs.arguments.images import parse_dream2learn, parse_vision
from sleepkit.runs.dream2learn import paired_metrics, run_dream2learn
from sleepkit.runs.images import run_vision

RECIPES = sorted((ROOT / "recipes" / "configs" / "dream2learn").glob("*.yaml"))
SMALL = """--experiences 2 --cnn_widths 4 --hidden_size 8 --num_train_epochs 4 --per_device_train_batch_size 8
    --learning_rate 0.01 --replay_batch_size 8 --buffer_size 12 --buffer_policy class_balanced --logging_steps 50 --use_cpu
    --sampler_steps 1 --probes 2 --dream_updates 3 --dreams 2 --dream_images 4 --dream_batch_size 4 --sleep_steps 4
    --probe_images 8""".split()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return save_tiny_generator(tmp_path_factory.mktemp("generator"))


def command(data, generator, folder, *more):
    return ["--dataset", str(data), "--generator", str(generator), "--output_dir", str(folder), *SMALL, *more]


def test_what_a_comparison_leaves(data, generator, tmp_path, capsys):
    more = ["--method", "d2l_er", "--seeds", "0", "1", "--others_dataset", str(data), "--judge_epochs", "1"]
    record = run_dream2learn(*parse_dream2learn(command(data, generator, tmp_path, *more)))
    found = read_results(tmp_path)
    assert found["metrics"] == record.metrics and record.config["seeds"] == [0, 1]
    promised = {
        "fwt_probe_gain",
        "fwt_probe_gain_low",
        "fwt_assigned_gain",
        "fwt_assigned_task_il_gain",
        "faa_gain",
        "cost_ratio",
        "forgetting_gain",
    }
    promised |= {"stop_updates", "stopped_early", "collapse_rate", "unet_calls"}
    assert promised <= record.metrics.keys() and record.metrics["cost_ratio"] > 1
    assert len(record.config["generator_hash"]) == 1 and (tmp_path / "stops.png").is_file()
    dreams = {path.name for path in (tmp_path / "d2l_er" / "seed_0" / "dreams").iterdir()}
    assert {"night_02.json", "judge"} <= dreams
    gain = [
        read_results(tmp_path / "d2l_er" / f"seed_{seed}")["metrics"]["faa"]
        - read_results(tmp_path / "er" / f"seed_{seed}")["metrics"]["faa"]
        for seed in (0, 1)
    ]
    assert record.metrics["faa_gain"] == pytest.approx(sum(gain) / 2)
    assert "d2l_er" in (tmp_path / "comparison.md").read_text() and "cost_ratio" in capsys.readouterr().out
    again = run_dream2learn(*parse_dream2learn(command(data, generator, tmp_path, *more)))
    assert again.metrics == record.metrics  # finished runs are read back


def test_paired_metrics():
    def pair(base, dreaming):
        return tuple(RunRecord("x", 0, metrics={"faa": faa, "cpu_seconds": cost}) for faa, cost in (base, dreaming))

    found = paired_metrics([pair((0.5, 10), (0.6, 30)), pair((0.4, 10), (0.52, 50))])
    assert found["faa_gain"] == pytest.approx(0.11) and found["faa_gain_low"] == pytest.approx(0.11 - 12.706 * 0.01, abs=1e-3)
    assert found["cost_ratio"] == 4 and found["faa_base"] == pytest.approx(0.45) and "fwt_probe_gain" not in found


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--generator", "./nowhere"), "generator './nowhere' cannot be loaded"),
        (("--method", "d2l_lwf"), "method is 'd2l_lwf'; use one of finetune"),
        (("--method", "lwf"), "method is 'lwf'; use one of d2l_er, d2l_er_ace, d2l_der"),
        (("--judge_epochs", "2"), "others_dataset is missing"),
        (("--scenario", "task"), "scenario is 'task'; dreams are classes"),
    ],
)
def test_bad_input_is_one_line(data, generator, tmp_path, more, words):
    with pytest.raises(SleepkitError) as error:
        args = parse_dream2learn(command(data, generator, tmp_path / "run", "--method", "d2l_er", *more))
        run_dream2learn(*args)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_the_methods_of_dream2learn_have_a_recipe_of_their_own(data, tmp_path):
    with pytest.raises(SleepkitError, match=r"run recipes/dream2learn\.py instead"):
        run_vision(
            *parse_vision(
                ["--dataset", str(data), "--output_dir", str(tmp_path), "--method", "d2l_er", "--experiences", "2", "--use_cpu"]
            )
        )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes(path):
    args, config = parse_dream2learn(["--config", str(path)])
    for key, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        found = getattr(args if hasattr(args, key) else config, key)
        assert found == (float(value) if key == "learning_rate" else value), key
    assert Path(config.output_dir) == Path("runs") / f"dream2learn_{path.stem}" and args.method.startswith("d2l_")


def test_the_promised_recipes_are_there():
    assert {path.stem for path in RECIPES} >= {"procedural_cpu", "mini_imagenet", "fg_imagenet", "imagenet_r"}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.distributed
def test_two_processes_dream_the_same_prompts_as_one(data, generator, tmp_path):
    prompts = {}
    for ranks in (1, 2):
        few = ["--per_device_train_batch_size", 8 // ranks, "--dream_updates", 2, "--oracle", "none", "--sleep_steps", 0]
        options = command(data, generator, tmp_path / str(ranks), "--method", "d2l_er")
        launch.together(launch.command("recipes/dream2learn.py", *options, *few), ranks)
        night = tmp_path / str(ranks) / "d2l_er" / "seed_42" / "night_01" / "dreams"
        state = [load_file(path)["path"] for path in sorted(night.glob("*.safetensors"))]
        prompts[ranks] = state[0] if ranks == 1 else torch.stack([state[0][0], state[1][0]])
    torch.testing.assert_close(prompts[1], prompts[2], atol=1e-4, rtol=1e-3)
