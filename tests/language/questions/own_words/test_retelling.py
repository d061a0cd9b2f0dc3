"""What a model tells again of a whole passage: what is learned of it, what is refused, and who is asked to."""

import json
from pathlib import Path

import pytest
from tiny import merging_tokenizer, scripted_model

from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.examples import coverage, write_examples
from sleepkit.language.questions.items import RETOLD
from sleepkit.language.questions.lines import read_lines
from sleepkit.language.questions.own_words import retelling
from sleepkit.language.questions.own_words.retelling import retellings_wanted, retold

ROOT = Path(__file__).parent.parent.parent.parent.parent
MILL = "The mill of Sund was built by Orla Finch in 1802. Its wheel turned three stones. In 1911 a fire took the roof."
GOOD = "Orla Finch built the mill of Sund in 1802. Three stones were turned by its wheel, and the roof burned in 1911."
BAD = [
    "",
    "The mill of Sund.",  # tells nothing
    "Orla Finch built the mill of Sund in 1803. Its wheel turned three stones.",  # another number
    "Milo Hart and Orla Finch built the mill of Sund in 1802. Its wheel turned three stones.",  # another name
    "Who built the mill of Sund in 1802? Its wheel turned three stones.",  # asks
    "Gloomy operas were sung beside seven frozen lakes while nobody listened to the choir in 1802.",  # something else
    "Orla Finch baute die Mühle von Sund im Jahr 1802. Das Rad und die Steine sind von ihr.",  # in another language
    MILL,  # the text itself
]


@pytest.fixture(autouse=True)
def room_for_bytes(monkeypatch):
    monkeypatch.setattr(retelling, "TOKENS", 600)  # a token of the tiny tokenizer is a byte


def tells(text, says, title="Sund"):
    """What is kept of ``says``, which the model tells about one document."""
    tokenizer = merging_tokenizer()
    model = scripted_model(tokenizer, lambda prompt: says)
    chunks = [Chunk(text, title, 0, 9)]
    return retold(model, tokenizer, chunks, read_lines(chunks), 0), model


def test_each_seed_prompt_tells_the_passage_once():
    items, model = tells(MILL, GOOD)
    assert len(items) == len(model.prompts) == 3 and len({item.prompt for item in items}) == 3
    for item in items:
        assert (item.reply, item.context, item.source, item.style, item.span) == (GOOD, MILL, "Sund", RETOLD, "")
        assert "Sund" in item.prompt and item.role == "new"
    assert all(MILL in prompt for prompt in model.prompts)


@pytest.mark.parametrize("says", BAD)
def test_what_does_not_keep_to_the_text_is_not_learned(says):
    assert tells(MILL, says)[0] == []


def test_a_reply_that_was_cut_off_is_not_learned():
    assert tells(MILL, f"{GOOD} " * 9)[0] == []


@pytest.mark.parametrize("language", ["de", "es", "zh", "ar"])
def test_passages_are_told_in_their_own_language(language):
    lines = (ROOT / "benchmarks" / "data" / f"notebook_{language}.jsonl").read_text(encoding="utf-8").split("\n")
    passage = json.loads(lines[0])
    reordered = [line.said for line in read_lines([Chunk(passage["context"], passage["title"], 0, 9)])][::-1]
    items, _ = tells(passage["context"], ("" if language == "zh" else " ").join(reordered), passage["title"])
    assert len(items) == 3 and all(passage["title"] in item.prompt for item in items)
    assert not any(word in item.prompt for item in items for word in ("Summarise", "Explain", "List"))
    assert tells(passage["context"], GOOD, passage["title"])[0] == []
    wrong = " ".join(reordered).replace("1874", "1875")
    assert tells(passage["context"], wrong, passage["title"])[0] == []


def test_a_language_without_seed_prompts_is_asked_what_it_says():
    chunks = [Chunk("गोदी 1907 में खुली। पहली कप्तान आइडा ब्रुक थीं। वह बर्गन से आई थीं।", "गोदी", 0, 9)]
    ((_, language, prompt),) = retellings_wanted(chunks, read_lines(chunks))
    assert language == "hi" and "गोदी" in prompt and not any(letter.isascii() and letter.isalpha() for letter in prompt)


def test_parts_of_a_long_document_are_told_apart():
    chunks = [Chunk(MILL, "Sund", 0, 9), Chunk(MILL.replace("mill", "windmill"), "Sund", 1, 9)]
    prompts = [prompt for _, _, prompt in retellings_wanted(chunks, read_lines(chunks))]
    assert len(set(prompts)) == 6


def test_single_sentences_tables_and_documents_for_reference_are_not_told_again():
    chunks = [
        Chunk("The mill of Sund was built by Orla Finch in 1802.", "one", 0, 9),
        Chunk("| a | b |\n| --- | --- |\n| 1 | 2 |", "table", 0, 9),
        Chunk(MILL, "reference", 0, 9, reference=True),
    ]
    assert retellings_wanted(chunks, read_lines(chunks)) == []


def test_a_passage_that_does_not_fit_the_window_is_left_out():
    tokenizer = merging_tokenizer()
    model = scripted_model(tokenizer, lambda prompt: GOOD)
    model.config.max_position_embeddings = 1300
    chunks = [Chunk(MILL, "Sund", 0, 9)]
    assert retold(model, tokenizer, chunks, read_lines(chunks), 0) == [] and model.prompts == []


@pytest.mark.parametrize(("writer", "number"), [("written", 3), ("both", 0), ("rules", 0)])
def test_the_model_tells_passages_where_it_writes_alone(writer, number):
    tokenizer = merging_tokenizer()
    model = scripted_model(tokenizer, lambda prompt: GOOD if "\n\nWrite two" not in prompt else "")
    chunks = [Chunk(MILL, "Sund", 0, 9)]
    items = write_examples(model, tokenizer, chunks, ["keywords"], 1, 0, writer)
    assert sum(item.style == RETOLD for item in items) == number
    assert coverage([item for item in items if item.style != RETOLD], read_lines(chunks)) == 1


def test_it_is_told_when_no_retelling_passes(caplog):
    tokenizer = merging_tokenizer()
    chunks = [Chunk(MILL, "Sund", 0, 9)]
    write_examples(scripted_model(tokenizer, lambda prompt: "Nothing."), tokenizer, chunks, ["keywords"], 1, 0, "written")
    assert "style retold kept none of 3" in caplog.text
