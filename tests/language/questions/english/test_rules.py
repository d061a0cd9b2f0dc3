"""Rule-made questions: what can be asked of a sentence, in which words, and what the rules rather leave alone."""

import random

import pytest

from sleepkit.language.questions.english.rules import about, cloze, keywords, statement, wh_question, whereabouts
from sleepkit.language.questions.english.spans import answer_spans, question_words
from sleepkit.language.questions.english.verbs import own_clause
from sleepkit.language.questions.words import content_words

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
    ("span", "first"),
    [("March 1902", "when"), ("1902", "when"), ("$40", "how much"), ("Ann", "who")],
)
def test_question_words_fit_the_answer(span, first):
    assert question_words(span)[0] == first


@pytest.mark.parametrize(
    ("text", "span", "question"),
    [
        ("The mill was sold in 1902.", "1902", "was the mill sold?"),
        ("Ann kept bees.", "bees", "did Ann keep?"),
        ("Einstein developed a theory of relativity.", "theory of relativity", "did Einstein develop?"),
        ("The lamp dangles in the tower.", "tower", None),  # no verb that the rules know
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
    ("text", "span", "questions"),
    [
        ("The bell weighs nine hundred kilograms.", "nine hundred kilograms", "How many kilograms|How much does the bell weigh?"),
        ("The ferry carries twelve cars.", "twelve cars", "How many cars|How many does the ferry carry?"),
        ("The tower is 43 metres tall and carries a green lamp.", "43 metres", "How tall is the tower?"),
        ("The tower is 43 metres tall and carries a green lamp.", "green lamp", "What|How does the tower carry?"),
        (
            "Ann owned 212 colour plates.",
            "212 colour plates",
            "How many colour plates|How many did Ann own?",
        ),
        ("Jory Pell was born in Oslo.", "Jory Pell", "Who|Which person was born in Oslo?"),
        ("The light was given a fog signal in 1902.", "fog signal", "What|How was the light given in 1902?"),
        ("The walk takes 45 minutes.", "45 minutes", "How many minutes|How long does the walk take?"),
        ("Jory stayed for forty-two years.", "forty-two years", "How many years|How long did Jory stay?"),
        ("Twelve small boats cross the bay.", "Twelve small boats", "How many small boats|How many cross the bay?"),
        ("The tower has 199 steps.", "199 steps", "How many steps|How many does the tower have?"),
        ("The last ferry leaves Ansel at nine.", "nine", "When|At what time does the last ferry leave Ansel?"),
        ("The house has three rooms and a stove.", "three rooms", "How many rooms|How many does the house have?"),
        ("The house has a stove and three rooms.", "three rooms", "How many rooms|How many does the house have?"),
        ("The lamp hangs in the tower.", "tower", "Where|What does the lamp hang?"),
        ("The mill was built in Tarvik in 1958.", "Tarvik", "Where|In which place was the mill built in 1958?"),
        ("The ferry is called Brisa.", "Brisa", "What is the ferry called?"),
        (
            "The crack was mended by the smith Ruth Garrow in May.",
            "Ruth Garrow",
            "Who mended|By whom was the crack mended in May?",
        ),
        ("The book was written in Oslo by Ann Dale.", "Ann Dale", "Who wrote|By whom was the book written in Oslo?"),
        ("The mill was built in 1958 and carries two flags.", "1958", "When|In what year was the mill built?"),
        ("The mill was built in 1958 and carries two flags.", "two flags", "How many flags|How many does the mill carry?"),
        ("The mill was sold in 1901 and burned in 1903.", "1903", "When|In what year was the mill burned?"),
        ("Ann built the mill and kept nine goats.", "nine goats", "How many goats|How many did Ann keep?"),
    ],
)
def test_questions_are_those_that_people_ask(text, span, questions):
    assert span in answer_spans(text)
    asked = {wh_question(text, span, random.Random(seed)) for seed in range(12)}
    first, _, second = questions.partition("|")
    if not second:
        assert asked == {first}
    elif second.startswith("By whom"):
        thing, _, place = second.removeprefix("By whom was ").partition(" in ")
        assert asked == {f"{first} {thing.rpartition(' ')[0]} in {place}", second}
    else:
        ending = next(second[k:] for k in range(len(second)) if second[k:].startswith((" do", " did", " had", " was", " cross")))
        assert asked == {first + ending, second}


def test_a_number_that_counts_nothing_stands_alone():
    assert [span for span in answer_spans("The committee of nine met.") if span[0] == "n"] == ["nine"]
    assert not any("one" in span for span in answer_spans("No one met one of the seven-storey houses."))
    assert answer_spans("My cat met nobody.") == []


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
    assert ask(text, span).endswith(" " + question)


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
