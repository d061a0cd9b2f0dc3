"""Hidden states of a language model as data: each text's own, whatever stands beside it in a batch; and a run on them."""

import json

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from sleepkit import text_features
from sleepkit.errors import SleepkitError
from sleepkit.vision_arguments import parse_mygo, parse_vision
from sleepkit.vision_run import run_vision

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
