"""Whether a text that a model wrote keeps to what another says: no number and no name that the other lacks, in any script.

    lacking("Milo built it in 1803.", "Orla built it in 1802.", "en")   -> ["1803"]        what the second lacks of the first
    agreement("Orla built it.", "It was built by Orla.", "en")          -> 1.0             share of the first's content words

Numbers are compared in whatever digits and with whatever separators.  What may be a name depends on the script::

    with capitals          a word with a capital within a sentence; in German not one noun alone behind an article
    Chinese, Japanese      two signs in a row, but for the commonest of questions and grammar; katakana and Latin words
    other unspaced ones    four letters in a row that are part of no three the other text has
    others                 a content word of three letters or more, in Arabic without what is joined to its stem

In scripts without capitals a text thus may say the same in another order and form, and in few new words: what could be a name
is refused.  Where names take endings (German, Slavic, Finnish, ...), words are the same up to the last three letters.

Left out: number words, but for those of Chinese and Japanese; a name that is the first word of a sentence.  Ours.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from sleepkit.language.questions.languages import STOP_WORDS
from sleepkit.language.questions.words import HAN_FUNCTION, content_words
from sleepkit.reporting.scores import normalize_answer
from sleepkit.reporting.scripts import HAN, WORD, characters, is_unspaced, language_of_script

__all__ = ["agreement", "lacking"]

_NUMBER = re.compile(r"\d(?:[\d.,:٫٬']*\d)?")
_HAN_NUMBER = re.compile("[一二三四五六七八九十百千万萬亿億零〇两]{2,}|[二三四五六七八九十百千万萬亿億零〇两]")
_SEPARATORS = re.compile(r"\D")
_WORDS = re.compile(rf"[^\W\d_][{WORD}-]*")  # parted by apostrophes: "Orla's", "d'Orta"
_SENTENCE_END = re.compile(r"(?:[.!?:;…]\W*|\n\W*|^\W*)$")
_LATIN, _KATAKANA = re.compile(r"[A-Za-zÀ-ɏ]{2,}"), re.compile("[\u30a1-\u30fa\u30fc-\u30ff]{2,}")
_SIGNS = re.compile(f"[{HAN}]+")
_FREE = frozenset(HAN_FUNCTION + "一什么麼谁誰哪几幾多少何怎样樣时時候年月日人个個位名座种種件些里裡中上下有用所以又也都不及")
_NOUN_MARKERS = frozenset(
    "der die das den dem des ein eine einen einem einer eines kein keine im am zum zur vom beim ins dieser diese dieses jeder "
    "welche welcher welches welchem welchen sein seine seiner ihr ihre ihrer".split()
)
_DECLINING = frozenset("de ru uk pl cs fi hu tr el ro ko hi".split())
_WITH_CAPITALS = ("", "ru", "uk", "be", "sr", "el", "hy")  # what scripts tell: Latin, Cyrillic, Greek, Armenian
_ENDING, _STEM = 3, 3  # letters
_PREFIXES, _SUFFIXES = "وفبلكس", "ةهتاىيون"
_SHORTEST, _FEW_SIGNS, _FEW_LETTERS, _PIECE = 3, 2, 4, 3


def lacking(text: str, known: str, language: str) -> list[str]:
    """Numbers of a text, and what may be names in it, that another text does not have."""
    numbers = [number for number in _numbers(text, language) if number not in set(_numbers(known, language))]
    if language in ("zh", "ja"):
        return numbers + list(_runs_of_signs(text, known))
    if is_unspaced(text):
        return numbers + list(_runs_of_letters(text, known))
    words = _named(text, language) if language_of_script(text) in _WITH_CAPITALS else _content(text, language)
    others = [word for word, _ in _words_of(known)]
    return numbers + [word for word in words if not any(_is_same(word, other, language) for other in others)]


def agreement(text: str, known: str, language: str) -> float:
    """Share of the content words of a text that another has; of signs in scripts without spaces.  0 of a text without any."""
    if is_unspaced(text):
        words, others = [sign for sign in characters(text) if sign not in _FREE], set(characters(known))
        return sum(word in others for word in words) / len(words) if words else 0.0
    words, heard = content_words(text, language), content_words(known, language)
    shared = sum(any(_is_same(word, other, language) for other in heard) for word in words)
    return shared / len(words) if words else 0.0


def _numbers(text: str, language: str) -> list[str]:
    found = [_SEPARATORS.sub("", number) for number in _NUMBER.findall(text)]
    found = ["".join(str(unicodedata.decimal(digit)) for digit in number) for number in found]
    return found + (_HAN_NUMBER.findall(text) if language in ("zh", "ja") else [])


def _words_of(text: str) -> list[tuple[str, int]]:
    return [(match[0].strip("-"), match.start()) for match in _WORDS.finditer(text)]


def _named(text: str, language: str) -> Iterator[str]:
    """Words with a capital that is not there for the beginning of a sentence, nor for a German noun."""
    words = _words_of(text)
    capitals = [word[:1].isupper() for word, _ in words]
    for k, (word, start) in enumerate(words):
        if (
            not capitals[k]
            or _SENTENCE_END.search(text[max(0, start - 8) : start])
            or word.lower() in STOP_WORDS.get(language, ())
        ):
            continue
        beside = any(capitals[j] and 0 < j < len(words) for j in (k - 1, k + 1) if j < len(words))
        if language != "de" or beside or not _is_marked([other for other, _ in words[max(0, k - 3) : k]]):
            yield word


def _is_marked(before: list[str]) -> bool:
    """Whether a noun has an article in front, with or without adjectives between."""
    for word in reversed(before):
        if word.lower() in _NOUN_MARKERS:
            return True
        if word[:1].isupper() or word in STOP_WORDS["de"]:
            return False
    return False


def _content(text: str, language: str) -> list[str]:
    stop = STOP_WORDS.get(language, frozenset())
    return [word for word, _ in _words_of(text) if word not in stop and len(normalize_answer(word, language)) >= _SHORTEST]


def _is_same(one: str, other: str, language: str) -> bool:
    """Whether two words are one, in whatever case and, where words take endings, with whatever ending."""
    a, b = (normalize_answer(word, language) or word.lower() for word in (one, other))
    if language == "ar":
        return not _stems(a).isdisjoint(_stems(b))
    if a == b or language not in _DECLINING:
        return a == b
    same = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    stem = 2 if language == "ko" else _STEM  # syllables
    return same >= stem and max(len(a), len(b)) - same <= _ENDING and 2 * same >= max(len(a), len(b))


def _stems(word: str) -> set[str]:
    """What an Arabic word may be without the letters that are joined to its stem."""
    forms = {word, word[1:]} if len(word) > _SHORTEST and word[0] in _PREFIXES else {word}
    return {form[:2] + form[2:].rstrip(_SUFFIXES) for form in forms}


def _runs_of_signs(text: str, known: str) -> Iterator[str]:
    """Signs in a row of Chinese and Japanese that another text has none of, and words of other letters that it lacks."""
    for word in (*_LATIN.findall(text), *_KATAKANA.findall(text)):
        if word not in known:
            yield word
    heard = set(known) | _FREE
    for run in _SIGNS.findall(text):
        yield from _long_runs(run, [sign in heard for sign in run], _FEW_SIGNS)


def _runs_of_letters(text: str, known: str) -> Iterator[str]:
    """Letters in a row of Thai and the like that are in no piece of three which another text has."""
    letters = "".join(letter for letter in text if letter.isalpha() or unicodedata.category(letter)[0] == "M")
    heard = [False] * len(letters)
    for k in range(len(letters) - _PIECE + 1):
        if letters[k : k + _PIECE] in known:
            heard[k : k + _PIECE] = [True] * _PIECE
    yield from _long_runs(letters, heard, _FEW_LETTERS)


def _long_runs(text: str, heard: list[bool], least: int) -> Iterator[str]:
    """Stretches of a text of which no sign was heard, of ``least`` signs or more."""
    start = 0
    for k, is_heard in enumerate([*heard, True]):
        if is_heard:
            if k - start >= least:
                yield text[start:k]
            start = k + 1
