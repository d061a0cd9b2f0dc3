"""Questions without grammar: every sentence of any language is asked about, in no other language, and can be answered."""

import logging
import random
import re

import pytest
from tiny import tiny_model, tiny_tokenizer

from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.examples import coverage, write_examples
from sleepkit.language.questions.gaps import GAP, continue_from, gap_spans, tell_about, with_gap
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.questions.languages import STOP_WORDS
from sleepkit.language.questions.lines import read_lines
from sleepkit.language.questions.words import content_words, matching_words
from sleepkit.reporting.scores import contained

DEFAULT = ("question", "wh", "paraphrase", "keywords", "about")
BY_RULE = ("wh", "cloze", "keywords", "about", "recite")
DOCUMENTS = {
    "zh": "码头于1907年开放。第一任船长是艾达·布鲁克，她来自卑尔根。灯塔的灯是绿色的。守灯人说：“灯不能灭。”",
    "ja": "桟橋は1907年に開いた。最初の船長はアイダ・ブルックで、ベルゲンから来た。灯台の光は緑色だった。はい。",
    "ko": "부두는 1907년에 열렸다. 첫 선장은 베르겐에서 온 이다 브룩이었다. 등대의 불빛은 초록색이었다.",
    "th": "ท่าเรือเปิดให้บริการครั้งแรกในปี 1907 เธอมาจากเบอร์เกน\nแสงของประภาคารเป็นสีเขียว",
    "lo": "ທ່າເຮືອເປີດໃນປີ 1907\nກັບຕັນຄົນທຳອິດມາຈາກເບີເກນ",
    "km": "ផែបានបើកនៅឆ្នាំ១៩០៧។ នាយកដំបូងបានមកពីបឺរហ្គេន។",
    "my": "ဆိပ်ခံတံတားကို ၁၉၀၇ တွင် ဖွင့်ခဲ့သည်။ ပထမကပ္ပတိန်သည် ဘာဂင်မှ လာသည်။",
    "bo": "གྲུ་ཁ་ ༡༩༠༧ ལོར་ཕྱེ་བ་རེད། དཔོན་དང་པོ་བེར་གེན་ནས་ཡིན།",
    "ar": "افتُتح الرصيف عام ١٩٠٧. كانت أول قبطان إيدا بروك، وقد جاءت من بيرغن. كان ضوء المنارة أخضر.",
    "hi": "गोदी 1907 में खुली। पहली कप्तान आइडा ब्रुक थीं, जो बर्गन से आई थीं। दीपस्तंभ की रोशनी हरी थी।",
    "de": "Der Turm von Skarrow wurde 1874 gebaut. Sie wurde geb. am 3. März 1880, war z. B. dort Gast. Sein Licht war grün. Ja!",
    "es": "El faro de Skarrow fue construido en 1874. La primera farera fue Maud Pellinor. ¿Su luz? Era verde. ¡Brilla a las 9!",
    "fr": "Le phare fut construit en 1874. La gardienne, Maud Pellinor, venait de l’île d’Orta. Elle dit : « La mer dort. »",
    "ru": "Маяк в Скарроу построили в 1874 г. Первой смотрительницей была Мод Пеллинор. Свет был зелёным.",
    "sw": "Mnara wa taa wa Skarrow ulijengwa mwaka 1874. Mlinzi wa kwanza alikuwa Maud Pellinor kutoka Bergen. Ndiyo.",
}
UNSPACED = ("zh", "ja", "th", "lo", "km", "my", "bo", "ar", "hi", "ko", "ru")


def chunk(text, title="document"):
    return Chunk(text, title, 0, len(text))


def write(text, styles=DEFAULT):
    return write_examples(tiny_model(), tiny_tokenizer(), [chunk(text)], styles, 2)


@pytest.mark.parametrize("language", DOCUMENTS)
@pytest.mark.parametrize("styles", [DEFAULT, BY_RULE])
def test_each_sentence_is_asked_about_and_its_reply_is_right(language, styles):
    text = DOCUMENTS[language]
    items, lines = write(text, styles), read_lines([chunk(text)])
    assert coverage(items, lines) == 1 and {line.language for line in lines} <= {language, "" if language == "sw" else language}
    asked = [item for item in items if item.span]
    assert len(asked) >= len([line for line in lines if line.is_prose and len(line.said) > 8])
    assert {"cloze", "keywords"} == {item.style for item in asked}
    for item in asked:
        said = next(line.language for line in lines if line.context == item.context)
        assert contained(item.reply, item.span, said) and not contained(item.prompt, item.span, said)
        assert item.reply in item.context  # letter for letter
        assert (item.style == "cloze") == (GAP in item.prompt)


@pytest.mark.parametrize("language", DOCUMENTS)
def test_no_word_of_another_language_is_put_into_an_item(language):
    text = DOCUMENTS[language]
    prompts = [item.prompt for item in write(text, BY_RULE)]
    if language in UNSPACED:
        assert not any(re.search("[A-Za-z]", prompt) for prompt in prompts)
    else:
        said = {word.lower() for word in re.findall(r"[^\W\d_]+", text)}
        english = STOP_WORDS["en"] - STOP_WORDS.get(language, frozenset()) - said | {"continue", "tell", "know"}
        assert not any(english & {word.lower() for word in re.findall(r"[^\W\d_]+", prompt)} for prompt in prompts)


def test_german_is_not_asked_about_in_english():
    items = write("Sie wurde geb. am 3. März 1880, war z. B. dort Gast. Sein Licht war grün.", BY_RULE)
    gaps = {item.prompt: item.span for item in items if item.style == "cloze"}
    assert gaps["Sie wurde geb. am ___, war z. B. dort Gast."] == "3. März 1880"
    assert gaps["Sein ___ war grün."] == "Licht" and "B" not in gaps.values()
    assert not any(item.style == "wh" for item in items)


def test_a_document_in_two_languages_is_asked_about_in_each():
    german = "Der Turm wurde 1874 gebaut. Maud Pellinor folgte."
    text = f"The pier of Tarn was opened in 1907 by Orla Finch.\n\n{german}\n\n码头是绿色的。"
    lines = read_lines([chunk(text)])
    assert [line.language for line in lines] == ["en", "de", "de", "zh"]
    by_line = {line.said: [item for item in write(text, BY_RULE) if item.context == line.context] for line in lines}
    english, *others = by_line.values()
    assert any(item.style == "wh" for item in english) and not any(GAP in item.prompt for item in english)
    assert all(any(GAP in item.prompt for item in items) and not any(i.style == "wh" for i in items) for items in others)


@pytest.mark.parametrize(
    ("language", "sentence", "spans"),
    [
        ("zh", "码头于1907年5月3日开放。", ["1907年5月3日"]),
        ("zh", "《红楼梦》的作者是曹雪芹。", ["红楼梦"]),
        ("zh", "OpenAI Labs发布了GPT-4模型。", ["OpenAI Labs", "GPT-4"]),
        ("zh", "第一任船长是艾达·布鲁克，她来了。", ["艾达·布鲁克"]),
        ("ja", "船長はアイダ・ブルックで、「早く来い」と言った。", ["アイダ・ブルック", "早く来い"]),
        ("ko", "부두는 1907년에 열렸다.", ["1907년", "부두"]),
        ("de", "Am 12. Mai 1902 kaufte Edith von Marlow das „Haus am See“.", ["12. Mai 1902", "Haus am See", "Edith von Marlow"]),
        ("es", "Nació el 3 de marzo de 1880 en Nueva York.", ["3 de marzo de 1880", "Nueva York"]),
        ("ru", "Она сказала: «Море спит».", ["Море спит"]),
        ("ar", "وُلد عام ١٩٠٧.", ["١٩٠٧"]),
    ],
)
def test_answers_are_dates_numbers_quotations_and_names(language, sentence, spans):
    found = gap_spans(sentence, language)
    assert set(spans) <= set(found) and all(span in sentence for span in found)


def test_a_gap_is_not_cut_into_a_longer_word_or_number():
    assert with_gap("3 von 34 am 3.", "3") == "___ von 34 am ___."
    assert with_gap("Rosa mag Rosalie und Rosa.", "Rosa") == "___ mag Rosalie und ___."
    assert with_gap("码头和旧码头", "码头") == "___和旧___"


def test_a_long_sentence_is_quoted_in_part():
    long = "码头于1907年开放，" + "第一任船长从很远很远的城市来到这里并且住了很多年，" * 4 + "灯塔是绿色的。"
    replies = {item.span: item.reply for item in write(long, ("cloze",)) if item.span}
    assert replies and all(len(reply) < len(long) / 2 and reply in long for reply in replies.values())


def test_phrases_stand_in_the_language_and_else_the_words_alone():
    rng = random.Random(0)
    assert continue_from("Der Turm ", "de") == "Fahre fort: Der Turm" and continue_from("Mnara wa", "") == "Mnara wa …"
    assert tell_about("Mnara wa taa ulijengwa", "", rng).split()[0] in ("Mnara", "wa", "taa", "ulijengwa")
    assert tell_about("Ja.", "de", rng) == ""


def test_content_words_of_any_script():
    assert content_words("码头于1907年开放。", "zh") == ["码头", "1907年", "开放"]
    assert content_words("灯台守は毎晩、火をともした。", "ja") == ["灯台守", "毎晩", "火"]
    assert content_words("यह हिन्दी की किताब है।", "hi") == ["हिन्दी", "किताब"]
    assert content_words("Das war z. B. der Turm.", "de") == ["Turm"]
    assert content_words("부두는 1907년에 열렸다.", "ko") == ["부두는", "1907년에", "열렸다"]
    assert matching_words("The Pier of Tarn") == ["pier", "tarn"]
    assert len(set(matching_words("第一任船长是谁？")) & set(matching_words("她是第一任船长。"))) >= 4
    assert set(matching_words("부두는 언제")) & set(matching_words("부두가 열렸다"))


def test_coverage_is_the_share_of_sentences_that_an_item_answers():
    lines = read_lines([chunk("Ann kept bees in Tarn. Ben was born in Orta.")])
    item = SyntheticExample("Who kept bees?", "Ann kept bees in Tarn.", lines[0].context, "wh", "document")
    assert coverage([item], lines) == 0.5 and coverage([], lines) == 0 and coverage([], []) == 1


def test_a_style_that_keeps_nothing_is_told_in_one_line(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    write("Ann kept bees in Tarn. Ben was born in Orta.", ("rewrite", "keywords"))
    (told,) = [record.getMessage() for record in caplog.records if "kept none" in record.getMessage()]
    assert told.startswith("style rewrite kept none of 2")
    caplog.clear()
    write("Ann kept bees in Tarn.", ("keywords",))
    assert not any("kept none" in record.getMessage() for record in caplog.records)
