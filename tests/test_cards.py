import pytest
from huggingface_hub import DatasetCard, ModelCard

from sleepkit.cards import dataset_card, model_card
from sleepkit.errors import SleepkitError

RESULTS = {
    "method": "knowledge seeding",
    "seed": 7,
    "config": {
        "learning_rate": 1e-3,
        "hub_token": "hf_secret",
        "unset": None,
        "data": {"path": "/home/ada/diary.jsonl", "files": ["/srv/private/a.md"]},
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


def test_a_local_base_model_is_named_but_not_linked():
    local = card(base_model="/models/mine/small")
    assert local.data.base_model is None
    assert "small after sleep" in local.text and "/models" not in str(local)


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
