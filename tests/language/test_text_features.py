"""Hidden states of a language model as data: each text's own, whatever stands beside it in a batch; and a run on them."""

import errno
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from sleepkit.errors import SleepkitError
from sleepkit.language import text_features
from sleepkit.runs.arguments.images import parse_mygo, parse_vision
from sleepkit.runs.images import run_vision

WORDS = {"a": "sun", "b": "rain on the roof", "c": "moon", "d": "wind"}


@pytest.fixture
def rows(tmp_path, monkeypatch):
    loaded = tiny_model(), tiny_tokenizer()
    monkeypatch.setattr("sleepkit.language.model_io.load_model", lambda name: loaded)
    paths = {}
    for split, each in (("train", 20), ("test", 5)):
        found = [{"text": f"{WORDS[label]} {number}", "label": label} for number in range(each) for label in WORDS]
        paths[split] = tmp_path / f"{split}.jsonl"
        paths[split].write_text("\n".join(map(json.dumps, found)))
    return paths


def test_a_text_has_its_own_states_in_any_batch():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    texts = ["rain on the roof", "sun", "a long tale of wind and of the moon"]
    alone = torch.cat([text_features.hidden_states(model, tokenizer, [text], 64, 1)[0] for text in texts])
    together, cut = text_features.hidden_states(model, tokenizer, texts, 64, 3)
    torch.testing.assert_close(together, alone, atol=2e-3, rtol=1e-2)
    assert cut == 0 and text_features.hidden_states(model, tokenizer, texts, 2, 3)[1] >= 1


def test_mygo_and_replay_run_on_texts(rows, tmp_path, capsys):
    text_features.write_features(rows, tmp_path / "features", "tiny")
    assert "train: 80 texts, 0 of them cut" in capsys.readouterr().out
    file = np.load(tmp_path / "features" / "train.npz")
    assert file["x"].shape == (80, tiny_model().config.hidden_size) and file["names"].tolist() == list(WORDS)
    few = ["--dataset", str(tmp_path / "features"), "--experiences", "2", "--top_size", "16", "--use_cpu"]
    few += ["--num_train_epochs", "4", "--per_device_train_batch_size", "8", "--buffer_size", "8"]
    brief = ["--replay_space", "features", "--generator_epochs", "5", "--sleep_steps", "20", "--dreams", "80"]
    (record,) = run_vision(*parse_mygo([*few, *brief, "--output_dir", str(tmp_path / "mygo")]))
    assert record.metrics["task_il"] > 0.5 and record.metrics["extractor_change"] > 0
    (record,) = run_vision(*parse_vision([*few, "--output_dir", str(tmp_path / "er"), "--method", "er"]))
    assert record.metrics["bytes"] == 8 * (2 * file["x"].shape[1] + 8)
    for more, words in (
        (["--method", "generative"], "method 'generative' has VAEs of images"),
        (["--augmentation", "crop"], "augmentation is 'crop' and the data are features"),
        (["--channels", "1"], "has features, not images; leave image_size and channels out"),
    ):
        with pytest.raises(SleepkitError, match=words):
            run_vision(*parse_vision([*few, "--output_dir", str(tmp_path / "bad"), *more]))
    with pytest.raises(SleepkitError, match="set replay_space to features"):
        run_vision(*parse_mygo([*few, "--output_dir", str(tmp_path / "bad")]))


def test_bad_rows_are_named(rows, tmp_path):
    with rows["test"].open("a") as file:
        file.write('\n{"text": "snow", "label": "e"}')
    with pytest.raises(SleepkitError, match=r"the label 'e' is missing in .*train\.jsonl"):
        text_features.write_features(rows, tmp_path / "features", "tiny")
    with pytest.raises(SleepkitError, match="does not exist; give a .jsonl"):
        text_features.write_features({**rows, "test": tmp_path / "none.jsonl"}, tmp_path / "features", "tiny")


def refused(rows, out, **options):
    with pytest.raises(SleepkitError) as error:
        text_features.write_features(rows, out, "tiny", **options)
    assert "\n" not in str(error.value) and ";" in str(error.value)
    assert not out.is_dir() or not list(out.iterdir())
    return str(error.value)


@pytest.mark.parametrize("name", ["batch_size", "max_tokens"])
@pytest.mark.parametrize("value", [0, -1, -32])
def test_sizes_below_one_are_refused(rows, tmp_path, name, value):
    assert f"{name} is {value}; give a whole number of at least 1" in refused(rows, tmp_path / "out", **{name: value})


def test_every_text_is_read_whatever_the_batch_size():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    for size in (1, 2, 7, 100):
        found, _ = text_features.hidden_states(model, tokenizer, list(WORDS.values()), 64, size)
        assert (found.abs().sum(1) > 0).all()


def test_texts_beyond_the_window(rows, tmp_path):
    said = refused(rows, tmp_path / "out", max_tokens=10_000)
    assert f"max_tokens is 10000 and the model's window holds {tiny_model().config.max_position_embeddings}; lower it" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "has no rows|is empty"),
        ('{"text": "rain"}', "label"),
        ('{"text": 7, "label": "a"}', "of type int"),
        ('{"text": "rain", "label": 1}', "of type int"),
        ('{"text": " ", "label": "a"}', "empty text"),
        ('["rain", "a"]', "of type list|no object|list"),
        ('{"text": "rain", ', "is not JSON"),
    ],
)
def test_rows_that_are_none(rows, tmp_path, content, words):
    rows["train"].write_text(content)
    assert re.search(words, refused(rows, tmp_path / "out")) and "train.jsonl" in refused(rows, tmp_path / "out")


def test_features_are_not_written_over_others(rows, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "test.npz").write_bytes(b"mine")
    monkeypatch.setattr("sleepkit.language.model_io.load_model", lambda name: pytest.fail("the model was loaded"))
    with pytest.raises(SleepkitError, match="out has test.npz already; choose another output_dir, or remove it"):
        text_features.write_features(rows, tmp_path / "out", "tiny")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["test.npz"]
    for path in (rows["test"], "/proc/nothing"):
        with pytest.raises(SleepkitError, match="output_dir .* cannot be written to .*; choose another folder"):
            text_features.write_features(rows, Path(path), "tiny")


def test_states_that_are_not_finite(rows, tmp_path, monkeypatch):
    model = tiny_model()
    torch.nn.init.constant_(next(model.get_decoder().parameters()), float("nan"))
    monkeypatch.setattr("sleepkit.language.model_io.load_model", lambda name: (model, tiny_tokenizer()))
    assert "are not finite in float16; use another model" in refused(rows, tmp_path / "out")


def test_a_full_disk_leaves_no_half_of_a_file(rows, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert "train.npz: No space left on device; free some space" in refused(rows, tmp_path / "out")


def test_many_labels_take_no_time_each(rows, tmp_path, monkeypatch):
    found = [{"text": "sun", "label": f"label {number}"} for number in range(5000)]
    for split in rows:
        rows[split].write_text("\n".join(map(json.dumps, found)))
    monkeypatch.setattr(text_features, "hidden_states", lambda *given: (torch.zeros(len(given[2]), 2), 0))
    start = time.process_time()
    text_features.write_features(rows, tmp_path / "out", "tiny")
    assert time.process_time() - start < 5
    file = np.load(tmp_path / "out" / "test.npz")
    assert file["names"][file["y"]].tolist() == [row["label"] for row in found]
