"""Chunks stay within the budget, begin with their overlap, and cover every character that was read."""

import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sleepkit.errors import SleepkitError
from sleepkit.language.questions.context import Chunk, ContextStore
from sleepkit.language.questions.sentences import sentences

TEXT = (
    "Dr. Mara Quill was born in 1931 on the island of Tessel. She studied the tides for 3.5 years! "
    "Who paid for it?\n\nThe Harbour Office did, i.e. the town. It gave her a boat of 7.2 m length. "
    "Nobody else was allowed to use it; the boat, the oars, the lamp and the long rope were hers alone for as long as "
    "she wrote one letter a week to the office in the U.S. embassy. "
    "She wrote two. The last one is lost — naïve readers say “burnt”. 終わり。"
)


@pytest.fixture(scope="module")
def tokenizer():
    """Byte-level BPE with a few merges, so that tokens join across white space as in real models."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=["<s>"])
    backend.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", model_max_length=8)


def count(tokenizer, text):
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def assert_covered(text, chunks):
    """White space aside, each chunk continues the text without a gap, whatever it repeats of what came before."""
    text, reached = "".join(text.split()), {0}
    for chunk in chunks:
        piece = "".join(chunk.text.split())
        starts = [i for i in range(len(text)) if text.startswith(piece, i)]
        reached = {i + len(piece) for i in starts for end in reached if i <= end < i + len(piece)}
    assert len(text) in reached


@pytest.mark.parametrize("max_tokens", [1000, 120, 60, 30, 12, 5, 4])
@pytest.mark.parametrize("overlap", [0, 1, 3])
def test_nothing_is_dropped(tokenizer, max_tokens, overlap):
    memory = ContextStore(tokenizer, max_tokens, overlap)
    memory.add_document(TEXT, "Quill")
    chunks = memory.chunks()
    assert_covered(TEXT, chunks)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    if overlap == 0:
        assert "".join("".join(chunk.text for chunk in chunks).split()) == "".join(TEXT.split())
    for chunk in chunks:
        assert chunk.text in TEXT
        assert chunk.n_tokens == count(tokenizer, chunk.text) <= max_tokens
        assert chunk.title == "Quill"
    if max_tokens == 1000:
        assert [chunk.text for chunk in chunks] == [TEXT]


def test_random_documents_are_covered(tokenizer):
    rng = random.Random(0)
    words = ["Ann", "saw", "3.5", "boats.", "The", "U.S.", "end!", "\n\n", "- item", "x" * 40, "终。", "why?"]
    for _ in range(60):
        text = " ".join(f"{rng.choice(words)}{i}" for i in range(rng.randrange(1, 60)))
        memory = ContextStore(tokenizer, rng.randrange(6, 60), rng.randrange(3))
        memory.add_document(text)
        assert_covered(text, memory.chunks())


def test_chunks_break_at_sentences_and_overlap(tokenizer):
    memory = ContextStore(tokenizer, 60, overlap=1)
    text = " ".join(f"Sentence number {i} ends here." for i in range(20))
    memory.add_document(text)
    chunks = memory.chunks()
    assert len(chunks) > 2
    parts = [sentences(chunk.text) for chunk in chunks]
    assert all(sentence in sentences(text) for part in parts for sentence in part)
    assert all(part[-1] == following[0] for part, following in zip(parts, parts[1:], strict=False))
    full = [sentence for i, part in enumerate(parts) for sentence in part[bool(i) :]]
    assert full == sentences(text)
    for chunk, following in zip(parts, parts[1:], strict=False):  # as full as the budget allows
        assert count(tokenizer, " ".join([*chunk, following[1]])) > 60


def test_only_a_sentence_over_budget_is_cut_and_at_white_space(tokenizer):
    memory = ContextStore(tokenizer, 40, overlap=1)
    long = "It was " + " ".join(f"very{i}," for i in range(40)) + " long."
    memory.add_document(f"Short one. {long} Short two.")
    texts = [chunk.text for chunk in memory.chunks()]
    assert_covered(f"Short one. {long} Short two.", memory.chunks())
    words = set(f"Short one. {long} Short two.".split())
    assert all(word in words for text in texts for word in text.split())


def test_a_word_over_budget_is_cut(tokenizer):
    memory = ContextStore(tokenizer, 10)
    memory.add_document("z" * 500)
    assert "".join(chunk.text for chunk in memory.chunks()) == "z" * 500


def test_notes_share_chunks_and_stay_whole(tokenizer):
    memory = ContextStore(tokenizer, 100, overlap=0)
    for i in range(12):
        memory.add_note(f"What is item {i}?", f"Item {i} is a boat. It floats.")
    chunks = memory.chunks()
    assert len(memory) == 1 and 1 < len(chunks) < 12
    notes = [note for chunk in chunks for note in chunk.text.split("\n\n")]
    assert notes == [f"Q: What is item {i}?\nA: Item {i} is a boat. It floats." for i in range(12)]


def test_note_over_budget_is_cut_at_sentences(tokenizer):
    memory = ContextStore(tokenizer, 30, overlap=0)
    answer = " ".join(f"Reason {i} is here." for i in range(8))
    memory.add_note("Why?", answer)
    text = f"Q: Why?\nA: {answer}"
    assert_covered(text, memory.chunks())
    assert all(chunk.n_tokens <= 30 for chunk in memory.chunks())


def test_chat_breaks_at_turns(tokenizer):
    memory = ContextStore(tokenizer, 22, overlap=0)
    memory.add_chat([{"role": "user", "content": "I am Ann"}, {"role": "assistant", "content": "Hello Ann"}] * 2)
    texts = [chunk.text for chunk in memory.chunks()]
    assert "\n".join(texts) == "User: I am Ann\nAssistant: Hello Ann\nUser: I am Ann\nAssistant: Hello Ann"
    assert all(text.startswith(("User:", "Assistant:")) for text in texts) and len(texts) > 1


def test_order_of_entries(tokenizer):
    memory = ContextStore(tokenizer, 200)
    memory.add_note("A?", "a")
    memory.add_document("B.", "second")
    memory.add_note("C?", "c")
    memory.add_note("D?", "d")
    assert [(chunk.title, chunk.index, chunk.text) for chunk in memory.chunks()] == [
        ("notes", 0, "Q: A?\nA: a"),
        ("second", 0, "B."),
        ("notes", 0, "Q: C?\nA: c\n\nQ: D?\nA: d"),
    ]
    memory.clear()
    assert len(memory) == 0 and memory.chunks() == []


def test_save_and_load(tokenizer, tmp_path):
    memory = ContextStore(tokenizer, 30, overlap=2)
    memory.add_document(TEXT, "Quill")
    memory.add_note("Who?", "Mara")
    memory.add_chat([{"role": "user", "content": "Hi"}])
    path = tmp_path / "memory.json"
    memory.save(path)
    memory.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["memory.json"]
    loaded = ContextStore.load(path, tokenizer)
    assert loaded.chunks() == memory.chunks() and (loaded.max_tokens, loaded.overlap) == (30, 2)
    memory.add_note("And?", "more")
    loaded.add_note("And?", "more")
    assert loaded.chunks() == memory.chunks()
    assert isinstance(loaded.chunks()[0], Chunk)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"max_tokens": 5}', '{"max_tokens": 5, "overlap": 1, "entries": [{}]}'])
def test_load_refuses(tokenizer, tmp_path, content):
    path = tmp_path / "memory.json"
    path.write_text(content)
    with pytest.raises(SleepkitError, match="memory.json is not a saved context store") as error:
        ContextStore.load(path, tokenizer)
    assert "\n" not in str(error.value)


def test_bad_input(tokenizer):
    with pytest.raises(SleepkitError, match="max_tokens is 0"):
        ContextStore(tokenizer, 0)
    with pytest.raises(SleepkitError, match="overlap is -1"):
        ContextStore(tokenizer, 10, -1)
    memory = ContextStore(tokenizer, 2)
    with pytest.raises(SleepkitError, match="document 'x' is empty"):
        memory.add_document(" ", "x")
    with pytest.raises(SleepkitError, match="answer to 'Q\\?' is empty"):
        memory.add_note("Q?", "")
    with pytest.raises(SleepkitError, match="no messages"):
        memory.add_chat([])
    memory.add_document("ok 🦜")  # four bytes, each its own token
    with pytest.raises(SleepkitError, match="max_tokens is 2, too small for the character '🦜'"):
        memory.chunks()
