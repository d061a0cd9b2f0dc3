"""Experiences: joined for one night, counted, and written as JSON."""

import json

from sleepkit.language.data.experience import LEARNED, Experience, Question, Size, size_of, together, word_count

PAIR = Question("When?", "1907", LEARNED)
PAIRS = Experience("faq", ["Q: When?\nA: 1907"], [PAIR], notes=[PAIR])
CHAT = Experience("chat", ["User: When?\nAssistant: 1907"], notes=[PAIR], also_read=[0])
PROSE = Experience("pier", ["The pier opened.", "It is long."], [Question("What opened?", "pier")])


def test_documents_are_read_beside_the_pairs_of_others():
    assert [one.is_read(0) for one in (PAIRS, CHAT, PROSE)] == [False, True, True]
    night = together([PROSE, PAIRS, CHAT])
    assert [night.is_read(k) for k in range(4)] == [True, True, False, True]
    assert [note.document for note in night.notes] == [2, 3] and [question.document for question in night.questions] == [0, 2]
    assert night.titled() == ["pier", "pier", "faq", "chat"]
    assert together([PROSE, PROSE]).also_read == [] and together([PROSE, PROSE]).is_read(3)
    assert Experience.from_dict(json.loads(json.dumps(night.to_dict()))) == night


def test_titles_of_a_night_are_of_different_documents():
    first, second = (Experience(f"a.{suffix}", ["Text."], titles=["a"]) for suffix in ("md", "txt"))
    assert together([first, second]).titles == ["a.md", "a.txt"]
    assert together([first, Experience("b.md", ["Text."], titles=["b"])]).titles == ["a", "b"]


def test_size():
    assert size_of([PROSE, PAIRS]) == Size(3, 3 + 3 + 4)
    assert size_of([]) == (0, 0)


def test_words_of_every_script():
    assert word_count("The pier, at 18:22 – it's 3.5 m.\n\n* * *") == 7
    assert word_count("码头于1907年开放。") == 7  # six characters and a number
    assert word_count("桟橋は長い") == 5
    assert word_count("ท่าเรือเปิด") == 3  # eleven letters
    assert word_count("부두는 1907년에 열렸다") == 3
    assert word_count("") == word_count(" ... ") == 0
