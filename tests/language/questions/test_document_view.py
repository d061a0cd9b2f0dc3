"""A document longer than the window is asked about with the chunk that answers the question in view."""

import logging

import pytest
from tiny import tiny_model, tiny_tokenizer

from sleepkit.errors import SleepkitError
from sleepkit.language.data.experience import Question
from sleepkit.language.generation.chat import chat_ids
from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.document_view import IN_CONTEXT, DocumentView, closest_chunk, notes_that_fit
from sleepkit.language.questions.items import OWN, SyntheticExample

FILLER = " ".join(f"the old clock number {k} stood still that day." for k in range(40))
FACT = "ida brook sailed the skarv in 1907."
LONG = f"{FILLER} {FACT} {FILLER} milo hart built a mill in 1907."
WHO = Question("who sailed the skarv?", "ida brook")


@pytest.fixture
def view():
    return DocumentView(tiny_tokenizer(), 300, 1)


def test_a_document_that_fits_is_in_view_as_a_whole(view):
    assert view.prompt(FACT, WHO, 400) == IN_CONTEXT.format(text=FACT, question=WHO.question)


@pytest.mark.parametrize("room", [460, 300, 200])
def test_of_a_longer_one_the_chunk_with_the_answer_is(view, room):
    prompt = view.prompt(LONG, WHO, room)
    assert "ida brook" in prompt and prompt.endswith(WHO.question)
    assert len(chat_ids(tiny_tokenizer(), prompt)) <= room
    when = view.prompt(LONG, Question("when did milo hart build a mill?", "1907"), room)
    assert "milo hart" in when  # 1907 stands in two chunks


def test_without_the_answer_the_chunk_with_most_words_of_the_question_is(view):
    assert "skarv" in view.prompt(LONG, Question("who sailed the skarv?", "nobody"), 460)
    chunks = [Chunk(text, "t", k, 1) for k, text in enumerate(("a red boat", "a red lamp", "a red lamp too"))]
    assert closest_chunk(chunks, "which red lamp?", "none").index == 1


def test_a_question_without_room_for_anything_is_refused(view):
    with pytest.raises(SleepkitError, match="leaves no room for a document in the window; shorten it"):
        view.prompt(LONG, Question("why? " * 100, "so"), 300)


def test_pairs_that_the_window_does_not_hold_are_told(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)

    def note(answer):
        return SyntheticExample("who?", answer, f"Q: who?\nA: {answer}", OWN, "faq", answer)

    short, long = note("ida brook."), note("ida brook. " * 20)
    assert notes_that_fit([short, long], tiny_model(), tiny_tokenizer()) == [short]
    assert "faq: 1 pairs, such as 'who?', are too long for the window of 512 tokens" in caplog.text
