"""What was read since the last night."""

import pytest
from tiny import tiny_tokenizer

from sleepkit.errors import SleepkitError
from sleepkit.language.data.experience import LEARNED, Experience, Question
from sleepkit.language.data.tasks import LABEL
from sleepkit.language.day import Day
from sleepkit.language.questions.context import ContextStore
from sleepkit.language.questions.items import SyntheticExample

TEXT = "The mill was built by Ada. The lake is deep."


def read(*documents, **more):
    return Day.of(Experience("mill", list(documents), **more), ContextStore(tiny_tokenizer(), 30))


def test_documents_become_chunks_and_notes_become_items():
    kinds = {LABEL: "note", LEARNED: "own", "chrf": "written"}
    notes = [Question(f"say {kind}.", "yes", kind) for kind in kinds]
    day = read(TEXT, "Beside it.", notes=notes, also_read=[1], replaces=["old mill"])
    assert [item.style for item in day.notes] == list(kinds.values()) and {item.source for item in day.notes} == {"mill"}
    assert all(item.prompt in item.context and item.span == "yes" for item in day.notes)
    assert [(chunk.text, chunk.reference) for chunk in day.chunks][-1] == ("Beside it.", False) and day.chunks[0].reference
    assert day.replaces == ["old mill"] and day.size == (2, 12)


def test_a_day_takes_the_place_of_the_one_before():
    store = ContextStore(tiny_tokenizer(), 30)
    Day.of(Experience("mill", [TEXT]), store)
    day = Day.of(Experience("pier", ["The pier is red."]), store)
    assert [chunk.title for chunk in day.chunks] == ["pier"] and {"pier", "red"} <= day.words() and "mill" not in day.words()


def test_a_context_is_a_chunk_with_the_questions_that_it_answers():
    day = read(TEXT)
    first, last = (SyntheticExample(f"ask {k}", "so", sentence, "wh") for k, sentence in enumerate(TEXT.split(". ")))
    assert len(day.chunks) == 2
    assert [one.questions for one in day.contexts([first, last])] == [[("ask 0", "so")], [("ask 1", "so")]]
    assert [one.chunk for one in day.contexts(iter([last]))] == [day.chunks[1]]
    assert day.contexts([SyntheticExample("ask", "so", "", "wh")]) == []


def test_a_night_needs_a_day():
    for ask in (Day().texts, Day().words, lambda: Day().contexts([])):
        with pytest.raises(SleepkitError, match=r"the context is empty; call wake\(\) with an experience"):
            ask()
