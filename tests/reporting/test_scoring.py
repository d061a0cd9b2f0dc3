"""Answer normalisation against the official SQuAD v1.1 code, and the two scores."""

import re
import string
from collections import Counter

import pytest

from sleepkit.reporting.scores import chrf, contained, normalize_answer, number, score, token_f1


def squad_normalize(s):
    """`normalize_answer` of the official evaluate-v1.1.py."""

    def remove_articles(text):
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def white_space_fix(text):
        return " ".join(text.split())

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return white_space_fix(remove_articles(remove_punc(s.lower())))


def squad_f1(prediction, ground_truth):
    """`f1_score` of the official evaluate-v1.1.py."""
    prediction_tokens = squad_normalize(prediction).split()
    ground_truth_tokens = squad_normalize(ground_truth).split()
    common = Counter(prediction_tokens) & Counter(ground_truth_tokens)
    num_same = sum(common.values())
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(prediction_tokens)
    recall = 1.0 * num_same / len(ground_truth_tokens)
    return (2 * precision * recall) / (precision + recall)


TEXTS = [
    "The Denver Broncos won, 24–10.",
    "a  denver\tbroncos",
    'The "golden anniversary" of an NFL',
    "Levi's Stadium (Santa Clara)",
    "theatre, another AN",
    "U.S. $1,000.50",
    "",
    "the",
    "Émile—Zürich’s the best",
    "well-known the-end",
]


@pytest.mark.parametrize("text", TEXTS)
def test_normalisation_is_the_official_one(text):
    assert normalize_answer(text) == squad_normalize(text)


@pytest.mark.parametrize("prediction", TEXTS)
@pytest.mark.parametrize("gold", TEXTS)
def test_f1_is_the_official_one(prediction, gold):
    assert token_f1(prediction, gold) == pytest.approx(squad_f1(prediction, gold))


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        ("They were the Denver Broncos.", "Denver Broncos", True),
        ("The Broncos of Denver", "Denver Broncos", False),  # not a run
        ("Denver, the Broncos!", "denver broncos", True),  # punctuation and articles do not interrupt
        ("It was 24 to 10", "4", False),  # whole tokens
        ("24", "24", True),
        ("In Santa Clara, California it was", "Santa Clara, California", True),
        ("Santa Clara", "Santa Clara, California", False),
        ("", "Paris", False),
        ("anything", "The!", False),  # nothing left to look for
    ],
)
def test_contained(prediction, gold, expected):
    assert contained(prediction, gold) is expected


def test_the_last_number_and_chrf():
    assert number("48/2 = 24, so 24 + 48 = 72.", "... #### 72") and number("1,200.0 apples", "#### 1200")
    assert not number("It is 71", "#### 72") and not number("none", "#### 72") and number("-3", "so #### -3")
    assert chrf("This shirt is thin.", "This shirt is thin.") == 1 and chrf("xyz", "This shirt is thin.") == 0
    assert 0.3 < chrf("The shirt is thick.", "This shirt is thin.") < 0.9
    assert [score("label", answer, "change language") for answer in ("Change language.", "to change language")] == [1, 0]
    assert score("direct", "It is to change language", "change language") == 1 and score("number", "7", "7") == 1
