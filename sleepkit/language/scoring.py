"""Scores of a short answer against a gold answer: contained, and token F1.

Both compare tokens after the answer normalisation of SQuAD v1.1 (Rajpurkar et al. 2016, arXiv 1606.05250, the official
evaluation script): lower case, ASCII punctuation deleted, the articles a/an/the deleted, split at white space::

    contained(p, g) = 1 if the tokens of g are a contiguous run in the tokens of p, else 0
    token_f1(p, g)  = 2 P R / (P + R),  P = |p & g| / |p|,  R = |p & g| / |g|    (multisets of tokens)

Ours: `contained`, because a chat model answers in sentences, which exact match and F1 punish.  It matches whole tokens,
so "4" is not found in "24".  Left out, to stay comparable with published figures: non-ASCII punctuation is kept (as
in the official script), no stemming, no number words.
"""

from __future__ import annotations

import re
import string
from collections import Counter

__all__ = ["answer_tokens", "contained", "normalize_answer", "token_f1"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


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
