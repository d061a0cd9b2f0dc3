"""The model's own questions: which are kept back, how they are asked, and how answers to them are scored."""

from dataclasses import replace

import pytest
from test_learner import make_learner

from sleepkit.language.data.experience import Experience
from sleepkit.language.questions.examples import SyntheticExample
from sleepkit.language.self_test import compared


def test_a_short_night_keeps_back_a_larger_share_of_its_questions(tmp_path):
    learner = make_learner(tmp_path)
    question = SyntheticExample("Where is it?", "It is in Orta.", "", "wh", "tale", "Orta")
    askable = [replace(question, prompt=f"Where is number {k}?") for k in range(200)]
    assert [len(learner.self_test.keep_back(askable[:n])) for n in (0, 1, 3, 8, 16, 48, 64, 200)] == [0, 0, 2, 4, 6, 6, 8, 16]


def test_of_a_changed_document_what_is_new_is_asked_first(tmp_path):
    item = SyntheticExample("Where is it?", "It is in Orta.", "", "wh", "tale", "Orta")
    items = [replace(item, prompt=f"Where is number {k}?", reply=f"Number {k} is in Orta.") for k in range(8)]
    test = make_learner(tmp_path).self_test
    assert test.keep_back(items, {one.reply for one in items[:6]}) == [items[6]]
    assert test.keep_back(items, {one.reply for one in items}) == test.keep_back(items)  # nothing is new


def test_what_cannot_be_judged_is_not_kept_back(tmp_path):
    item = SyntheticExample("Where is it?", "It is in Orta.", "", "wh", "tale", "Orta")
    others = [
        replace(item, style="recite"),
        replace(item, night=3),
        replace(item, reply="It is in Sund."),
        replace(item, style="general"),
    ]
    assert make_learner(tmp_path).self_test.keep_back([*others, item]) == [item]


def test_a_long_answer_of_a_users_own_is_asked_in_full_and_scored_by_what_it_shares(tmp_path, monkeypatch):
    """Nobody repeats a reply of a chat word for word: looked for as it stands, it would never be found, and its night undone."""
    reply = "you can park behind the old mill, then walk along the river for ten minutes until you see the red gate on your left"
    learner = make_learner(tmp_path)
    limits = []

    def generate(model, tokenizer, prompts, limit):
        limits.append(limit)
        return [tokenizer(text, add_special_tokens=False).input_ids for text in (f"{reply[:60]} and so on", "orta")]

    monkeypatch.setattr("sleepkit.language.self_test.generate", generate)
    long = SyntheticExample("How do I get there?", reply, "", "paraphrase", "chat", reply)
    short = SyntheticExample("Where is it?", "It is in Orta.", "", "wh", "tale", "Orta")
    shares, answers = learner.self_test.ask([long, short], [])
    assert limits == [len(reply)] and 0.2 < answers[0][1] < 0.9 and answers[1][1] == 1  # a token is a character
    assert shares["held_out"] == pytest.approx((answers[0][1] + 1) / 2)


def test_a_row_for_each_question_of_the_test():
    item = SyntheticExample("Where is it?", "It is in Orta.", "", "wh", "tale", "Orta")
    row = {"question": "Where is it?", "gold": "Orta", "before": "no", "after": "Orta", "right_before": 0.0, "right_after": 1.0}
    assert compared([item], [("no", 0.0)], [("Orta", 1.0)]) == [row]


DOCUMENTS = {
    "zh": "码头于1907年开放。第一任船长是艾达·布鲁克，她来自卑尔根。灯塔的灯是绿色的。",
    "ja": "桟橋は1907年に開いた。最初の船長はアイダ・ブルックで、ベルゲンから来た。",
    "ko": "부두는 1907년에 열렸다. 첫 선장은 베르겐에서 온 이다 브룩이었다.",
    "th": "ท่าเรือเปิดให้บริการครั้งแรกในปี 1907 เธอมาจากเบอร์เกน",
    "ar": "افتُتح الرصيف عام ١٩٠٧. كانت أول قبطان إيدا بروك، وقد جاءت من بيرغن.",
    "de": "Der Turm von Skarrow wurde 1874 gebaut. Die erste Wärterin war Maud Pellinor, geb. am 3. März 1840.",
    "es": "El faro de Skarrow fue construido en 1874. La primera farera fue Maud Pellinor, antigua cordelera.",
    "fr": "Le phare fut construit en 1874. La gardienne, Maud Pellinor, venait de l’île d’Orta.",
    "ru": "Маяк в Скарроу построили в 1874 г. Первой смотрительницей была Мод Пеллинор.",
    "hi": "गोदी 1907 में खुली। पहली कप्तान आइडा ब्रुक थीं, जो बर्गन से आई थीं।",
    "en": "The keepers called it “the Lamp” for years. The tower was built by Orla Finch in 1871.",
}


@pytest.mark.parametrize("language", DOCUMENTS)
def test_a_student_that_says_each_taught_reply_passes_the_test_of_the_gate(language, tmp_path, monkeypatch):
    learner = make_learner(tmp_path)
    learner.wake(Experience("notes", [DOCUMENTS[language]], []))
    learner._begin(1)
    items, held_out = learner._night_items(1, tmp_path)
    said = iter([item.reply for item in held_out])
    monkeypatch.setattr("sleepkit.language.self_test.generate", lambda model, tokenizer, prompts, *args: prompts)
    monkeypatch.setattr("sleepkit.language.self_test.decode", lambda tokenizer, ids: next(said))
    shares, _ = learner.self_test.ask(held_out, [])
    assert held_out and shares["held_out"] == 1
    assert not any(learner.self_test.score(item, "?!") for item in held_out)
    if language != "en":  # where replies are quoted, the answer is always found in them
        assert all(learner.self_test.score(item, item.reply) == 1 for item in items if item.span)


SMALL_DOCUMENTS = {  # and what all of each is about
    "en": (
        "The ferry of Callow Sound is called Brisa. It was built in Tarvik in 1958. It carries twelve cars from Port Ansel. "
        "Its captain is Oda Renn. It was painted by Jory Pell in 2004.",
        "the ferry of Callow Sound",
    ),
    "de": (
        "Brisa ist eine Fähre im Callow-Sund. Gebaut wurde Brisa 1958 in Tarvik. Die Kapitänin der Brisa heißt Oda Renn. "
        "Im Jahr 2004 wurde Brisa von Jory Pell gestrichen.",
        "Brisa",
    ),
    "ru": (
        "Бриса ходит по проливу с 1958 года. Паром Бриса построил мастер Ян Кольд. Капитан парома Бриса Ода Ренн. "
        "Летом 2004 года Бриса получила новый двигатель.",
        "Бриса",
    ),
    "zh": ("布里萨号于1958年建成。布里萨号的船长是艾达·伦恩。布里萨号每天开往安塞尔港。2004年布里萨号被漆成绿色。", "布里萨号"),
}


@pytest.mark.parametrize("language", SMALL_DOCUMENTS)
def test_a_student_that_always_says_what_the_document_is_about_fails_the_test_of_the_gate(language, tmp_path):
    document, subject = SMALL_DOCUMENTS[language]
    learner = make_learner(tmp_path)
    learner.wake(Experience("notes", [document], []))
    learner._begin(1)
    _, held_out = learner._night_items(1, tmp_path)
    scores = [learner.self_test.score(item, subject) for item in held_out]
    assert len(scores) > 2 and sum(scores) / len(scores) <= 0.25


def test_answers_of_one_sentence_are_asked_first_and_the_choice_is_the_same_each_time(tmp_path):
    item = SyntheticExample("?", "Brisa, Brisa, Orta.", "", "wh", "tale", "Brisa")
    contexts = ["Brisa is a ferry.", "Brisa was built in Orta.", "Brisa sails.", "Brisa is green.", "Brisa is old."]
    common = [replace(item, prompt=f"Which {k}?", context=context) for k, context in enumerate(contexts)]
    rare = replace(item, prompt="Where?", context=contexts[1], span="Orta")
    test = make_learner(tmp_path).self_test
    chosen = test.keep_back([*common, rare])
    assert len(chosen) == 3 and rare in chosen and chosen == test.keep_back([*common, rare])
    other = replace(rare, source="another", context="Orta is far. Orta is near.")  # documents are counted apart
    assert rare in test.keep_back([*common, other, rare])
