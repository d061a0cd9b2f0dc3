"""The plan of a night in words."""

import pytest

from sleepkit.reporting.live.plan import pace_text, plan_text


def test_plan_of_a_small_night():
    text = plan_text(documents=2, words=1234, items={"question": 200, "wh": 640}, steps=400, seen=1600, kept_back=16, beside=60)
    assert text == (
        "2 documents, 1,234 words: 840 items (wh 640, question 200); 16 kept back to test; 60 general or earlier ones beside. "
        "400 steps, in which each item is seen 1.9 times."
    )


@pytest.mark.parametrize(
    ("documents", "coverage", "words"),
    [
        (1, 0.934, "; covers 93 % of its sentences."),
        (2, 0.9999, "; covers 99 % of their sentences."),
        (1, 0.0, "; covers 0 % of its sentences."),
        (1, 1.0, "8 items (wh 8). "),
    ],
)
def test_sentences_that_nothing_asks_about_are_told(documents, coverage, words):
    text = plan_text(documents=documents, words=9, items={"wh": 8}, steps=1, seen=8, coverage=coverage)
    assert words in text and ("covers" in text) == (coverage < 1)


@pytest.mark.parametrize(
    ("items", "steps", "seen", "words"),
    [
        (48398, 200, 1200, "200 steps see 2.5 % of 48,398 items: use --max_steps -1 for all of them (8,067 steps)."),
        (100, 25, 100, "25 steps, in which each item is seen once."),
        (100, 1, 8, "1 step sees 8.0 % of 100 items: use --max_steps -1 for all of them (13 steps)."),
        (1000, 99, 999, "99 steps see 99.9 % of 1,000 items: use --max_steps -1 for all of them (100 steps)."),
        (10_000_000, 1, 4, "1 step sees 4e-05 % of 10,000,000 items: use --max_steps -1 for all of them (2,500,000 steps)."),
        (0, 10, 0, "Nothing new is learned."),
    ],
)
def test_what_the_steps_see(items, steps, seen, words):
    text = plan_text(documents=1, words=1, items={"wh": items} if items else {}, steps=steps, seen=seen)
    assert text.startswith("1 document, 1 word: ") and text.endswith(words)


def test_pace():
    assert pace_text(200, 3.5, 2 * 2**30, done=5) == "about 11 min 22 s for 195 steps, 3.5 s each; at most 2.00 GiB so far"
