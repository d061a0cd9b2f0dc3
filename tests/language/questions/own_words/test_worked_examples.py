"""Worked examples: English ones as they were measured with, and in each language examples that our own checks would keep."""

import hashlib

import pytest

from sleepkit.language.questions.gaps import GAP
from sleepkit.language.questions.languages import is_in
from sleepkit.language.questions.lines import Line
from sleepkit.language.questions.own_words.facts import lacking
from sleepkit.language.questions.own_words.worked_examples import examples_for
from sleepkit.language.questions.prose import ends_sentence, is_question
from sleepkit.language.questions.self_written import is_grounded

LANGUAGES = ["en", "de", "es", "fr", "ru", "zh", "ja", "ar"]


def test_english_prompts_are_those_that_results_were_measured_with():
    made = examples_for("en")
    paraphrase, rewrite = made.paraphrase_prompt("Who built Sund?"), made.rewrite_prompt("Orla built Sund.")
    assert paraphrase.startswith(
        "Question: In which city was Marie Curie born?\nIn other words: What is the birthplace of Marie C"
    )
    assert paraphrase.endswith("lessons to Ada Lovelace?\n\nQuestion: Who built Sund?\nIn other words:")
    assert rewrite == (
        "Text: Marie Curie was born in Warsaw in 1867.\n"
        "Said differently: Warsaw is the city where Marie Curie was born in 1867.\n\n"
        "Text: The bridge, painted orange, is 2,737 metres long.\n"
        "Said differently: Painted orange, the bridge has a length of 2,737 metres.\n\n"
        "Text: Orla built Sund.\nSaid differently:"
    )
    assert hashlib.sha256(paraphrase.encode()).hexdigest()[:12] == "bb511c061b64"


@pytest.mark.parametrize("language", LANGUAGES)
def test_worked_examples_are_in_their_language_and_keep_to_what_is_given(language):
    made = examples_for(language)
    for question, other in made.paraphrases:
        assert is_question(other) and question != other and (is_question(question) or GAP in question)
        assert is_in(other, language) and is_in(question, language)
    for said, other in made.rewrites:
        assert said != other and ends_sentence(other) and is_in(other, language)
        assert lacking(said, other, language) == lacking(other, said, language) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_questions_of_the_examples_are_such_as_would_be_kept(language):
    asked = examples_for(language).asked
    own = [(said, pairs) for said, pairs in asked if is_in(said, language)]
    assert len(asked) == 3 and len(own) == (3 if language == "en" else 2)
    for said, pairs in own:
        line = Line("", said, said, said, True, language)
        first, second = pairs.split("\nQ: ")
        for question, answer in (first.removeprefix("Q: ").split("\nA: "), second.split("\nA: ")):
            assert is_grounded(line, question, answer), question


def test_a_language_without_examples_gets_english_ones_and_is_told_to_stay_in_its_own():
    made = examples_for("sw")
    assert "in the language of the text" in made.paraphrase_prompt("Nani?") and made.rewrites == examples_for("en").rewrites
