"""Facts scattered in a long text."""

import json

import pytest

from sleepkit import load_experiences
from sleepkit.errors import SleepkitError
from sleepkit.language.long_context import NAMES, PERSONS, write_long_context

PLACES = ("garden", "kitchen", "office", "hallway", "bedroom")


def story(k):
    """Mary moves, John moves, Mary moves again; she is asked for, then again after John was."""
    here, there = PLACES[k % 5], PLACES[(k + 1) % 5]
    lines = [{"n": 1, "t": f"Mary moved to the {here}."}, {"n": 2, "t": f"John went to the {here}."}]
    lines += [{"n": 3, "q": "Where is John?", "a": here, "sup": [2]}, {"n": 4, "t": f"Mary went to the {there}."}]
    lines += [{"n": 5, "q": "Where is Mary?", "a": there, "sup": [4]}, {"n": 6, "t": "Mary went away."}]
    return {"task": "qa1_single-supporting-fact", "lines": lines}


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "stories.jsonl").write_text("".join(json.dumps(story(k)) + "\n" for k in range(12)))
    (tmp_path / "book.txt").write_text(" ".join(f"The old clock number {k} stood still on that day." for k in range(80)))
    return tmp_path / "stories.jsonl", tmp_path / "book.txt", tmp_path / "out" / "long.jsonl"


def test_every_story_is_whole_in_order_and_asked_where_it_is_known(sources):
    rows = write_long_context(*sources, questions=10, parts=4, words=100, seed=3)
    text = " ".join(row["context"] for row in rows)
    asked = [(k, question) for k, row in enumerate(rows) for question in row["questions"]]
    assert len(asked) == 10 and len({question["question"] for _, question in asked}) == 10
    assert not any(person in text for person in PERSONS)
    for k, question in asked:
        name = question["question"].removeprefix("Where is ").rstrip("?")
        moves = [line.strip() for line in text.split(".") if name in line.split()]
        assert name in NAMES and len(moves) == 2 and moves[1].endswith(question["answer"])  # nothing after the question
        assert moves[1] in rows[k]["context"]
    assert len({k for k, _ in asked}) > 1
    assert all(90 <= sum("clock" in line for line in row["context"].split(".")) * 10 <= 110 for row in rows)
    assert write_long_context(*sources, questions=10, parts=4, words=100, seed=3) == rows
    assert write_long_context(*sources, questions=10, parts=4, words=100, seed=4) != rows
    experiences = load_experiences(sources[2])
    assert [one.name for one in experiences] == [f"Part {k} of 4" for k in (1, 2, 3, 4)]


def test_everybody_is_asked_for_where_it_is_said_last(sources):
    own = write_long_context(*sources, questions=10, parts=4, words=100, seed=3)
    rows = write_long_context(*sources, questions=10, parts=4, words=100, seed=3, everybody=True)
    assert [row["context"] for row in rows] == [row["context"] for row in own]
    asked = [[question["question"] for question in row["questions"]] for row in rows]
    assert sum(map(len, asked)) == len({one for part in asked for one in part}) == 20  # two persons a story
    of_own = [question for row in own for question in row["questions"]]
    assert all(question in [one for row in rows for one in row["questions"]] for question in of_own)
    for row, names in zip(rows, asked, strict=True):
        assert all(name.removeprefix("Where is ").rstrip("?") in row["context"] for name in names)


def test_refusals(sources):
    for options, message in (
        ({"questions": 13}, "has 12 stories of qa1"),
        ({"task": "qa4"}, "has 0 stories of qa4"),
        ({"questions": 4, "parts": 9, "words": 750}, "9 parts of 750 need 6750"),
    ):
        with pytest.raises(SleepkitError, match=message):
            write_long_context(*sources, **{"questions": 10, **options})
