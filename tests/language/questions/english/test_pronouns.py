"""Questions about a sentence that begins with a pronoun name what it stands for; replies are quoted as they stand."""

import random

import pytest

from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.english.pronouns import as_asked, said_back, spelled_out
from sleepkit.language.questions.examples import rule_questions, write_examples
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
        ("I kept bees. He sold honey.", "He sold honey."),
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


@pytest.mark.parametrize(
    ("said", "back"),
    [
        ("My cat is called Miso.", "Your cat is called Miso."),
        ("I am a baker and I live in Orta.", "You are a baker and you live in Orta."),
        ("I'm a baker, and I’ve a boat.", "You're a baker, and you’ve a boat."),
        ("In May I was in Orta, where I wasn't known.", "In May you were in Orta, where you weren't known."),
        ("My sister and I were born in Tarvik.", "Your sister and you were born in Tarvik."),
        ("We sold our boat, and Osk paid us well.", "You sold your boat, and Osk paid you well."),
        ("Dunya gave me a lamp. I built it myself.", "Dunya gave you a lamp. You built it yourself."),
        ("Osk is a friend of mine; the blue boat is mine.", "Osk is a friend of yours; the blue boat is yours."),
        ("i moved to orta, my cat too.", "you moved to orta, your cat too."),
        ("As I told you, I was wrong.", "As you told me, you were wrong."),
        ("Never was I so cold, nor am I now.", "Never were you so cold, nor are you now."),
        ("US ships, a coal mine, i.e. and wi-fi.", "US ships, a coal mine, i.e. and wi-fi."),
        ('She said "I love my cat" to me.', 'She said "I love my cat" to you.'),
        ("The ferry of Sund is called Brisa.", "The ferry of Sund is called Brisa."),
        ("From there you can see Orta.", "From there you can see Orta."),
        ("MIRA AND MY DOG", "MIRA AND MY DOG"),
        ("It was June. I moved.", "It was June. You moved."),
    ],
)
def test_what_somebody_says_of_themselves_is_said_back(said, back):
    assert said_back(said) == back


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("What is your cat called?", "What is my cat called?"),
        ("Where do you live now?", "Where do I live now?"),
        ("Are you a baker?", "Am I a baker?"),
        ("Who were you taught by?", "Who was I taught by?"),
        ("Which boat is yours?", "Which boat is mine?"),
        ("Who gave you a lamp?", "Who gave me a lamp?"),
        ("Your boat has which name?", "My boat has which name?"),
        ("What do you think you are?", "What do I think I am?"),
        ("What is the young cat called?", "What is the young cat called?"),
    ],
)
def test_a_question_about_a_user_is_asked_as_the_user_would(question, asked):
    assert as_asked(question) == asked


def test_short_forms_are_spelled_out_for_the_rules():
    assert spelled_out("I'm here, we’ve come and she's gone.") == "I am here, we have come and she's gone."


CHAT = (
    "User: My cat is called Miso.\nAssistant: My favourite name is Orla.\nUser: I moved to Orta in 2019. Hello! Do you know it?"
)


def written(text):
    return write_examples(None, None, [Chunk(text, "chat", 0, 9)], ["wh", "keywords", "about", "recite"])


def test_a_user_is_answered_in_the_second_person_and_nobody_else_is():
    items = written(CHAT)
    replies = {item.reply for item in items if item.style != "recite"}
    assert replies == {"Your cat is called Miso.", "My favourite name is Orla.", "You moved to Orta in 2019."}
    asked = {item.prompt for item in items if item.style == "wh"}
    assert {prompt[prompt.find("did I") :] for prompt in asked} >= {"did I move to Orta?", "did I move in 2019?"}
    assert all(item.context in CHAT for item in items)
    assert not any(item.span in ("My", "I", "my", "your cat") for item in items)


def test_a_diary_is_quoted_as_it_stands():
    assert "My cat is called Miso." in {item.reply for item in written("My cat is called Miso.")}


def test_a_turn_that_goes_on_in_the_next_chunk_is_still_the_users():
    parts = [Chunk("User: I sold a boat in 1958.", "chat", 0, 9), Chunk("My cat is called Miso.", "chat", 1, 9)]
    assert [line.speaker for line in read_lines(parts)] == ["User", "User"]
    assert [line.speaker for line in read_lines([parts[1], Chunk("I sold a boat.", "diary", 0, 9)])] == ["", ""]
