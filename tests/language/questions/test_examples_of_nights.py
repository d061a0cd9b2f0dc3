"""What is newer holds: of statements that answer the same question the last one is learned, and replayed."""

import logging

import pytest
from tiny import tiny_model, tiny_tokenizer

from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.examples import NothingToAskError, SyntheticExample, newest, not_outdated, write_examples

OLD, NEW = "Ann went to the garden.", "Ann went to the office."


def item(prompt, reply, night=0, style="wh"):
    return SyntheticExample(prompt, reply, reply, style, night=night)


def test_of_each_prompt_the_last_statement_is_learned_whatever_the_order_of_styles():
    items = [item("Where is Ann?", NEW), item("Who went?", OLD), item("Where is Ann?", OLD, style="question")]
    assert newest(items, [OLD, NEW]) == items[:2]
    assert newest(items, [NEW, OLD]) == items[1:]


def test_what_was_said_before_is_not_replayed():
    kept = [item("Where is Ann?", OLD, night=1), item("Where is Bob?", OLD, night=1), item("Where is Ann?", NEW, night=2)]
    assert not_outdated(kept) == kept[1:]
    assert not_outdated(kept, [item("Where is Bob?", NEW)]) == kept[2:]
    assert not_outdated(kept, [item("Where is Bob?", NEW, style="general")]) == kept[1:]


# What is written about documents


def chunk(text, title="doc", **options):
    return Chunk(text, title, 0, len(text), **options)


def write(*chunks, styles=("wh", "cloze", "keywords", "about")):
    return write_examples(tiny_model(), tiny_tokenizer(), chunks, styles, 1)


CODE = "import os\n\ndef book(name):\n    return os.path.join(name)\n"
PRICES = "dish    small   large\nSoup    7.25    22.00\nBread   4.50    4.90\n"
CHAT = "[12.03.24, 18:22] Ada: hello there\n[12.03.24, 18:23] Ben: The ferry leaves at nine.\n"


@pytest.mark.parametrize("text", [CODE, PRICES, CHAT])
@pytest.mark.parametrize("styles", [("wh",), ("question", "wh", "paraphrase", "keywords", "about"), ("rewrite",)])
def test_what_is_no_prose_is_quoted_as_it_stands_whatever_is_asked_for(text, styles):
    items = write(chunk(text), styles=styles)
    assert {item.style for item in items} <= {"recite", "about"} and any(item.style == "recite" for item in items)
    for item in items:
        assert item.reply in text and item.context in text and item.span == ""
        if item.style == "recite":
            head = item.prompt.removeprefix("Continue: ")
            assert head + item.context[len(head) :].removesuffix(item.reply) + item.reply == item.context


def test_each_document_is_asked_about_and_what_is_quoted_is_told(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    chinese = "码头在很久以前就向公众开放了。"
    chunks = [chunk("Ann kept bees in Tarn.", "ann"), chunk(CODE, "code"), chunk(chinese, "pier"), chunk("---\n*", "rules")]
    mixed = "Ann kept bees in Tarn. Ben was born in Orta.\n\n# Menu\n\n" + PRICES
    items = write(*chunks, chunk(mixed, "menu"), chunk("Q: Who?\nA: Ann kept bees.", "faq", reference=True))
    assert {item.source for item in items} == {"ann", "code", "pier", "menu"}
    assert {item.reply for item in items if item.source == "pier"} <= {chinese, *(chinese[k:] for k in range(len(chinese)))}
    told = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("code: nothing of it is prose") for line in told)
    assert any(line.startswith("menu: 2 of 4 passages are not prose") for line in told)
    assert any(line.startswith("rules: no passage of it can be asked about or quoted") for line in told)
    assert not any(line.startswith(("ann", "faq", "pier")) for line in told)


def test_a_question_in_a_text_is_no_answer():
    items = write(chunk("Who was the captain of the Skarv? Ida Brook was her captain."))
    assert not any(item.reply.startswith("Who was") for item in items if item.style != "about")


def test_wrapped_lines_are_learned_as_one_sentence():
    text = "The pier of Tarn was opened in 1907 by Orla\nFinch, who had been the keeper of the light for eleven long years."
    items = write(chunk(text))
    assert any(item.span == "Orla Finch" for item in items)
    assert all("\n" not in item.reply and item.context in text for item in items)


def test_documents_that_say_nothing_are_refused():
    with pytest.raises(NothingToAskError, match="no sentence that can be asked about"):
        write(chunk("---"), chunk("Q: Who?\nA: Ann kept bees.", reference=True))
