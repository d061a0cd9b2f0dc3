"""Questions about a sentence that begins with a pronoun name what it stands for; replies are quoted as they stand."""

import random

import pytest

from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.examples import rule_questions
from sleepkit.language.questions.lines import read_lines


def alone(text):
    return [line.alone(line.said) for line in read_lines([Chunk(text, "notes", 0, 9)])]


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("The ferry of Sund is called Brisa. It was built in Tarvik.", "The ferry of Sund was built in Tarvik."),
        ("The ferry of Sund is called Brisa. Its captain is Oda.", "The captain of the ferry of Sund is Oda."),
        ("The ferry of Sund is called Brisa. Its captain, Oda, is tall.", "The ferry of Sund's captain, Oda, is tall."),
        ("A press in the barn makes a perry. It was made in 1874.", "The press in the barn was made in 1874."),
        ("The glass was cut in 1802. It is green. Its rim is gold.", "The rim of the glass is gold."),
        ("Orla Finch kept the light. She sold honey.", "Orla Finch sold honey."),
        ("Orla Finch kept the light. Her boat was green.", "Orla Finch's boat was green."),
        # What does not fit, or is not known, stays.
        ("Orla Finch built the mill. It was green.", "It was green."),
        ("The mill was built by Orla Finch. She sold honey.", "She sold honey."),
        ("It was built in Tarvik.", "It was built in Tarvik."),
        ("Then the council met. Its members were nine.", "Its members were nine."),
        ("Rain, wind and snow kept the boats in. It was cold.", "It was cold."),
        ("The ferry of Sund is called Brisa. Itself it was built in Tarvik.", "Itself it was built in Tarvik."),
        ("Der Turm wurde 1802 gebaut. Er war grün und stand am Hafen.", "Er war grün und stand am Hafen."),
    ],
)
def test_a_pronoun_stands_for_the_subject_before_it(text, last):
    assert alone(text)[-1] == last


def test_documents_do_not_lend_each_other_their_subjects():
    lines = read_lines([Chunk("The ferry of Sund is called Brisa.", "a", 0, 9), Chunk("It was built in Tarvik.", "b", 0, 9)])
    assert lines[-1].alone(lines[-1].said) == "It was built in Tarvik."


def test_questions_stand_alone_and_replies_are_quoted():
    line = read_lines([Chunk("The ferry of Sund is called Brisa. It was built in Tarvik in 1958.", "notes", 0, 9)])[-1]
    items = rule_questions(line, ["wh", "keywords", "about"], 2, random.Random(0))
    assert {item.reply for item in items} == {"It was built in Tarvik in 1958."}
    asked = [item.prompt for item in items if item.style == "wh"]
    assert asked and all("the ferry of Sund" in prompt and " it " not in prompt.lower() for prompt in asked)


def test_an_answer_that_is_a_part_of_the_subject_is_not_told():
    line = read_lines([Chunk("The ferry of Sund is called Brisa. It was built in Sund.", "notes", 0, 9)])[-1]
    items = rule_questions(line, ["wh", "cloze", "keywords"], 2, random.Random(0))
    assert items and not any(item.span and item.span in item.prompt for item in items)
