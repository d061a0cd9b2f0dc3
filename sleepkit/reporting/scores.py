"""Scores of an answer against a gold answer, from 0 to 1: by its kind, and token F1.

All but the last two compare tokens, of which the language decides what they are::

    contained(p, g) = 1 if the tokens of g are a contiguous run in the tokens of p, else 0
    token_f1(p, g)  = 2 P R / (P + R),  P = |p & g| / |p|,  R = |p & g| / |g|    (multisets of tokens)
    label(p, g)     = 1 if they are equal, else 0
    number(p, g)    = 1 if the last number of each is the same, else 0           (GSM8K: "#### 72")
    chrf(p, g)      = F2 of character n-grams, n = 1..6                          (Popovic 2015; sacrebleu)

English text is normalised as SQuAD v1.1 does (Rajpurkar et al. 2016, arXiv 1606.05250, the official evaluation script): lower
case, ASCII punctuation deleted, the articles a/an/the deleted, split at white space.  Text of other languages as MLQA does
(Lewis et al. 2019, arXiv 1910.07475, its official script): lower case, all punctuation of Unicode deleted, the articles of
German, Spanish, Arabic and Vietnamese deleted, and characters of scripts without spaces between words are tokens (scripts.py): in
Chinese as in MLQA, in Korean as in KorQuAD, so that an answer is found before a particle.  `contained` takes them for tokens in
an English text too, where somebody names something Chinese.

Ours: `contained`, because a chat model answers in sentences, which exact match and F1 punish.  It matches whole tokens,
so "4" is not found in "24".  Full-width figures and letters are as others, in languages other than English compatible forms
are one (NFKC), the vowel signs and the tatweel of Arabic are deleted, and the apostrophe of French, Italian and Catalan parts two
words.  Left out, to stay comparable with published figures: in English non-ASCII punctuation is kept (as in the official
script); no stemming, no number words.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable

from sleepkit.reporting.scripts import apart, language_of_script

__all__ = ["CONTAINED", "SCORES", "answer_tokens", "chrf", "contained", "normalize_answer", "number", "score", "token_f1"]

_ENGLISH = "en"
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_ARTICLES = {
    _ENGLISH: re.compile(r"\b(a|an|the)\b"),
    "de": re.compile(r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "es": re.compile(r"\b(un|una|unos|unas|el|la|los|las)\b"),
    "vi": re.compile(r"\b(của|là|cái|chiếc|những)\b"),
    "ar": re.compile(r"\sال^|ال"),  # wherever it stands, as in MLQA
}
_ELIDING = ("fr", "it", "ca")
_APOSTROPHE = re.compile(r"['’]")
_VOWEL_SIGNS = re.compile("[\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed]")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_DECIMAL = str.maketrans("٫٬", ".,") | _FULL_WIDTH


def normalize_answer(text: str, language: str = _ENGLISH) -> str:
    """A text in lower case without punctuation and articles, with single spaces; English as SQuAD v1.1 does."""
    text = text.translate(_FULL_WIDTH)
    if language == _ENGLISH:
        text = text.lower().translate(_ASCII_PUNCTUATION)
    else:
        text = _APOSTROPHE.sub(" ", text) if language in _ELIDING else text
        text = _VOWEL_SIGNS.sub("", unicodedata.normalize("NFKC", text).lower())
        text = "".join(character for character in text if not _is_punctuation(character))
    if articles := _ARTICLES.get(language):
        text = articles.sub(" ", text)
    return " ".join(text.split())


def answer_tokens(text: str, language: str = _ENGLISH) -> list[str]:
    """The tokens of the normalised text: between white space; in other languages than English also characters of `apart`."""
    text = normalize_answer(text, language)
    return (text if language == _ENGLISH else apart(text)).split()


def contained(prediction: str, gold: str, language: str = "") -> bool:
    """Whether the gold answer's tokens occur, in order and unbroken, in the prediction.

    False for a gold answer of which the normalisation leaves nothing.

    Args:
        language: of question and answer, in ISO 639-1; "" for what their script tells, which for Latin letters is English.
    """
    predicted, wanted = (apart(" ".join(tokens)).split() for tokens in _tokens(prediction, gold, language))
    width = len(wanted)
    return width > 0 and any(predicted[i : i + width] == wanted for i in range(len(predicted) - width + 1))


def token_f1(prediction: str, gold: str, language: str = "") -> float:
    """Harmonic mean of token precision and recall, in [0, 1]; 0 when no token is shared (as in SQuAD v1.1).

    ``language`` as for `contained`.
    """
    predicted, wanted = _tokens(prediction, gold, language)
    common = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * common / (len(predicted) + len(wanted)) if common else 0.0


def number(prediction: str, gold: str) -> bool:
    """Whether the last number of the prediction is that of the gold answer; False where either has none."""
    predicted, wanted = (_NUMBER.findall(text.translate(_DECIMAL)) for text in (prediction, gold))
    return bool(predicted and wanted) and float(predicted[-1].replace(",", "")) == float(wanted[-1].replace(",", ""))


def chrf(prediction: str, gold: str) -> float:
    """ChrF of one sentence, in [0, 1], with sacrebleu's defaults."""
    from sacrebleu import sentence_chrf

    return float(sentence_chrf(prediction, [gold]).score) / 100


def _tokens(prediction: str, gold: str, language: str) -> tuple[list[str], list[str]]:
    """Tokens of both, by the same rules: those of their script where it is not Latin, else of the language."""
    rules = language_of_script(f"{prediction} {gold}") or language or _ENGLISH
    return answer_tokens(prediction, rules), answer_tokens(gold, rules)


def _is_punctuation(character: str) -> bool:
    """Punctuation, or a sign that is not seen: a joiner, a soft hyphen, a mark of direction."""
    return character in string.punctuation or unicodedata.category(character)[0] == "P" or unicodedata.category(character) == "Cf"


def _same(prediction: str, gold: str, language: str) -> bool:
    predicted, wanted = _tokens(prediction, gold, language)
    return predicted == wanted


CONTAINED = "contained"
SCORES: dict[str, Callable[[str, str, str], float]] = {
    "label": _same,
    "number": lambda prediction, gold, language: number(prediction, gold),
    "chrf": lambda prediction, gold, language: chrf(prediction, gold),
}


def score(kind: str, prediction: str, gold: str, language: str = "") -> float:
    """Score an answer to a question, from 0 to 1.

    Args:
        kind: of the question, one of `SCORES`; an answer of any other kind must be contained.
        prediction: what was said.
        gold: what is right.
        language: as for `contained`.
    """
    return float(SCORES.get(kind, contained)(prediction, gold, language))
