import re

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from sleepkit.errors import SleepkitError
from sleepkit.reporting.cards import dataset_card, is_hub_id, model_card, published_name

RESULTS = {
    "method": "knowledge seeding",
    "seed": 7,
    "config": {
        "learning_rate": 1e-3,
        "hub_token": "hf_secret",
        "unset": None,
        "data": {"path": "/home/ada/diary.jsonl", "files": ["/srv/private/a.md"]},
        "model": "owner/small-chat",
    },
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "hardware": {"cpu": "Some CPU", "cores": 2, "ram_bytes": 2**34, "gpus": []},
    "seconds": 432.7,
    "peak_memory_bytes": 2**31,
    "accuracy_matrix": [[0.5]],
    "metrics": {"recovery": 0.75, "anchor_kl": 0.03, "bwt": None},
    "examples": [{"question": "What is the secret?", "gold": "42", "before": "?", "after": "42", "in_context": "42"}],
    "nights": [{"night": 1, "committed": True}, {"night": 2, "committed": False}],
}


def card(**changes):
    arguments = {"model_name": "night-owl", "base_model": "owner/small-chat", "dataset": "Field notebook"}
    return model_card(RESULTS, **{**arguments, **changes})


def test_model_card_survives_the_hub_own_parser(tmp_path):
    card(license="apache-2.0", language="en").save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.base_model, data.license, data.library_name) == ("owner/small-chat", "apache-2.0", "sleepkit")
    assert data.language == ["en"] and data.pipeline_tag == "text-generation" and "sleepkit" in data.tags
    assert data.model_name == "night-owl"
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {
        "recovery": 0.75,
        "anchor_kl": 0.03,
    }
    assert {result.dataset_type for result in data.eval_results} == {"field-notebook"}


def test_model_card_tells_numbers_cost_and_paper():
    text = card().text
    assert "| recovery: (after - before) / (in context - before) | 0.750 |" in text
    assert "2 nights, of which 1 were kept" in text
    assert "Seed 7, 7 min 13 s on Some CPU (2 cores), at most 2.00 GiB. python 3.11.7, torch 2.13.0." in text
    assert "https://arxiv.org/abs/2606.03979" in text
    assert "Compared with other methods" not in text


def test_nothing_private_reaches_the_card():
    text = str(card())
    for private in ("secret", "42", "hf_", "/home/ada", "/srv", "unset"):
        assert private not in text
    assert "diary.jsonl" in text and "a.md" in text and "learning_rate: 0.001" in text


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("/home/ada/notes", "notes"),
        ("/home/ada/my notes/", "my notes"),
        ("~/private/notes.md", "notes.md"),
        ("./private/notes", "notes"),
        ("../notes", "notes"),
        ("private/2024/notes", "notes"),  # deeper than owner/name
        ("here/notes", "notes"),  # a folder, though it looks like a Hub id
        (r"C:\Users\ada\notes.md", "notes.md"),
        ("owner/name", "owner/name"),
        ("https://ada:word@host/notes?key=1", "https://host/notes"),
        ("Compare with /home/ada/x.jsonl, please; yes/no </s>.", "Compare with x.jsonl, please; yes/no </s>."),
        ("token hf_AbCdEfGhIjKl", "token "),
        ("", ""),
        ("plain words " * 400, "plain words " * 400),
    ],
)
def test_settings_are_told_without_folders_and_secrets(typed, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "notes").mkdir(parents=True)
    assert published_name(typed) == told
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", str(config_card({"a": [{"b": typed}], typed: 1})), re.DOTALL)[1])
    assert config["a"] == [{"b": told}] and told in config


def config_card(config):
    return model_card({**RESULTS, "config": config}, model_name="owl", base_model="owner/small", dataset="notes")


def test_fields_that_hold_secrets_are_left_out():
    text = str(
        config_card({"api_key": "a1", "hub_token": "a2", "password": "a3", "deep": {"client_secret": "a4"}, "max_tokens": 5})
    )
    assert not re.search(r"a\d\b", text) and "max_tokens: 5" in text


def test_a_local_base_model_is_named_but_not_linked():
    local = card(base_model="/models/mine/small")
    assert local.data.base_model is None
    assert "small after sleep" in local.text and "/models" not in str(local)
    assert 'load_model("OWNER/NAME", base_model="small")' in local.text and "give the folder where you have it" in local.text


def about(metrics, nights=({"committed": True},)):
    """The first lines of a card."""
    results = {**RESULTS, "metrics": {"nights_committed": 1, **metrics}, "nights": list(nights)}
    return model_card(results, model_name="owl", base_model="owner/small", dataset="notes").text.split("## ")[0]


def test_the_card_says_what_was_kept_and_measured():
    measured = about({"closed_book_before": 0.05, "closed_book_after": 0.57, "self_test_before": 0.1, "self_test_after": 0.9})
    assert "owner/small after sleep by knowledge seeding on notes." in measured
    assert "it answers 57% of the questions about it; before sleep it answered 5%" in measured
    own = about({"self_test_before": 0.1, "self_test_after": 0.9})
    assert "it answers 90% of the questions that it wrote about it and was never trained on; before sleep it answered 10%" in own
    assert "Whether it answers questions about that was not measured" in about({"anchor_kl": 0.1})
    lost = about({"closed_book_before": 0.5, "closed_book_after": 0.5}, [{"committed": False}] * 2)
    assert "owner/small as it was: it slept on notes" in lost and "no night was kept" in lost and "answers" not in lost


def test_baselines_get_a_table():
    text = card(baselines=[{**RESULTS, "method": "LoRA", "metrics": {"recovery": 0.5}}]).text
    assert "| knowledge seeding | 1 | 0.750 |" in text and "| LoRA | 1 | 0.500 |" in text


def test_a_run_without_metrics_has_no_card():
    with pytest.raises(SleepkitError, match="'knowledge seeding' has no metrics.*evaluate it first"):
        model_card({**RESULTS, "metrics": {"recovery": None}}, model_name="a", base_model="b/c", dataset="d")


def test_dataset_card(tmp_path):
    counts = {"question": 90, "rewrite": 910}
    made = dataset_card(counts, name="My nights", writer="owner/small-chat", source="my notes", language=["en", "de"])
    made.save(tmp_path / "README.md")
    loaded = DatasetCard.load(tmp_path / "README.md")
    assert loaded.data.size_categories == "1K<n<10K"
    assert loaded.data.language == ["en", "de"] and loaded.data.annotations_creators == "machine-generated"
    assert "| question | 90 |" in loaded.text and "| all | 1,000 |" in loaded.text
    assert "Written by owner/small-chat with my notes in view" in loaded.text
    with pytest.raises(SleepkitError, match="'empty' has no items"):
        dataset_card({}, name="empty", writer="w", source="s")


def test_the_card_of_a_lora_has_its_own_numbers_beside_those_of_the_slept_model():
    lora = {"rank": 32, "alpha": 64, "steps": 240, "items": 90, "general_items": 128, "seed": 7}
    lora["measures"] = {
        "closed_book": {"base": 0.0, "slept": 0.75, "lora": 0.5, "n": 12},
        "kl_general": {"base": 0.0041, "lora": 0.0032, "n": 60},
    }
    made = card(form="lora", lora=lora)
    assert (made.data.library_name, made.data.base_model_relation) == ("peft", "adapter")
    assert {score.metric_type: score.metric_value for score in made.data.eval_results} == {
        "closed_book": 0.5,
        "kl_general": 0.0032,
    }
    assert "| right answers to the run's own questions | 0% | 75% | 50% | 12 |" in made.text
    assert "| KL to the slept model on general prompts, nats per token | 0.0041 | 0 | 0.0032 | 60 |" in made.text
    assert "Rank 32, alpha 64, 240 steps on 90 examples of its nights and 128 general prompts, seed 7" in made.text
    assert "## Results of the slept model" in made.text and "sleepkit ask" not in made.text


def test_what_is_an_id_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "here").mkdir(parents=True)
    for name, read, written in [
        ("me/slept", True, True),
        ("runs/here", False, False),
        ("runs/new", True, False),  # there is a folder runs, so what is written goes there
        ("./me", False, False),
        ("~/me", False, False),
        ("slept", False, False),
        ("a/b/c", False, False),
        ("", False, False),
    ]:
        assert (is_hub_id(name), is_hub_id(name, to_be_made=True)) == (read, written), name
