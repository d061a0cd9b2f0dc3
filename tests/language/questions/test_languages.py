"""Which language a few words are in, and that what does not tell is not guessed."""

import pytest

from sleepkit.language.questions.languages import STOP_WORDS, UNKNOWN, language_of

TEXTS = {
    "en": ["Who built the mill?", "Ben was born in Orta.", "Who was Der Spiegel founded by?", "A poem, 'Der Panther', is in it."],
    "de": [
        "Der Leuchtturm wurde 1874 gebaut.",
        "Sie wurde geb. am 3. März 1880, war z. B. dort Gast.",
        "Maud Pellinor folgte ihr.",
    ],
    "es": ["El faro fue construido en 1874.", "¿Dónde vive el señor García?"],
    "fr": ["Le phare fut construit en 1874.", "Qui était la première gardienne ?"],
    "it": ["Il faro fu costruito nel 1874."],
    "pt": ["O farol foi construído em 1874."],
    "nl": ["Hij kwam in 1907 naar de haven."],
    "pl": ["Urodził się w 1907 roku i był lekarzem."],
    "vi": ["Ngọn hải đăng được xây năm 1874."],
    "tr": ["Deniz feneri 1874 yılında inşa edildi ve ilk bekçi bir kadındı."],
    "ru": ["Маяк построили в 1874 году."],
    "uk": ["Маяк збудували у 1874 році, її звали Мотря."],
    "ar": ["بُنيت المنارة عام 1874."],
    "fa": ["این فانوس دریایی در سال 1874 ساخته شد و پیر است."],
    "hi": ["गोदी 1907 में खुली।"],
    "zh": ["码头于1907年开放。", "OpenAI 在旧金山的码头上开会。"],
    "ja": ["桟橋は1907年に開いた。", "東京都港区の桟橋で会った。"],
    "ko": ["부두는 1907년에 열렸다."],
    "th": ["ท่าเรือเปิดในปี 1907"],
}


@pytest.mark.parametrize("language", TEXTS)
def test_a_sentence_tells_its_language(language):
    assert [language_of(text) for text in TEXTS[language]] == [language] * len(TEXTS[language])


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Wer veröffentlichte Der Geduldige Teppich?", "de"),
        ("Was rief der Müller Josse Arkwend ins Leben?", "de"),
        ("¿Quién publicó La Alfombra Paciente?", "es"),
        ("Qui publia Le Tapis Patient ?", "fr"),
        ("Who wrote La Alfombra Paciente?", "en"),
        ("Where did Der Spiegel start?", "en"),
        ("Where Skarrowmere lit?", "en"),
        ("Emberwake?", "en"),
    ],
)
def test_a_short_question_tells_its_language_where_english_is_expected(text, language):
    assert language_of(text, "en") == language


@pytest.mark.parametrize("text", ["Orla Finch", "Ann kept bees.", "1907", "", "La Liga", "Die Zeit"])
def test_a_name_is_of_the_language_that_it_stands_in(text):
    assert [language_of(text, default) for default in ("en", "pl", UNKNOWN)] == ["en", "pl", UNKNOWN]


def test_a_language_without_a_list_is_unknown_and_not_english():
    assert language_of("Mnara wa taa ulijengwa mwaka 1874 na mlinzi wa kwanza alikuwa Maud.", "en") == UNKNOWN


def test_stop_words_are_lists_of_small_words():
    assert all(word == word.lower() for words in STOP_WORDS.values() for word in words)
