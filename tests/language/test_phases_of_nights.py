"""What a night finds of another run, of a kill or of a bad disk: its own phases are taken over, all others made again."""

import copy

import pytest
import torch
from test_learner import STORIES, make_learner
from tiny import tiny_model

from sleepkit.errors import SleepkitError
from sleepkit.language import learner as module
from sleepkit.language.dreaming.config import DreamingConfig
from sleepkit.language.questions.examples import load_items


def night(folder, story=0, model=None, number=1, **options):
    """One night in a folder; the learner and its log."""
    learner = make_learner(folder, model=model, **options)
    learner.wake(STORIES[story])
    return learner, learner.sleep(number, folder)


def equal(one, other):
    expected, found = one.bank.state_dict(), other.bank.state_dict()
    return expected.keys() == found.keys() and all(torch.equal(values, found[name]) for name, values in expected.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return night(tmp_path_factory.mktemp("whole"))


COUNTS = ("train_tokens", "items", "items_by_style", "before", "after")


def test_material_is_written_once(whole, tmp_path, monkeypatch):
    _, first = night(tmp_path)
    monkeypatch.setattr(module.LanguageLearner, "write_items", None)  # is not called
    again, log = night(tmp_path)
    assert equal(whole[0], again) and [log[name] for name in COUNTS] == [whole[1][name] for name in COUNTS]
    assert log["seconds_writing"] == first["seconds_writing"] > 0 and log["seconds"] > log["seconds_writing"]


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"story": 1}, "experience"),
        ({"number": 2}, "night"),
        ({"max_steps": 3}, "settings"),
        ({"context_overlap": 0}, "settings"),
        ({"model": "another"}, "model weights"),
        ({"model": "slept"}, "state"),
    ],
    ids=str,
)
def test_material_of_another_night_is_written_anew(other, word, whole, tmp_path, caplog):
    """State deleted, and another data set, night, setting, model or life before it used the folder."""
    before = copy.deepcopy(other)
    if before.get("model") == "another":
        before["model"] = tiny_model(seed=1)
    elif before.get("model") == "slept":
        before["model"] = copy.deepcopy(whole[0].model)
    used = before.pop("number", 1)
    learner, _ = night(tmp_path, number=used, **before)
    if used != 1:
        (tmp_path / "night_02").rename(tmp_path / "night_01")
    again, log = night(tmp_path)
    assert f"examples.jsonl is not taken over (it was made with another {word}" in caplog.text
    assert equal(whole[0], again) and [log[name] for name in COUNTS] == [whole[1][name] for name in COUNTS]


@pytest.mark.parametrize("name", ["examples.jsonl", "examples.jsonl.seal"])
@pytest.mark.parametrize("damage", ["bit", "cut", "missing"])
def test_damaged_material_is_written_anew(name, damage, whole, tmp_path, caplog):
    night(tmp_path)
    path = tmp_path / "night_01" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(bytes(content) if damage == "bit" else path.read_bytes()[: len(content) // 2])
    if damage == "missing":
        path.unlink()
    again, log = night(tmp_path)
    assert "examples.jsonl is not taken over" in caplog.text and equal(whole[0], again)
    assert [log[name] for name in COUNTS] == [whole[1][name] for name in COUNTS]
    assert load_items(tmp_path / "night_01" / "examples.jsonl")


def test_dreams_that_were_accepted_in_another_run_are_not_found(tmp_path):
    accepted = tmp_path / "night_01" / "dreams" / "accepted.jsonl"
    accepted.parent.mkdir(parents=True)
    accepted.write_text("{}")
    night(tmp_path, dreaming=DreamingConfig(dream_rounds=0))
    assert not accepted.exists()


@pytest.mark.parametrize("sender", ["context", "adapter"])
def test_weights_that_are_not_finite_end_the_night(sender, tmp_path):
    learner = make_learner(tmp_path, sender=sender)
    learner.seeding.learning_rate = 1e30
    learner.wake(STORIES[0])
    with pytest.raises(SleepkitError, match=r"night 1 has left .*lower learning_rate \(it was 1e\+30\)"):
        learner.sleep(1, tmp_path)
