"""What a text says beyond another: in each script the same facts in other words pass, and another number or name does not."""

import pytest

from sleepkit.language.questions.own_words.facts import agreement, lacking

SAID = {
    "en": "The mill of Sund was built by Orla Finch in 1802.",
    "de": "Die Mühle von Sund wurde 1802 von Orla Finch gebaut.",
    "es": "El molino de Sund fue construido por Orla Finch en 1802.",
    "fr": "Le moulin de Sund fut construit par Orla Finch en 1802.",
    "ru": "Мельница в Сунде была построена Орлой Финч в 1802 году.",
    "zh": "松德的磨坊由陈月于1802年建立。",
    "ja": "スンドの水車小屋は1802年に陳月が建てた。",
    "ko": "순드의 방앗간은 1802년에 오를라가 지었다.",
    "ar": "بنت أورلا فينش طاحونة سوند في عام 1802.",
    "th": "โรงสีซุนด์สร้างโดยออร์ลาฟินช์ในปี 1802",
    "hi": "सुंड की चक्की ओरला फिंच ने 1802 में बनाई।",
}
SAME = {
    "en": "In 1802 Orla Finch built the mill of Sund.",
    "de": "Im Jahr 1802 baute Orla Finch die Mühle von Sund.",
    "es": "En 1802 Orla Finch construyó el molino de Sund.",
    "fr": "En 1802, Orla Finch construisit le moulin de Sund.",
    "ru": "В 1802 году Орла Финч построила в Сунде мельницу.",
    "zh": "1802年，陈月建立了松德的磨坊。",
    "ja": "1802年に陳月がスンドの水車小屋を建てた。",
    "ko": "1802년에 오를라가 순드의 방앗간을 지었다.",
    "ar": "في عام ١٨٠٢ بُنيت طاحونة سوند على يد أورلا فينش.",
    "th": "ในปี 1802 ออร์ลาฟินช์สร้างโรงสีซุนด์",
    "hi": "1802 में ओरला फिंच ने सुंड की चक्की बनाई।",
}
NAMES = {
    "en": ("Orla Finch", "Milo Hart"),
    "de": ("Orla Finch", "Milo Hart"),
    "es": ("Orla Finch", "Milo Hart"),
    "fr": ("Sund", "Bergen"),
    "ru": ("Финч", "Харт"),
    "zh": ("陈月", "王明"),
    "ja": ("スンド", "ベルゲン"),
    "ko": ("오를라가", "마일로가"),
    "ar": ("سوند", "برغن"),
    "th": ("ออร์ลาฟินช์", "ไมโลฮาร์ต"),
    "hi": ("फिंच", "मार्टिन"),
}


@pytest.mark.parametrize("language", SAID)
def test_the_same_facts_in_other_words_lack_nothing(language):
    said, same = SAID[language], SAME[language]
    assert lacking(same, said, language) == [] and lacking(said, same, language) == []
    assert agreement(said, same, language) >= 0.5


@pytest.mark.parametrize("language", SAID)
def test_another_number_or_name_is_seen(language):
    said, same, (name, other) = SAID[language], SAME[language], NAMES[language]
    assert name in same
    assert lacking(same.replace("1802", "1803").replace("١٨٠٢", "١٨٠٣"), said, language) == ["1803"]
    assert lacking(said, same.replace("1802", "").replace("١٨٠٢", ""), language) == ["1802"]
    assert lacking(same.replace(name, other), said, language)
    assert lacking(said, same.replace(name, ""), language)


@pytest.mark.parametrize(
    ("text", "known", "language", "lacks"),
    [
        ("Sie besitzt 6.400 Moose.", "Ihre Sammlung hat 6400 Moose.", "de", []),
        ("Die alte Dame kam aus Wien.", "Sie kam aus Wien.", "de", []),  # a noun behind an article and an adjective
        ("Sie kam aus Graz.", "Sie kam aus Wien.", "de", ["Graz"]),
        ("Das ist der Corrie Hoff.", "Das ist der Hügel.", "de", ["Corrie", "Hoff"]),  # two in a row are a name
        ("十九只山羊", "二十只山羊", "zh", ["十九"]),
        ("一只山羊", "山羊", "zh", []),
        ("It opened. Nobody came.", "It opened.", "en", []),  # a capital that begins a sentence
        ("We saw Orla's mill.", "The mill is that of Orla.", "en", []),
        ("C'est l'île d'Orta.", "Orta est une île.", "fr", []),
        ("- Harbour: old", "the harbour is old", "en", []),
    ],
)
def test_what_counts_as_a_name_or_a_number(text, known, language, lacks):
    assert lacking(text, known, language) == lacks


def test_a_text_about_something_else_agrees_in_little():
    for language in SAID:
        assert agreement("?", SAID[language], language) == 0
    assert agreement("Gloomy operas were sung in seven halls.", SAID["en"], "en") == 0
