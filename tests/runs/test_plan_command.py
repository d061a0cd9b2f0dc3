"""`sleepkit plan`: from config.json, tokenizer and data alone."""

import json

import pytest
from tiny import tiny_model, tiny_tokenizer

from sleepkit import cli

TEXT = "The first keeper of Skarrowmere Light was Ada Finch. Its lamp was lit in 1871 by Orla Dane. The pier opened in 1907."


@pytest.fixture
def shape(tmp_path):
    """A folder with a configuration and a tokenizer, and no weights; and a document."""
    model = tiny_model(max_position_embeddings=8192)
    model.config.save_pretrained(tmp_path / "shape")
    model.generation_config.save_pretrained(tmp_path / "shape")
    tiny_tokenizer().save_pretrained(tmp_path / "shape")
    (tmp_path / "light.md").write_text(TEXT)
    return ["--model", str(tmp_path / "shape"), "--dataset", str(tmp_path / "light.md"), "--output_dir", str(tmp_path / "run")]


def test_it_says_what_a_run_would_cost_without_any_weights(shape, tmp_path, capsys):
    assert cli.main(["plan", *shape, "--max_steps", "3", "--gpus", "2x80"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("fits: needs ")
    for part in (
        "1 night: ",
        "3 steps",
        "tokens trained on",
        "FLOP",
        "weights",
        "experts",
        "training",
        "publish (plain)",
        "assumed:",
    ):
        assert part in said, part
    assert "asked about 0 of" not in said and not (tmp_path / "run").exists()


def test_the_same_numbers_as_json(shape, capsys):
    assert cli.main(["plan", *shape, "--max_steps", "3", "--json", "true"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["fits"] and plan["nights"][0]["steps"] == 3
    assert plan["tokens"]["trained"] == plan["nights"][0]["train_tokens"] > 0
    assert plan["memory"]["peak_bytes"] > plan["memory"]["libraries"] > 1e8
    assert plan["seconds"] == pytest.approx(sum(cost["seconds"] for cost in plan["phases"]))
    assert plan["assumptions"] and plan["change"] == []


def test_what_does_not_fit_says_why_and_what_to_change(shape, capsys):
    assert cli.main(["plan", *shape, "--max_steps", "3", "--gpus", "4x0.0004", "--expert_width", "8"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("DOES NOT FIT: needs ")
    assert "to change: --per_device_train_batch_size 6" in said or "to change: " in said
    assert "--load_in_4bit true: " in said and "shard the model over the GPUs" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--gpus", "many"], "gpus is 'many'; give their number and the gigabytes of each, such as 8x80"),
        (["--model", "/no/such/folder"], "cannot read config.json and tokenizer of /no/such/folder"),
        (["--dataset", "/no/such/folder"], "/no/such/folder"),
        (["--context_max_tokens", "9000"], "9000"),
    ],
)
def test_what_a_run_would_refuse_is_refused_in_one_line(shape, capsys, change, message):
    assert cli.main(["plan", *shape, *change]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said.removeprefix("error: ")
