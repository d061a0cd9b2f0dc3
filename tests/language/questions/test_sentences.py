"""The sentence splitter: what ends a sentence, what does not, and that the spans tile the text."""

import random

import pytest

from sleepkit.language.questions.sentences import sentence_spans, sentences

# Each list is the expected split of its own joined text.
SPLIT = [
    ["Dr. Ada Lovelace met Mr. J. K. Rowling in the U.S. Army.", "It cost 3.5 dollars, i.e. little."],
    ["He lived in the U.S.", "The army left at 5 p.m. on Monday.", "It came back at 6 a.m. Tuesday."],
    ["World War I.", "In 1918 it ended.", "John Smith Sr.", "He left.", "George W. Bush stayed."],
    ["Acme Inc. Holdings paid.", "They bought Foo Ltd.", "It was cheap."],
    ["See Fig. 3 and No. 5 on p. 12.", "The answer is no.", "Then he ate a pie."],
    ['"Really?" he asked.', '"Yes!"', "She left (with him).", "[Done.]", "Well... maybe.", "Wait…", "Now!"],
    ["Smith et al. (2003) said so.", "Pi is 3.14159.", "Visit example.org today.", "Why?!", "Because."],
    ["It ended in 1999.", "In 2.5 years 1,000.5 people came.", "Version 2.0. It works."][:2],
    ["St. Petersburg lies on the Neva.", "Prof. Kim vs. The Crown was tried.", "Mt. Fuji is high."],
]


@pytest.mark.parametrize("expected", SPLIT)
@pytest.mark.parametrize("space", [" ", "  ", "\n"])
def test_sentences(expected, space):
    assert sentences(space.join(expected)) == expected


def test_structure_of_a_document():
    text = "# Title\nIntro without stop\n\n- one\n- two.\n1. Salt and\npepper\n2. Oil\n## Next\n\nEnd"
    expected = ["# Title", "Intro without stop", "- one", "- two.", "1. Salt and\npepper", "2. Oil", "## Next", "End"]
    assert sentences(text) == expected
    assert sentences("User: Hi there\nAssistant: Hello\nUser: bye") == [
        "User: Hi there",
        "Assistant: Hello",
        "User: bye",
    ]
    assert sentences("一つ。二つ！三つ") == ["一つ。", "二つ！", "三つ"]


OTHER_LANGUAGES = {
    "de": [
        "Sie wurde geb. am 3. März 1880, war z. B. dort Gast.",
        "Am 2. Tag kam Prof. Dr. Hans Meier, d. h. der Chef.",
        "Er wohnte in der Str. 12.",
        "„Wirklich?“ fragte er.",
        "„Ja!“",
        "Sie ging im Jahr 1999.",
        "Tage vergingen.",
    ],
    "es": ["El Sr. García vive en EE. UU. desde 1990.", "¿Dónde está?", "¡Allí!", "La Dra. Ruiz llegó.", "Era el núm. 5."],
    "fr": ["M. Dupont dit : « Bonjour. »", "Puis il partit.", "Il vint en 52 av. J.-C. avec Mme. Curie.", "Vraiment ?", "Oui !"],
    "it": ["Il sig. Rossi nacque il 3 marzo.", "Il dott. Bianchi venne."],
    "pl": ["Urodził się w 1907 r. w Krakowie.", "Był tam np. prof. Nowak."],
    "ru": ["Он родился в 1907 г. в Москве.", "А. С. Пушкин жил на ул. Мира, т. е. рядом.", "Это было в 1837 г.", "Он умер."],
    "ar": ["وُلد د. أحمد في القاهرة عام ١٩٠٧.", "هل عاد؟", "نعم، عاد."],
    "ur": ["یہ ایک کتاب ہے۔", "کیا تم نے پڑھی؟", "ہاں۔"],
    "hi": ["गोदी 1907 में खुली।", "पहले कप्तान डॉ. वर्मा थे।", "वह कहाँ थे?", "यहाँ।"],
    "hy": ["Նավամատույցը բացվեց 1907 թվականին։", "Նա եկավ։"],
    "am": ["ወደቡ በ1907 ተከፈተ።", "እሱ መጣ።"],
    "my": ["ဆိပ်ခံတံတားကို ၁၉၀၇ တွင် ဖွင့်ခဲ့သည်။", "သူ လာသည်။"],
    "km": ["ផែបានបើកនៅឆ្នាំ១៩០៧។", "គាត់បានមក។"],
    "ko": ["부두는 1907년에 열렸다.", "첫 선장은 누구인가?", "이다 브룩이다."],
    "zh": ["他说：“码头开了。”", "然后走了。", "真的吗？", "（是的！）", "完了……他想。"],
    "ja": ["彼は「行く。」と言った。", "本当ですか？", "（はい。）", "終わり。"],
    "th": ["ท่าเรือเปิดให้บริการครั้งแรกในปี 1907", "เธอมาจากเบอร์เกน ประเทศนอร์เวย์"],
}
NO_SPACE = ("zh", "ja", "km", "my")


@pytest.mark.parametrize("language", OTHER_LANGUAGES)
def test_sentences_of_other_languages(language):
    expected = OTHER_LANGUAGES[language]
    for space in (" ", "\n", *([""] if language in NO_SPACE else [])):
        assert sentences(space.join(expected)) == expected


def test_a_text_in_two_languages_is_split_by_the_rules_of_each():
    english = ["The captain lived in the U.S. Army base No. 5 for years.", "It is 12. This is what they said of him."]
    german = ["Er wurde am 3. März 1880 geboren und war z. B. auch der Kapitän.", "Das ist alles, was wir von ihm wissen."]
    filler = "The old keeper had told them that the lamp was out and that the harbour was closed for the rest of the year. " * 12
    text = f"{filler}\n\n{' '.join(german * 8)}\n\n{filler}"
    assert sentences(text)[12:28] == german * 8
    assert sentences(" ".join(english))[0] == english[0]


def test_initials_that_are_words_begin_no_sentence():
    assert sentences("It was written by J. A. Smith in 1907. A man read it.") == [
        "It was written by J. A. Smith in 1907.",
        "A man read it.",
    ]


def test_blank_texts():
    assert sentences("") == sentences(" \n\n ") == []
    assert sentence_spans("") == []


def test_spans_tile_any_text():
    rng = random.Random(0)
    pieces = [
        "Dr.",
        "U.S.",
        "3.5",
        "end.",
        "The",
        "a",
        "\n",
        "\n\n",
        " ",
        "?",
        '."',
        "- ",
        "# ",
        "。",
        "1.",
        "...",
        "」と",
        "।",
        "ที่ 7 ",
        "z. B. ",
        "؟",
        " »",
    ]
    for _ in range(500):
        text = "".join(rng.choices(pieces, k=rng.randrange(20)))
        assert "".join(text[start:end] for start, end in sentence_spans(text)) == text
