"""A folder in which somebody talks to a tiny model: by `sleepkit chat`, or by a server."""

import pytest
from tiny import tiny_model, tiny_tokenizer

from sleepkit.runs.arguments.serve import KEY

RECIPE = """use_cpu: true
max_steps: 2
general_items: 2
general_tokens: 4
context_max_tokens: 300
max_new_tokens: 4
expert_slots: 3
expert_width: 4
per_device_train_batch_size: 2
styles: [wh, cloze]
gate: false
reply_tokens: 8
seed: 7
"""
CAT = "My cat Miso sleeps in the barn of Orta."


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a tiny model and a recipe, from which commands are given."""
    tiny_model(max_position_embeddings=600).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(KEY, raising=False)
    return tmp_path
