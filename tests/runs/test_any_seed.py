"""Any whole number from 0 to 2**63 - 1 is a seed, of each command; two seeds never draw the same."""

import json
import weakref

import pytest
import torch
from safetensors.torch import load_file
from test_run import command, files  # noqa: F401  # a fixture
from tiny_images import write_npz

from sleepkit import cli
from sleepkit.language.dreaming import trainer as dreaming_trainer
from sleepkit.language.dreaming.dreams import Dream, Dreamed
from sleepkit.reporting.results import read_results
from sleepkit.runs.arguments.images import parse_mygo, parse_vision
from sleepkit.runs.arguments.language import parse, parse_baseline
from sleepkit.runs.dream import run_dream
from sleepkit.runs.images import run_vision
from sleepkit.runs.sleep import run_baseline, run_sleep
from sleepkit.trainers import language

pytestmark = pytest.mark.usefixtures("undrawn")

SEEDS = [20240115, 4_294_968_000, 2**63 - 1]


@pytest.mark.parametrize("seed", SEEDS)
def test_sleep(seed, files, tmp_path, capsys):  # noqa: F811
    more = ["--seed", str(seed), "--order", "random", "--nights", "3", "--sender", "adapter"]
    assert cli.main(command(files, tmp_path, *more)) == 0, capsys.readouterr().err  # three nights in two experts: a merge
    assert read_results(tmp_path)["seed"] == seed


@pytest.mark.parametrize("baseline", ["lora", "finetune_qa", "trl_distillation"])
def test_baselines(baseline, files, tmp_path):  # noqa: F811
    more = ["--seed", str(SEEDS[-1]), "--nights", "1", "--method", baseline]
    (record,) = run_baseline(*parse_baseline(command(files, tmp_path, *more)[1:]))
    assert record.seed == SEEDS[-1] and record.method == baseline


def test_dreams(files, tmp_path, monkeypatch):  # noqa: F811
    def dream(model, tokenizer, contexts, *_):
        return [Dreamed([Dream("rewrite", "z", [("z", "z z")], context.name)]) for context in contexts]

    monkeypatch.setattr(dreaming_trainer, "dream", dream)
    small = "--dream_rounds 1 --trial_steps 1 --trial_rank 2 --dreamer_rank 2 --dream_held_out 1 --nights 1 --styles wh cloze"
    words = [word for word in command(files, tmp_path, *small.split(), "--seed", str(SEEDS[-1]))[1:] if word != "--no_gate"]
    assert run_dream(*parse(words)).seed == SEEDS[-1]


@pytest.mark.parametrize("method", ["er", "der", "ewc", "joint", "generative"])
@pytest.mark.parametrize("seed", SEEDS[1:])
def test_images(method, seed, tmp_path):
    data = write_npz(tmp_path / "digits")
    more = f"--experiences 2 --method {method} --num_train_epochs 1 --use_cpu --buffer_size 8 --cnn_widths 4 --hidden_size 8"
    more += f" --vae_hidden 4 --class_order random --probe_images 4 --seed {seed} --augmentation crop"
    words = ["--dataset", str(data), "--output_dir", str(tmp_path / "run"), *more.split()]
    if method != "er":
        words = [word for word in words if word not in ("--augmentation", "crop")]
    (record,) = run_vision(*parse_vision(words))
    assert record.seed == seed and len(record.accuracy_matrix) == 2


def test_generative_replay_and_a_domain_stream(tmp_path):
    data = write_npz(tmp_path / "digits")
    more = "--experiences 2 --num_train_epochs 1 --use_cpu --cnn_widths 4 --hidden_size 8 --generator_epochs 1 --judge_epochs 1"
    more += f" --sleep_steps 4 --generator_hidden 8 --seed {SEEDS[-1]} --scenario domain --domains permutation --judged_dreams 4"
    words = ["--dataset", str(data), "--output_dir", str(tmp_path / "run"), *more.split()]
    (record,) = run_vision(*parse_mygo(words))
    assert len(record.accuracy_matrix) == 2


def test_no_two_seeds_share_a_night(files, tmp_path, capsys):  # noqa: F811
    """`seed + night` drew night 2 of seed 0 as night 1 of seed 1."""
    first = {}
    for seed in (0, 1):
        assert cli.main(command(files, tmp_path / str(seed), "--seed", str(seed))) == 0
        states = sorted((tmp_path / str(seed) / "state").glob("night_0[12]"))
        experts = load_file(states[-1] / "expert_bank.safetensors")
        first |= {(seed, slot): experts[f"slot.{slot}.layer.3.gate_proj"] for slot in (0, 1)}
    keys = list(first)
    assert len(keys) == 4
    assert not any(torch.equal(first[one], first[other]) for k, one in enumerate(keys) for other in keys[:k])
    assert json.loads((tmp_path / "1" / "results.json").read_text())["seed"] == 1


def test_the_first_seeds_model_is_gone_when_the_second_is_loaded(files, tmp_path, monkeypatch):  # noqa: F811
    alive, plain = [], language.ready_model

    def watched(*args):
        alive.append(sum(model() is not None for model in seen))
        model, tokenizer = plain(*args)
        seen.append(weakref.ref(model))
        return model, tokenizer

    seen: list[weakref.ref] = []
    monkeypatch.setattr(language, "ready_model", watched)
    run_sleep(*parse(command(files, tmp_path, "--nights", "1", "--seeds", "3", "4")[1:]))
    assert alive == [0, 0]
