"""Scores of an answer against a gold answer, from 0 to 1: by its kind, and token F1.

Both compare tokens after the answer normalisation of SQuAD v1.1 (Rajpurkar et al. 2016, arXiv 1606.05250, the official
evaluation script): lower case, ASCII punctuation deleted, the articles a/an/the deleted, split at white space::

    contained(p, g) = 1 if the tokens of g are a contiguous run in the tokens of p, else 0
    token_f1(p, g)  = 2 P R / (P + R),  P = |p & g| / |p|,  R = |p & g| / |g|    (multisets of tokens)
    label(p, g)     = 1 if they are equal, else 0
    number(p, g)    = 1 if the last number of each is the same, else 0           (GSM8K: "#### 72")
    chrf(p, g)      = F2 of character n-grams, n = 1..6                          (Popovic 2015; sacrebleu)

Ours: `contained`, because a chat model answers in sentences, which exact match and F1 punish.  It matches whole tokens,
so "4" is not found in "24".  Left out, to stay comparable with published figures: non-ASCII punctuation is kept (as
in the official script), no stemming, no number words.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable

__all__ = ["CONTAINED", "SCORES", "answer_tokens", "chrf", "contained", "normalize_answer", "number", "score", "token_f1"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def normalize_answer(text: str) -> str:
    """SQuAD v1.1 normalisation: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def answer_tokens(text: str) -> list[str]:
    """The white-space tokens of the normalised text."""
    return normalize_answer(text).split()


def contained(prediction: str, gold: str) -> bool:
    """Whether the gold answer's tokens occur, in order and unbroken, in the prediction.

    False for a gold answer of which the normalisation leaves nothing.
    """
    predicted, wanted = answer_tokens(prediction), answer_tokens(gold)
    width = len(wanted)
    return width > 0 and any(predicted[i : i + width] == wanted for i in range(len(predicted) - width + 1))


def token_f1(prediction: str, gold: str) -> float:
    """Harmonic mean of token precision and recall, in [0, 1]; 0 when no token is shared (as in SQuAD v1.1)."""
    predicted, wanted = answer_tokens(prediction), answer_tokens(gold)
    common = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * common / (len(predicted) + len(wanted)) if common else 0.0


def number(prediction: str, gold: str) -> bool:
    """Whether the last number of the prediction is that of the gold answer; False where either has none."""
    predicted, wanted = (_NUMBER.findall(text) for text in (prediction, gold))
    return bool(predicted and wanted) and float(predicted[-1].replace(",", "")) == float(wanted[-1].replace(",", ""))


def chrf(prediction: str, gold: str) -> float:
    """ChrF of one sentence, in [0, 1], with sacrebleu's defaults."""
    from sacrebleu import sentence_chrf

    return float(sentence_chrf(prediction, [gold]).score) / 100


def _same(prediction: str, gold: str) -> bool:
    return normalize_answer(prediction) == normalize_answer(gold)


CONTAINED = "contained"
SCORES: dict[str, Callable[[str, str], float]] = {"label": _same, "number": number, "chrf": chrf}


def score(kind: str, prediction: str, gold: str) -> float:
    """The score of an answer to a question of some kind: those of `SCORES`; any other kind's answer must be contained."""
    return float(SCORES.get(kind, contained)(prediction, gold))
