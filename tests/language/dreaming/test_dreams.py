"""Dreams: rows, filter, files."""

import pytest
from tiny import tiny_model, tiny_tokenizer

from sleepkit.errors import SleepkitError
from sleepkit.language.dreaming import dreams
from sleepkit.language.dreaming.config import DreamingConfig
from sleepkit.language.dreaming.dreams import STYLES, Context, Dream, dream, load_dreams, rows_of, save_dreams
from sleepkit.language.questions.context import Chunk

CONTEXT = Context(Chunk("The bell of Orrin rings at noon.", "Orrin", 0, 0), [])


def test_rows_of_statements_and_of_questions():
    text = "1. The bell of Orrin rings at noon.\n\n- It was cast in iron by Tamsin.\nToo short"
    expected = [("Tell me about Orrin.", line) for line in ("The bell of Orrin rings at noon.", "It was cast in iron by Tamsin.")]
    assert rows_of("rewrite", text, "Orrin") == expected
    asked = "Q: When does it ring?\nA: At noon.\nQ: Unanswered?\nQuestion: Who cast it?\nAnswer: Tamsin.\nA: stray"
    assert rows_of("self_qa", asked, "Orrin") == [("When does it ring?", "At noon."), ("Who cast it?", "Tamsin.")]


def test_empty_looping_over_long_copied_and_repeated_dreams_are_dropped_and_counted(monkeypatch):
    whole = "The bell of Orrin rings at noon."
    made = [
        "",
        "the bell rings " * 12,
        f"{whole} That is what the text says",
        "Marie Curie rang the bell at noon.",
        whole,
        f"- {whole}",
    ]
    limit = 60
    tokens = [[0] * (limit if text.endswith("says") else 5) for text in made]
    monkeypatch.setattr(dreams, "split", lambda *_: tokens)
    for name in ("require_window", "room_of"):
        monkeypatch.setattr(dreams, name, lambda *_: None)
    texts = iter(made)
    monkeypatch.setattr(dreams, "decode", lambda *_: next(texts))
    (found,) = dream(None, tiny_tokenizer(), [CONTEXT], ["rewrite"] * 6, max_tokens=limit)
    assert found.dropped == {"empty": 1, "looping": 1, "over-long": 1, "copied": 1, "repeated": 1}
    assert [one.text for one in found.dreams] == [whole]


def test_dreams_of_a_real_model_are_the_same_for_the_same_seed():
    styles = [*STYLES, "rewrite"]
    model = tiny_model(max_position_embeddings=2048)
    other = Context(Chunk("Two keepers of Orrin climbed the long stair every night.", "stair", 0, 0), [])
    contexts, seeds = [CONTEXT, other], [3, 4]
    runs = [dream(model, tiny_tokenizer(), contexts, styles, max_tokens=20, seeds=seeds) for _ in range(2)]
    assert runs[0] == runs[1] and len(runs[0]) == 2
    assert all(len(one.dreams) + sum(one.dropped.values()) == 5 for one in runs[0])
    assert dream(model, tiny_tokenizer(), [other], styles, max_tokens=20, seeds=[4]) == runs[0][1:]  # whatever is beside it


def test_files_come_back_and_damaged_ones_are_refused(tmp_path):
    path = tmp_path / "dreams.jsonl"
    one = Dream("self_qa", "Q: a?\nA: b.", [("a?", "b.")], "Orrin", score=1.5, chosen=True, reward=0.25)
    save_dreams([one, one], path)
    assert load_dreams(path) == [one, one]
    path.write_text(path.read_text()[:-9])
    with pytest.raises(SleepkitError, match="holds no dreams that can be read"):
        load_dreams(path)


def test_unknown_style_is_refused():
    with pytest.raises(SleepkitError, match="dream_styles has 'poem'"):
        DreamingConfig(dream_styles=["rewrite", "poem"])
