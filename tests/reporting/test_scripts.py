"""Scripts: which characters are tokens, and which language most letters of a text tell of."""

import re

import pytest

from sleepkit.reporting.scripts import WORD, apart, characters, is_unspaced, language_of_script


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("码头于1907年", ["码", "头", "于", "1907", "年"]),
        ("부두는 GPT-4", ["부", "두", "는", "GPT-4"]),
        ("ที่นี่", ["ที่", "นี่"]),  # a tone mark stays with its letter
        ("ဖွင့်", ["ဖွ", "င့်"]),
        ("हिन्दी और English", ["हिन्दी", "और", "English"]),
        ("Zürich, Émile", ["Zürich,", "Émile"]),
    ],
)
def test_characters_of_scripts_without_spaces_stand_apart(text, tokens):
    assert apart(text).split() == tokens
    assert "".join(apart(text).split()) == "".join(text.split())


def test_what_has_spaces_is_left_as_it_is():
    text = "The  pier,\n naïve café – Маяк, مرحبا"
    assert apart(text) == text and characters(text) == []


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The pier (码头)", ""),
        ("码头 (pier)的灯是绿色的", "zh"),
        ("桟橋は長い", "ja"),
        ("の", "ja"),
        ("ｶﾀｶﾅ", "ja"),
        ("1907 – ½ !", ""),
        ("", ""),
        ("ልብ ወለድ", "am"),
        ("ᏣᎳᎩ", "und"),
        ("Їжак", "uk"),
        ("گربه", "fa"),
        ("𠮷野家", "zh"),
    ],
)
def test_a_script_tells_a_language(text, language):
    assert language_of_script(text) == language


def test_words_hold_their_marks():
    assert re.findall(f"[{WORD}]+", "हिन्दी की") == ["हिन्दी", "की"] and not re.findall(f"[{WORD}]", "।，.")
    assert is_unspaced("桟橋は長い") and not is_unspaced("부두는 길다") and not is_unspaced("The pier")
