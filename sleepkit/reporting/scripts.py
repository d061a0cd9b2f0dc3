"""Scripts: in which of them words stand apart, what a word or a character is there, and which language a script tells of.

    apart(text)            characters of scripts without spaces between words as tokens of their own: "1907年" -> " 1907 年 "
    language_of_script(t)  "zh", "ar", "ru", ... by the letters that most of a text is written in; "" for Latin and for none

Chinese, Japanese, Thai, Lao, Khmer, Burmese and Tibetan put no space between words, and in Korean particles stick to them
("부두는", the pier + topic).  There a character with the marks above and below it is a token, as Han characters are in the
evaluation of MLQA (Lewis et al. 2019, arXiv 1910.07475) and all Hangul syllables in that of KorQuAD 1.0 (Lim et al. 2019, arXiv
1909.07005).  Ours: the same for the other scripts; that runs of other letters and of figures stay whole; marks.

Python's ``\\w`` knows letters and figures but no marks, and would cut "हिन्दी" into four: `WORD` holds them.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import Counter

__all__ = ["HAN", "MARKS", "UNSPACED", "WORD", "apart", "characters", "is_unspaced", "language_of_script"]


def _ranges(characters: list[str]) -> str:
    """The inside of a class of regular expressions that holds these characters, which are in order."""
    runs: list[list[str]] = []
    for character in characters:
        if runs and ord(character) == ord(runs[-1][1]) + 1:
            runs[-1][1] = character
        else:
            runs.append([character, character])
    return "".join(f"{first}-{last}" for first, last in runs)


MARKS = _ranges([chr(code) for code in range(0x300, 0x20F1) if unicodedata.category(chr(code))[0] == "M"])
WORD = rf"\w{MARKS}"  # the inside of a class: what a word is made of
HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_HANGUL = "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb"
_SOUTHEAST = (
    "\u0e01-\u0e2e\u0e30-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u1089\u108e\u1780-\u17d3\u17dc\u17dd"
)
_TIBETAN = "\u0f40-\u0f6c\u0f71-\u0f84\u0f88-\u0fbc"
UNSPACED = f"{HAN}\u3105-\u312f{_KANA}{_HANGUL}{_SOUTHEAST}{_TIBETAN}"  # the inside of a class
_CHARACTER = re.compile(rf"[{UNSPACED}][{MARKS}]*")

# First code of a block of letters -> the language that most texts in it are of; "" where it does not tell.
_BLOCKS: list[tuple[int, str]] = [
    (0x0000, ""), (0x0370, "el"), (0x0400, "ru"), (0x0530, "hy"), (0x0590, "he"), (0x0600, "ar"), (0x0700, "und"),
    (0x0750, "ar"), (0x0780, "und"), (0x08A0, "ar"), (0x0900, "hi"), (0x0980, "bn"), (0x0A00, "pa"), (0x0A80, "gu"),
    (0x0B00, "or"), (0x0B80, "ta"), (0x0C00, "te"), (0x0C80, "kn"), (0x0D00, "ml"), (0x0D80, "si"), (0x0E00, "th"),
    (0x0E80, "lo"), (0x0F00, "bo"), (0x1000, "my"), (0x10A0, "ka"), (0x1100, "ko"), (0x1200, "am"), (0x13A0, "und"),
    (0x1780, "km"), (0x1800, "mn"), (0x18B0, "und"), (0x1C90, "ka"), (0x1CC0, "und"), (0x1D00, ""), (0x1F00, "el"),
    (0x2000, ""), (0x2C00, "und"), (0x2C60, ""), (0x2C80, "und"), (0x3005, "zh"), (0x3040, "ja"), (0x3100, "zh"),
    (0x3130, "ko"), (0x3190, "zh"), (0x31F0, "ja"), (0x3200, "zh"), (0xA000, "und"), (0xA720, ""), (0xA800, "und"),
    (0xA960, "ko"), (0xA980, "und"), (0xAB30, ""), (0xAB70, "und"), (0xAC00, "ko"), (0xF900, "zh"), (0xFB00, ""),
    (0xFB13, "hy"), (0xFB1D, "he"), (0xFB50, "ar"), (0xFF00, ""), (0xFF66, "ja"), (0xFFA0, "ko"), (0x10000, "und"),
    (0x1D400, ""), (0x1E000, "und"), (0x20000, "zh"),
]  # fmt: skip
_STARTS = [start for start, _ in _BLOCKS]
_KANA_SHARE = 0.1  # of the letters of a Japanese text, at least
# Letters that only some languages of a script have.
_TELLING = {"ar": (("ur", "ٹڈڑےں"), ("fa", "پچژگکی")), "ru": (("uk", "іїєґ"), ("be", "ў"), ("sr", "ђћџљњј"))}


def apart(text: str) -> str:
    """The text with white space around each character of a script that puts none between words; others are as they were."""
    return _CHARACTER.sub(r" \g<0> ", text)


def characters(text: str) -> list[str]:
    """The characters of scripts without spaces between words, each with its marks, in order."""
    return _CHARACTER.findall(text)


def is_unspaced(text: str) -> bool:
    """Whether most letters of a text are of scripts without spaces between words, Korean aside, which has some."""
    return language_of_script(text) in ("zh", "ja", "th", "lo", "km", "my", "bo")


def language_of_script(text: str) -> str:
    """The language, in ISO 639-1, that the script of most letters tells of; "und" for one that we do not know.

    A script of many languages stands for the one with most readers, but where letters of another are seen.  Latin letters, of
    which none tells, and a text without letters give "".
    """
    counts = Counter[str]()
    for letter, number in Counter(text).items():
        if letter.isalpha():
            counts[_BLOCKS[bisect_right(_STARTS, ord(letter)) - 1][1]] += number
    if not counts:
        return ""
    east = counts["zh"] + counts["ja"]
    if counts["ja"] and counts["ja"] >= _KANA_SHARE * east:
        counts["ja"], counts["zh"] = east, 0
    else:
        counts["zh"], counts["ja"] = east, 0
    if counts[""] > counts.total() - counts[""]:
        return ""
    counts[""] = 0
    language = max(counts, key=lambda name: counts[name])
    seen = set(text.lower()) if language in _TELLING else set()
    return next((other for other, letters in _TELLING.get(language, ()) if seen & set(letters)), language)
