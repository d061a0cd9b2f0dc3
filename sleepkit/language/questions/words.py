"""The words of a text that carry its meaning, in any script.

    content_words("The pier opened in 1907.")   -> ["pier", "opened", "1907"]
    content_words("码头于1907年开放。", "zh")     -> ["码头", "1907年", "开放"]
    matching_words(text)                        for comparing two texts

Scripts without spaces are cut where the kind of letter changes, at the commonest function words, and every few letters: what
comes out looks like words and need not be some.  Ours; segmenters with dictionaries are left out, as each is of one language.
"""

from __future__ import annotations

import re

from sleepkit.language.questions.languages import ENGLISH
from sleepkit.language.questions.languages import STOP_WORDS as STOP_WORDS_OF
from sleepkit.reporting.scripts import HAN, UNSPACED, WORD, apart, characters

__all__ = ["HAN_FUNCTION", "STOP_WORDS", "content_words", "matching_words"]

STOP_WORDS = frozenset(
    "the a an of in on at to for with by and or is are was were be been as from that this it its which who into their his her "
    "they he she not has have had these those there some many most also one two such what but if when while after before since "
    "during until".split()
)
HAN_FUNCTION = "的了在是和与於于及着被把从從为為将將这這那他她它們们我你您其之或但"
_WORD = re.compile(rf"[{WORD}’'$%–.-]+")
_JOINED = re.compile(rf"[{UNSPACED}]")
_HANGUL = re.compile("[\uac00-\ud7a3]")
# Numbers with their counter, katakana, Han, hiragana, Thai and the like, other letters.
_PIECE = re.compile(
    r"\d[\d.,]*[年月日号時时分秒岁歳人名个個本枚台米元円度倍回次届万亿億]?|[\u30a1-\u30fa\u30fc-\u30ff]+"
    rf"|[{HAN}]+|[\u3041-\u309f]+|[\u0e00-\u109f\u1780-\u17ff]+|[^\W\d_{UNSPACED}]+"
)
_HAN_FUNCTION = re.compile(f"[{HAN_FUNCTION}]")
_LEADING_VOWELS = "\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4"  # in Thai and Lao these begin a syllable
_LONGEST_PIECE, _CUT_PIECE = 6, 5  # characters


def content_words(text: str, language: str = ENGLISH) -> list[str]:
    """The words that carry the meaning, in order; of scripts without spaces the pieces that look like words.

    Args:
        language: of the stop words that are left out, and outside English single letters: parts of "z. B." and the like.
    """
    is_english = language == ENGLISH
    stop = STOP_WORDS if is_english else STOP_WORDS_OF.get(language, frozenset())
    words = (word.strip(".-'’") for word in _WORD.findall(text))
    pieces = (piece for word in words for piece in (_pieces(word) if _is_joined(word) else [word]) if piece)
    letters = (piece for piece in pieces if piece.lower() not in stop)
    return [piece for piece in letters if is_english or len(piece) > 1 or piece.isdigit() or _JOINED.match(piece)]


def matching_words(text: str) -> list[str]:
    """What texts on the same matter share: content words in lower case; pairs of characters where words do not stand apart."""
    found: list[str] = []
    for word in (word.strip(".-'’").lower() for word in _WORD.findall(text)):
        if _JOINED.search(word):
            letters = apart(word).split()
            found += [a + b for a, b in zip(letters, letters[1:], strict=False)] or letters
        elif word and word not in STOP_WORDS:
            found.append(word)
    return found


def _is_joined(word: str) -> bool:
    """Whether it may be several words; Korean puts spaces between them."""
    return _JOINED.search(word) is not None and _HANGUL.search(word) is None


def _pieces(word: str) -> list[str]:
    """What looks like words in a run of a script without spaces; hiragana, mostly grammar, only where it stands alone."""
    found = [part for piece in _PIECE.findall(word) for part in _HAN_FUNCTION.split(piece) if part]
    kept = [piece for piece in found if not "\u3041" <= piece[0] <= "\u309f" or (len(found) == 1 and len(piece) > 2)]
    return [part for piece in kept for part in _cut(piece)]


def _cut(piece: str) -> list[str]:
    letters = characters(piece)
    if len(letters) <= _LONGEST_PIECE or "\u30a0" <= piece[0] <= "\u30ff":
        return [piece]
    starts = [0]
    for k, letter in enumerate(letters[:-2]):
        length = k - starts[-1]
        if length >= _CUT_PIECE or (length > 2 and letter in _LEADING_VOWELS):
            starts.append(k)
    return ["".join(letters[start:end]) for start, end in zip(starts, [*starts[1:], len(letters)], strict=True)]
