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


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        ("码头于1907年开放。", "1907年", True),
        ("码头于１９０７年开放。", "1907", True),
        ("第一任船长是艾达·布鲁克，她来自卑尔根。", "艾达·布鲁克", True),
        ("第一任船长是艾达布鲁克", "艾达·布鲁克", True),
        ("他说：“早安”！", "早安", True),
        ("码头于1907年开放。", "7年", False),  # figures are whole
        ("码头", "码头于", False),
        ("桟橋は1907年に開いた。", "桟橋", True),
        ("船長は「アイダ」です。", "アイダ", True),
        ("부두는 1907년에 열렸다.", "부두", True),  # before a particle
        ("부두는 1907년에 열렸다.", "1907년", True),
        ("ท่าเรือเปิดในปี 1907", "ท่าเรือ", True),
        ("ท่าเรือ", "ทาเรือ", False),  # a tone mark is a part of its letter
        ("ຮ້ານເປີດໃນປີ 1907", "ປີ 1907", True),
        ("ផែបានបើកនៅឆ្នាំ១៩០៧។", "ផែ", True),
        ("ဆိပ်ခံတံတားကို ၁၉၀၇ တွင် ဖွင့်ခဲ့သည်။", "ဆိပ်ခံတံတား", True),
        ("བོད་ཀྱི་གྲུ་ཁ་", "གྲུ་ཁ", True),
        ("وُلِدَ في القاهرة، عام ١٩٠٧؟", "القاهرة", True),
        ("ولد في القاهـرة.", "القاهرة", True),  # a tatweel
        ("ذهب بالقاهرة", "قاهرة", True),  # the article, as MLQA has it
        ("गोदी १९०७ में खुली।", "गोदी", True),
        ("यह गोदी।", "यह गोदी", True),
        ("Маяк построили в 1874 году.", "1874 году", True),
        ("Die GPT-4模型发布了", "GPT-4", True),
    ],
)
def test_contained_in_other_scripts(prediction, gold, expected):
    assert contained(prediction, gold) is expected


@pytest.mark.parametrize(
    ("language", "prediction", "gold"),
    [
        ("de", "Es war ein alter Leuchtturm.", "der alter Leuchtturm"),
        ("es", "¿Un faro? ¡Sí, «el faro»!", "la faro"),
        ("fr", "C’est la mer d’Iroise.", "Iroise"),
        ("it", "È l'isola d'Elba.", "isola"),
        ("vi", "Đó là những ngọn hải đăng", "ngọn hải đăng"),
    ],
)
def test_articles_and_punctuation_of_a_language(language, prediction, gold):
    assert contained(prediction, gold, language) and score("direct", prediction, gold, language) == 1


def test_token_f1_of_chinese_is_that_of_mlqa():
    assert token_f1("码头开放。", "码头") == pytest.approx(2 * 2 / (4 + 2))
    assert token_f1("《红楼梦》", "红楼梦") == 1 and token_f1("1907年", "1908年") == pytest.approx(0.5)


def test_a_name_in_another_script_leaves_english_as_it_is():
    english = "The Yuan dynasty (大元) was founded in 1271–72; it’s “Great Yuan”."
    assert token_f1(english, "1271–72") == squad_f1(english, "1271–72") > 0
    assert contained(english, "大元") and not contained(english, "大元朝")
    assert contained("The Los Angeles Lakers", "Angeles Lakers") and not contained("die Zeit", "der Zeit")


def test_numbers_of_other_scripts():
    assert number("共１２００元", "1200") and number("١٩٠٧", "1907") and number("= ٣٫٥", "3.5")


def test_the_last_number_and_chrf():
    assert number("48/2 = 24, so 24 + 48 = 72.", "... #### 72") and number("1,200.0 apples", "#### 1200")
    assert not number("It is 71", "#### 72") and not number("none", "#### 72") and number("-3", "so #### -3")
    assert chrf("This shirt is thin.", "This shirt is thin.") == 1 and chrf("xyz", "This shirt is thin.") == 0
    assert 0.3 < chrf("The shirt is thick.", "This shirt is thin.") < 0.9
    assert [score("label", answer, "change language") for answer in ("Change language.", "to change language")] == [1, 0]
    assert score("direct", "It is to change language", "change language") == 1 and score("number", "7", "7") == 1
