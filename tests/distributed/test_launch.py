"""Two processes, with DDP, ZeRO-2 and ZeRO-3, learn what one process learns with the same batches."""

import json
import logging
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from launch import command, deepspeed, ranks, succeed, together
from safetensors.torch import load_file
from tiny import tiny_model, tiny_tokenizer
from tiny_night import losses, tiny_grown, tiny_trainer

HERE = Path(__file__).parent
ITEMS = 4

pytestmark = pytest.mark.distributed


def train(folder, processes, stage=None):
    tiny_model().save_pretrained(folder / "model")
    together(command(HERE / "train_tiny.py", folder, ITEMS), processes, stage)
    return json.loads((folder / "result.json").read_text()), load_file(folder / "state.safetensors")


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    return train(tmp_path_factory.mktemp("one") / "run", 1)


@pytest.mark.parametrize("way", ["ddp", "zero2", "zero3"])
def test_two_processes_equal_one(way, one_process, tmp_path):
    if way != "ddp":
        pytest.importorskip("deepspeed")
    expected, expected_state = one_process
    result, state = train(tmp_path / "run", 2, {"ddp": None}.get(way, way[-1]))
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


def sleep_of(folder):
    """The words of `recipes/sleep.py` for two nights of a tiny model."""
    tiny_model().save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    rows = {
        "dataset": [{"title": name, "context": f"{name} keeps a red lamp in the north tower."} for name in ("Ada", "Bert")],
        "general_prompts": [{"prompt": f"name {k} things."} for k in range(4)],
        "anchors": [{"prompt": "what is hot?", "answer": "fire"}],
    }
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    small = """--expert_slots 2 --expert_width 4 --use_cpu --max_steps 2 --per_device_train_batch_size 2 --context_max_tokens 300
        --max_new_tokens 4 --general_items 2 --general_tokens 4 --styles cloze recite --no_gate --passages_per_night 1""".split()
    data = [word for name in rows for word in (f"--{name}", folder / f"{name}.jsonl")]
    return ["recipes/sleep.py", "--model", folder / "base", "--output_dir", folder / "run", *data, *small]


def nights_of(folder):
    """A DeepSpeed night has a trainer of its own, and DeepSpeed takes the plugin of a configuration once only."""
    return [night["night"] for night in json.loads((folder / "run" / "results.json").read_text())["nights"]]


def test_a_recipe_of_two_nights(tmp_path):
    pytest.importorskip("deepspeed")
    together(command(*sleep_of(tmp_path)), stage=2)
    assert nights_of(tmp_path) == [1, 2]


@pytest.mark.slow
def test_a_recipe_of_two_nights_from_the_launcher(tmp_path):
    pytest.importorskip("deepspeed")
    succeed([*deepspeed(3), HERE.parent / "launch.py", *sleep_of(tmp_path)])
    assert nights_of(tmp_path) == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_a_recipe_as_users_start_it_with_what_deepspeed_compiles(stage, tmp_path):
    pytest.importorskip("deepspeed")
    succeed([*deepspeed(stage), *sleep_of(tmp_path)])
    assert nights_of(tmp_path) == [1, 2]


def test_two_processes_try_the_same_dreams_as_one(tmp_path):
    found = {}
    for name, processes in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        together(command(HERE.parent / "dream_tiny.py", tmp_path / name), processes)
        assert (tmp_path / name / "trials.txt").read_text().count("a trial") == 8  # no rank does the other's
        assert (tmp_path / name / "dreams" / "dreamer_1" / "adapter_model.safetensors").is_file()
        found[name] = [
            json.loads(line) for line in (tmp_path / name / "dreams/round_1/context_000.jsonl").read_text().splitlines()
        ]
    assert [row["chosen"] for row in found["one"]] == [row["chosen"] for row in found["two"]]
    assert [row["reward"] for row in found["two"]] == pytest.approx([row["reward"] for row in found["one"]], abs=1e-5)


def a_night(folder, **options):
    """Four steps with a checkpoint after two; each rank says what came of them."""

    def work():
        logging.getLogger("sleepkit").addHandler(logging.StreamHandler(sys.stderr))  # pytest keeps what is logged to itself
        trainer = tiny_trainer(folder, model=tiny_grown()[0], max_steps=4, save_strategy="steps", save_steps=2, **options)
        log = trainer.run()
        print(json.dumps({"tokens": log["train_tokens"], "losses": losses(trainer)}))

    return work


def said(done):
    """What the first rank said, and what was logged."""
    assert not any(one.returncode for one in done), done[0].stderr[-3000:] + done[-1].stderr[-3000:]
    return json.loads(done[0].stdout.splitlines()[-1]), done[0].stderr


def test_a_night_of_ddp_begins_again_under_zero(tmp_path):
    """Its optimizer's state is of another form."""
    pytest.importorskip("deepspeed")
    first, _ = said(ranks(a_night(tmp_path), 2))
    shutil.rmtree(tmp_path / "checkpoint-4")
    again, log = said(ranks(a_night(tmp_path), 2, "cpu_zero2"))
    assert "checkpoint-2 is passed over and removed: it was written by 2 processes, and this is a run of 2 processes" in log
    assert "under ZeRO-2; the training begins again" in log
    assert again["losses"] == pytest.approx(first["losses"], abs=1e-5) and len(again["losses"]) == 4


def test_a_checkpoint_under_deepspeed_holds_no_frozen_weight(tmp_path):
    pytest.importorskip("deepspeed")
    whole, _ = said(ranks(a_night(tmp_path), 2, "cpu_zero2"))
    (states,) = (tmp_path / "checkpoint-2").rglob("mp_rank_00_model_states.pt")
    kept = torch.load(states, weights_only=False)["module"]
    assert kept and all(".sleep_experts.slots.0." in name for name in kept)
    shutil.rmtree(tmp_path / "checkpoint-4")
    resumed, log = said(ranks(a_night(tmp_path), 2, "cpu_zero2"))
    assert "passed over" not in log and resumed == whole


def test_tokens_of_all_processes_are_counted(tmp_path):
    """Each item in a row of its own: packed, the prefix that all share passes once on each process."""
    one, _ = said(ranks(a_night(tmp_path / "one", packing=False, per_device_train_batch_size=4), 1))
    two, _ = said(ranks(a_night(tmp_path / "two", packing=False, per_device_train_batch_size=2), 2))
    shutil.rmtree(tmp_path / "two" / "checkpoint-4")
    resumed, _ = said(ranks(a_night(tmp_path / "two", packing=False, per_device_train_batch_size=2), 2))
    assert one["tokens"] == two["tokens"] == resumed["tokens"] > 0
