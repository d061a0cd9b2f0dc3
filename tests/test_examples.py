"""The scripts of examples/: each is short, and runs on tiny inputs that are made here."""

import importlib.util
import json

import pytest
from launch import ROOT
from tiny import tiny_model, tiny_tokenizer
from tiny_images import write_npz

from sleepkit.reporting.results import read_results

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NIGHT = {
    **{
        "use_cpu": True,
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "expert_slots": 3,
        "expert_width": 4,
        "general_items": 2,
    },
    **{"general_tokens": 4, "max_new_tokens": 4, "context_max_tokens": 300, "styles": ["wh", "cloze"], "gate": False},
}
QUICK = {"use_cpu": True, "per_device_train_batch_size": 8, "cnn_widths": [4], "hidden_size": 8, "learning_rate": 0.01}


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_it_is_run(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 60 and f"python examples/{path.name}" in text


@pytest.fixture
def base(tmp_path):
    """A chat model of random weights in a folder."""
    tiny_model(max_position_embeddings=2048).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


@pytest.mark.usefixtures("undrawn")
def test_own_documents(base, tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    for name, text in (
        ("ada", "Ada keeps a red lamp in the north tower."),
        ("bert", "Bert keeps a blue lamp in the south tower."),
    ):
        (tmp_path / "notes" / f"{name}.md").write_text(text)
        trainer = example("own_documents").main(str(tmp_path / "notes"), str(tmp_path / "run"), base, **NIGHT)
    assert [night.experience for night in trainer.nights] == ["ada.md", "bert.md"]  # the second time only what was new
    assert "night 2: kept" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_chats(base, tmp_path, capsys):
    assert len(example("chats").main(str(tmp_path / "run"), base, **NIGHT)) == 2
    assert "Where does my sister Ines live?\n  before:" in capsys.readouterr().out


def test_inside_sft(base, tmp_path, capsys):
    callback = example("inside_sft").main(str(tmp_path), base, every=2, steps=4, **NIGHT)
    assert [night.number for night in callback.nights] == [1, 2] and "night 2: kept" in capsys.readouterr().out
    assert (tmp_path / "asleep" / "model" / "expert_bank.safetensors").is_file()


@pytest.mark.usefixtures("undrawn")
def test_images(tmp_path, capsys):
    digits = write_npz(tmp_path / "digits")
    options = {**QUICK, "experiences": 2, "buffer_size": 24, "replay_batch_size": 8, "num_train_epochs": 12}
    found = example("images").main(str(digits), str(tmp_path / "run"), **options)
    assert found["er"]["class_il"] > found["finetune"]["class_il"] and "er: accuracy on all classes" in capsys.readouterr().out
    assert (tmp_path / "run" / "classifier" / "README.md").is_file()


def test_class_incremental_text(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sleepkit.language.model_io.load_model", lambda name: (tiny_model(), tiny_tokenizer()))
    words = {"a": "sun", "b": "rain on the roof", "c": "moon", "d": "wind"}
    for split, each in (("train", 20), ("test", 5)):
        rows = [{"text": f"{words[label]} {number}", "label": label} for number in range(each) for label in words]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = [str(tmp_path / f"{split}.jsonl") for split in ("train", "test")]
    quick = {"use_cpu": True, "per_device_train_batch_size": 8, "sleep_steps": 20, "dreams": 80, "judged_dreams": 0}
    metrics = example("class_incremental_text").main(*files, str(tmp_path / "run"), "tiny", **quick)
    assert metrics["task_il"] > 0.5 and "night 2: c, d" in capsys.readouterr().out
    assert example("class_incremental_text").main(*files, str(tmp_path / "run"), "tiny", **quick)["task_il"] == metrics["task_il"]


def test_own_learner(tmp_path):
    digits = write_npz(tmp_path / "digits")
    metrics = example("own_learner").main(str(digits), tmp_path / "run", 2)
    assert metrics["class_il"] > 0.8 and metrics["forgetting"] >= 0
    assert [night["classes_known"] for night in read_results(tmp_path / "run")["nights"]] == [2, 4]
    assert example("own_learner").main(str(digits), tmp_path / "run", 2) == metrics  # read back
