"""Published dreams come back, night by night, and damaged sets are refused."""

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.language.dreaming.dataset import add_night, load_dream_set, write_card
from sleepkit.language.dreaming.dreams import Dream

DREAMS = [
    Dream("self_qa", "Q: When?\nA: At noon.", [("When?", "At noon.")], "Orrin", reward=0.5, score=2.0, chosen=True),
    Dream("rewrite", "The bell rings at noon.", [("Tell me about Orrin.", "The bell rings at noon.")], "Orrin", reward=0.25),
]


def publish(folder):
    add_night(folder, "night_01", DREAMS, "tiny/model")
    add_night(folder, "night_02", DREAMS[:1], "tiny/model")
    write_card(folder, name="orrin-dreams", model="tiny/model", source="field notes")


def test_nights_are_appended_and_read_back(tmp_path):
    publish(tmp_path)
    found = load_dream_set(str(tmp_path))
    assert [(one.text, one.rows, one.reward) for one in found] == [(d.text, d.rows, d.reward) for d in (*DREAMS, DREAMS[0])]
    card = (tmp_path / "README.md").read_text()
    assert "tiny/model" in card and "| night_02 | 1 | 1 | 0.500 |" in card and "config_name: night_01" in card


def test_as_the_datasets_library_reads_it(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    publish(tmp_path / "set")
    assert datasets.get_dataset_config_names(str(tmp_path / "set")) == ["night_01", "night_02"]
    table = datasets.load_dataset(str(tmp_path / "set"), "night_01", split="train", cache_dir=str(tmp_path / "cache"))
    assert table["reward"] == [0.5, 0.25] and table[0]["rows"] == [{"prompt": "When?", "reply": "At noon."}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"context": "a"', "line 1 is not JSON"),
        ('{"context": "a"}\n', "line 1 is not a dream"),
        ("[1]\n", "line 1 is not a dream but a list"),
        ('{"context": "a", "style": "long", "text": 3, "rows": []}\n', "text of type int"),
        ('{"context": "a", "style": "long", "text": "\\ud800", "rows": []}\n', "half of a surrogate pair"),
        ('{"context": "a", "style": "long", "text": "b", "rows": [], "reward": "high"}\n', "reward of type str"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_damaged_sets_are_refused(tmp_path, text, message):
    (tmp_path / "night_01.jsonl").write_text(text)
    with pytest.raises(SleepkitError, match=message):
        load_dream_set(str(tmp_path))


def test_missing_sets_are_refused(tmp_path):
    with pytest.raises(SleepkitError, match="holds no .jsonl"):
        load_dream_set(str(tmp_path))
    with pytest.raises(SleepkitError, match="cannot be loaded from the Hub"):
        load_dream_set("nobody/nowhere")
    with pytest.raises(SleepkitError, match="nowhere does not exist"):
        load_dream_set(str(tmp_path / "nowhere"))
