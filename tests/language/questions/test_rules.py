"""Rule-made questions: what can be asked of a sentence, in which words, and what the rules rather leave alone."""

import random

import pytest

from sleepkit.language.questions.rules import (
    about,
    answer_spans,
    cloze,
    content_words,
    keywords,
    own_clause,
    question_words,
    statement,
    wh_question,
    whereabouts,
)

MILL = "In 1902 the old mill at Tarn was sold to Edith Marlow for 340 pounds."


def ask(text, span):
    return wh_question(text, span, random.Random(0))


def test_spans_are_verbatim_specific_first_and_without_repeats():
    spans = answer_spans(MILL)
    assert spans[0] == "1902" and {"Edith Marlow", "340 pounds"} <= set(spans)
    assert len(spans) == len(set(spans)) and all(span in MILL for span in spans)
    assert "May 2012" in answer_spans("In May 2012 the church opened.") and "May 20" not in answer_spans("In May 2012 it opened.")
    assert "May 20, 2012" in answer_spans("It opened on May 20, 2012.")
    assert "the quiet hour" in answer_spans('They called it "the quiet hour" for years.')
    assert answer_spans("") == []


@pytest.mark.parametrize(
    ("span", "first"), [("March 1902", "when"), ("1902", "when"), ("$40", "how much"), ("40 sheep", "how many"), ("Ann", "who")]
)
def test_question_words_fit_the_answer(span, first):
    assert question_words(span)[0] == first


@pytest.mark.parametrize(
    ("text", "span", "question"),
    [
        ("The mill was sold in 1902.", "1902", "was the mill sold?"),
        ("Ann kept bees.", "bees", "did Ann keep?"),
        ("Einstein developed a theory of relativity.", "theory of relativity", "did Einstein develop?"),
        ("The lamp hangs in the tower.", "tower", None),  # no verb that the rules know
        ("In 1902 the mill was sold.", "1902", "was the mill sold?"),
        ("And the mill was sold in 1902.", "1902", "was the mill sold?"),  # a clause cut from its sentence
        ("By the early 20th century, Ann kept bees in Tarn.", "bees", "did Ann keep in Tarn?"),
        ("Edith Marlow bought the mill.", "Edith Marlow", "bought the mill?"),  # the span is the subject
        ("The rocks collected from the Moon are extremely old.", "extremely old", "are the rocks collected from the Moon?"),
        ("The rocks collected from the Moon are old.", "Moon", None),  # the verb comes after the answer
        ("A number that is not a prime is called composite.", "prime", None),  # inside a relative clause
        ("Private schools may be favoured.", "Private", "schools may be favoured?"),
        ("Norse religion was replaced.", "Norse", None),  # half a subject
        ("Because the gate was shut, the sheep stayed in Tarn.", "Tarn", None),
        ("To about 4.6 billion years for samples derived from the crust.", "4.6 billion", None),
        ("Gilbert journeyed to the garden.", "garden", "Where did Gilbert journey?"),
        ("Nils travelled to the kitchen.", "kitchen", "Where did Nils travel?"),
        ("Ann spelled the name of the mill.", "name of the mill", "did Ann spell?"),
        ("The United Methodist Church was founded in 1968.", "1968", "was the United Methodist Church founded?"),
    ],
)
def test_questions_have_ordinary_word_order_or_are_left_out(text, span, question):
    made = ask(text, span)
    if question is None:
        assert made is None
    else:
        assert made is not None and made.endswith(question) and span not in made and made[0].isupper()


def test_a_statement_is_the_clause_around_the_span_and_a_whole_sentence():
    long = (
        "The mill, which had stood empty for eleven winters, was sold in spring, and the new owner, a baker from Orta, "
        "painted its door green because she had found only green paint."
    )
    made = statement(long, "green paint", random.Random(0))
    assert "green paint" in made and len(made.split()) < len(long.split()) and made[0].isupper() and made.endswith(".")
    assert statement("ann kept bees", "bees", random.Random(0)) == "Ann kept bees."


def test_no_cue_holds_its_answer_and_equal_seeds_make_equal_cues():
    for span in answer_spans(MILL):
        for seed in range(5):
            rng = random.Random(seed)
            made = [cloze(MILL, span, rng), keywords(MILL, span, rng, "Tarn mill")]
            assert all(span not in cue and cue.endswith("?") for cue in made)
            rng = random.Random(seed)
            assert made == [cloze(MILL, span, rng), keywords(MILL, span, rng, "Tarn mill")]
    assert 2 <= len(set(content_words(about(MILL, random.Random(1)))) & set(content_words(MILL))) <= 4


@pytest.mark.parametrize(
    ("sentence", "place", "first"),
    [
        ("Gilbert journeyed to the garden.", "garden", "Where is Gilbert?"),
        ("The king went back to Paris, and slept.", "Paris", "Where is the king?"),
        ("She went to the garden.", None, None),  # who?
        ("Gilbert ran into trouble.", None, None),
        ("Gilbert gave the key to Ann.", None, None),
    ],
)
def test_who_went_somewhere_is_there(sentence, place, first):
    found = whereabouts(sentence)
    assert found is None if place is None else (found[0], found[1][0]) == (place, first)


@pytest.mark.parametrize(
    ("sentence", "spans"),
    [
        ("My name is Imre Castol and I live in Velmoor.", ["Imre Castol", "Velmoor"]),
        ("I'm at Harrow & Quill.", ["Harrow & Quill"]),
        ("Yesterday I moved to Brennick.", ["Brennick"]),
        ("We bought it from Osk Tarrel.", ["Osk Tarrel"]),
        ("Actually, Our boat is the Wren.", ["Wren"]),
    ],
)
def test_who_speaks_is_no_answer(sentence, spans):
    assert answer_spans(sentence) == spans


@pytest.mark.parametrize(
    ("text", "span", "question"),
    [
        ("I live in Velmoor.", "Velmoor", "do I live?"),
        ("I am a baker at Harrow.", "Harrow", "am I a baker?"),
        ("We often sail to Orta.", "Orta", "do we often sail?"),
        ("Yesterday I moved to Brennick.", "Brennick", "did I move?"),
        ("Oh, my cat is called Miso.", "Miso", "is my cat called?"),
        ("My sister and I heard Osk Tarrel.", "Osk Tarrel", "did my sister and I hear?"),
    ],
)
def test_what_somebody_says_of_themselves_is_asked_in_the_first_person(text, span, question):
    assert ask(text, span).split(" ", 1)[1] == question


@pytest.mark.parametrize(
    ("text", "span", "clause"),
    [
        ("My name is Imre and I live in Velmoor.", "Velmoor", "I live in Velmoor."),
        ("My name is Imre, my cat is called Miso.", "Imre", "My name is Imre"),
        ("My sister and I were born in Tarvik.", "Tarvik", "My sister and I were born in Tarvik."),
        (
            "He gave lamps to my son and my sister in Tarvik.",
            "Tarvik",
            "He gave lamps to my son and my sister in Tarvik.",
        ),
        ("The mill was sold and it burned in 1902.", "1902", "The mill was sold and it burned in 1902."),
    ],
)
def test_clauses_in_the_first_person_stand_alone(text, span, clause):
    assert own_clause(text, span) == clause
