"""Which questions, paraphrases and rewrites that a model wrote are learned, and which are thrown away."""

import random

import pytest

from sleepkit.language.questions import writer
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.questions.lines import Line

SAID = "The mill of Sund was built by Orla Finch in 1802."
CHUNK = f"{SAID} Its wheel turned three stones."
LINE = Line("Sund", SAID, SAID, CHUNK, is_prose=True)


@pytest.fixture
def says(monkeypatch):
    """Lets the model write given texts, one for each prompt in turn, and find answers as likely as given."""

    def speak(texts, likely=-1.0):
        prompts = []

        def generate(model, tokenizer, given, *_, **__):
            prompts.extend(given)
            return [texts[number % len(texts)] for number in range(len(given))]

        monkeypatch.setattr(writer, "raw_ids", lambda tokenizer, text: text)
        monkeypatch.setattr(writer, "generate", generate)
        monkeypatch.setattr(writer, "decode", lambda tokenizer, text: text)
        scores = likely if callable(likely) else lambda question: likely
        monkeypatch.setattr(writer, "answer_log_probs", lambda model, tokenizer, rows: [scores(q) for _, q, _ in rows])
        return prompts

    return speak


def written():
    return writer.written_questions(None, None, [LINE], random.Random(0), 0)


def test_a_question_about_a_span_is_learned_with_the_statement_that_answers_it(says):
    prompts = says(["built the mill of Sund?"])
    items = written()
    assert items and {item.style for item in items} == {"question"}
    for item in items:
        assert item.prompt.endswith(" built the mill of Sund?") and item.span in SAID
        assert (item.context, item.source) == (SAID, "Sund") and item.span in item.reply
    assert all(f"Text: {SAID}\nAnswer: " in prompt for prompt in prompts)


@pytest.mark.parametrize(
    "text",
    [
        "built the mill of Sund",  # no question
        "paints castles beside gigantic oceans?",  # not about this document
        "did Orla Finch do in 1802, and what was built by Orla Finch in 1802, the mill of Sund?",  # says the answer itself
    ],
)
def test_a_question_that_is_none_or_about_something_else_or_tells_its_answer_is_not(text, says):
    says([text])
    assert not [item for item in written() if item.span in ("Orla Finch", "1802")]


def test_a_question_to_which_the_answer_is_unlikely_is_not(says):
    says(["built the mill of Sund?"], likely=-3.5)
    assert written() == []


def test_of_each_span_the_most_likely_question_is_kept(says):
    texts = ["built the mill of Sund?", "turned the mill of Sund?"]
    says(texts, likely=lambda question: -0.5 if "turned" in question else -2.0)
    items = written()
    assert len({item.span for item in items}) == len(items)
    both = [item for item in items if "turned" in item.prompt]
    assert len(both) == len(items)  # each span is asked about with two question words, one of each text


ASKED = SyntheticExample("Who built the mill of Sund?", "It was built by Orla Finch.", CHUNK, "question", "Sund", "Orla Finch")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("By whom was the mill of Sund built?", True),
        ("Which person built the mill in 1802?", True),  # the year stands in the document
        ("By whom was the mill of Sund built", False),  # no question
        ("Who built the mill of Sund?", False),  # the same
        ("By whom was the mill of Orta built?", False),  # a name that is not there
        ("Who built the mill of Sund in 1903?", False),  # a year that is not there
        ("Was the mill of Sund built by Orla Finch?", False),  # tells the answer
        ("What is the weather like?", False),  # nothing in common
    ],
)
def test_a_paraphrase_asks_the_same_of_the_same_document(text, kept, says):
    says([text])
    items = writer.paraphrases(None, None, [ASKED], 0)
    assert [item.prompt for item in items] == [text] * kept
    if kept:
        assert (items[0].style, items[0].reply, items[0].span) == ("paraphrase", ASKED.reply, ASKED.span)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("In 1802 the mill of Sund was built by Orla Finch.", True),
        ("It was Orla Finch who built the mill of Sund in 1802.", True),
        (SAID, False),  # the same
        ("In 1802 the mill of Sund was built by Orla Finch", False),  # not ended
        ("The mill of Sund was built by Orla Finch.", False),  # the year is lost
        ("The mill of Sund was built in 1802.", False),  # the name is lost
        ("The mill of Sund was built by Orla Finch in 1803.", False),  # another year
        ("The mill of Sund was built by Orla Finch and Milo Hart in 1802.", False),  # a name more
    ],
)
def test_a_rewrite_loses_and_invents_no_number_and_no_name(text, kept, says):
    says([text])
    items = writer.rewrites(None, None, [LINE], random.Random(0), 0)
    assert [item.reply for item in items] == [text] * kept
    assert all(item.style == "rewrite" and item.context == SAID for item in items)
