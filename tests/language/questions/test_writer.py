"""Which questions, paraphrases and rewrites that a model wrote are learned, and which are thrown away."""

import random

import pytest
from tiny import merging_tokenizer, scripted_model

from sleepkit.language.questions import writer
from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.questions.lines import Line, read_lines
from sleepkit.language.questions.own_words.worked_examples import examples_for

SAID = "The mill of Sund was built by Orla Finch in 1802."
CHUNK = f"{SAID} Its wheel turned three stones."
LINE = Line("Sund", SAID, SAID, CHUNK, is_prose=True)


@pytest.fixture
def says(monkeypatch):
    """Lets the model write given texts, one for each prompt in turn, and find answers as likely as given."""

    def speak(texts, likely=-1.0):
        prompts = []

        def generate(model, tokenizer, given, *_, **__):
            prompts.extend(given)
            return [texts[number % len(texts)] for number in range(len(given))]

        monkeypatch.setattr(writer, "raw_ids", lambda tokenizer, text: text)
        monkeypatch.setattr(writer, "generate", generate)
        monkeypatch.setattr(writer, "decode", lambda tokenizer, text: text)
        scores = likely if callable(likely) else lambda question: likely
        monkeypatch.setattr(writer, "answer_log_probs", lambda model, tokenizer, rows: [scores(q) for _, q, _ in rows])
        return prompts

    return speak


def written():
    return writer.written_questions(None, None, [LINE], random.Random(0), 0)


def test_a_question_about_a_span_is_learned_with_the_statement_that_answers_it(says):
    prompts = says(["built the mill of Sund?"])
    items = written()
    assert items and {item.style for item in items} == {"question"}
    for item in items:
        assert item.prompt.endswith(" built the mill of Sund?") and item.span in SAID
        assert (item.context, item.source) == (SAID, "Sund") and item.span in item.reply
    assert all(f"Text: {SAID}\nAnswer: " in prompt for prompt in prompts)


@pytest.mark.parametrize(
    "text",
    [
        "built the mill of Sund",  # no question
        "paints castles beside gigantic oceans?",  # not about this document
        "did Orla Finch do in 1802, and what was built by Orla Finch in 1802, the mill of Sund?",  # says the answer itself
    ],
)
def test_a_question_that_is_none_or_about_something_else_or_tells_its_answer_is_not(text, says):
    says([text])
    assert not [item for item in written() if item.span in ("Orla Finch", "1802")]


def test_a_question_to_which_the_answer_is_unlikely_is_not(says):
    says(["built the mill of Sund?"], likely=-3.5)
    assert written() == []


def test_of_each_span_the_most_likely_question_is_kept(says):
    texts = ["built the mill of Sund?", "turned the mill of Sund?"]
    says(texts, likely=lambda question: -0.5 if "turned" in question else -2.0)
    items = written()
    assert len({item.span for item in items}) == len(items)
    both = [item for item in items if "turned" in item.prompt]
    assert len(both) == len(items)  # each span is asked about with two question words, one of each text


ASKED = SyntheticExample("Who built the mill of Sund?", "It was built by Orla Finch.", CHUNK, "question", "Sund", "Orla Finch")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("By whom was the mill of Sund built?", True),
        ("Which person built the mill in 1802?", True),  # the year stands in the document
        ("By whom was the mill of Sund built", False),  # no question
        ("Who built the mill of Sund?", False),  # the same
        ("By whom was the mill of Orta built?", False),  # a name that is not there
        ("Who built the mill of Sund in 1903?", False),  # a year that is not there
        ("Was the mill of Sund built by Orla Finch?", False),  # tells the answer
        ("What is the weather like?", False),  # nothing in common
    ],
)
def test_a_paraphrase_asks_the_same_of_the_same_document(text, kept, says):
    says([text])
    items = writer.paraphrases(None, None, [ASKED], 0)
    assert [item.prompt for item in items] == [text] * kept
    if kept:
        assert (items[0].style, items[0].reply, items[0].span) == ("paraphrase", ASKED.reply, ASKED.span)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("In 1802 the mill of Sund was built by Orla Finch.", True),
        ("It was Orla Finch who built the mill of Sund in 1802.", True),
        (SAID, False),  # the same
        ("In 1802 the mill of Sund was built by Orla Finch", False),  # not ended
        ("The mill of Sund was built by Orla Finch.", False),  # the year is lost
        ("The mill of Sund was built in 1802.", False),  # the name is lost
        ("The mill of Sund was built by Orla Finch in 1803.", False),  # another year
        ("The mill of Sund was built by Orla Finch and Milo Hart in 1802.", False),  # a name more
    ],
)
def test_a_rewrite_loses_and_invents_no_number_and_no_name(text, kept, says):
    says([text])
    items = writer.rewrites(None, None, [LINE], random.Random(0), 0)
    assert [item.reply for item in items] == [text] * kept
    assert all(item.style == "rewrite" and item.context == SAID for item in items)


# -- other languages --------------------------------------------------------------------------------------------------
# Of each: a sentence, its answer, a gap; a paraphrase, one with another number or name; a rewrite, one without the number and
# one with another name.
ABROAD = {
    "de": (
        *("Die Mühle von Sund wurde 1802 von Orla Fink gebaut.", "Orla Fink", "Die Mühle von Sund wurde 1802 von ___ gebaut."),
        *("Wer baute 1802 die Mühle von Sund?", "Wer baute 1802 die Mühle in Graz?"),
        "Im Jahr 1802 baute Orla Fink die Mühle von Sund.",
        *("Orla Fink baute die Mühle von Sund.", "Im Jahr 1802 baute Milo Hart die Mühle von Sund."),
    ),
    "es": (
        *("El molino de Sund fue construido por Orla Finch en 1802.", "Orla Finch", "El molino de Sund fue construido por ___."),
        *("¿Quién construyó el molino de Sund?", "¿Quién construyó el molino de Sund en 1803?"),
        "En 1802 Orla Finch construyó el molino de Sund.",
        *("Orla Finch construyó el molino de Sund.", "En 1802 Orla Finch construyó el molino de Burgos."),
    ),
    "fr": (
        *("Le moulin de Sund fut construit en 1802 par Orla Finch.", "Orla Finch", "Le moulin de Sund fut construit par ___."),
        *("Qui a construit le moulin de Sund ?", "Qui a construit le moulin de Lyon ?"),
        "En 1802, Orla Finch a construit le moulin de Sund.",
        *("Orla Finch a construit le moulin de Sund.", "En 1802, Milo Hart a construit le moulin de Sund."),
    ),
    "ru": (
        *("Мельницу в Сунде построила Орла Финч в 1802 году.", "Орла Финч", "Мельницу в Сунде построила ___ в 1802 году."),
        *("Кем была построена мельница в Сунде?", "Кем была построена мельница в Твери?"),
        "В 1802 году Орла Финч построила мельницу в Сунде.",
        *("Орла Финч построила мельницу в Сунде.", "В 1802 году Мила Харт построила мельницу в Сунде."),
    ),
    "zh": (
        *("松德的磨坊由陈月于1802年建立。", "陈月", "松德的磨坊由___于1802年建立。"),
        *("谁在1802年建立了松德的磨坊？", "谁在1802年建立了青石的磨坊？"),
        "1802年，陈月建立了松德的磨坊。",
        *("陈月建立了松德的磨坊。", "1802年，王明建立了松德的磨坊。"),
    ),
    "ja": (
        *("スンドの水車小屋は1802年に陳月が建てた。", "陳月", "スンドの水車小屋は1802年に___が建てた。"),
        *("1802年にスンドの水車小屋を建てたのは誰ですか？", "1802年にベルゲンの水車小屋を建てたのは誰ですか？"),
        "1802年に陳月がスンドの水車小屋を建てた。",
        *("陳月がスンドの水車小屋を建てた。", "1802年に王明がスンドの水車小屋を建てた。"),
    ),
    "ar": (
        *("بنت أورلا فينش طاحونة سوند في عام 1802.", "أورلا فينش", "بنت ___ طاحونة سوند في عام 1802."),
        *("من التي بنت طاحونة سوند؟", "من التي بنت طاحونة برغن؟"),
        "في عام 1802 بنت أورلا فينش طاحونة سوند.",
        *("بنت أورلا فينش طاحونة سوند.", "في عام 1802 بنت أورلا فينش طاحونة برغن."),
    ),
    "th": (
        *("โรงสีซุนด์สร้างโดยออร์ลาในปี 1802", "ออร์ลา", "โรงสีซุนด์สร้างโดย___ในปี 1802"),
        *("ใครสร้างโรงสีซุนด์ในปี 1802", "ใครสร้างโรงสีซุนด์ในปี 1803"),
        "ในปี 1802 โรงสีซุนด์สร้างโดยออร์ลา",
        *("โรงสีซุนด์สร้างโดยออร์ลา", "ในปี 1802 โรงสีซุนด์สร้างโดยไมโลฮาร์ต"),
    ),
}
IN_ENGLISH = ("Who built the mill that stands there?", "The mill was built by her in 1802.")


def written_by_a_model(language, style, text):
    """What is kept in a style of ``text``, which a model writes about the sentence of a language; and the model."""
    tokenizer = merging_tokenizer()
    model = scripted_model(tokenizer, lambda prompt: f" {text}\n\n")
    said, answer, gap, *_ = ABROAD[language]
    if style == "rewrite":
        lines = read_lines([Chunk(said, "Sund", 0, 9)])
        assert [line.language for line in lines] == [language]
        return writer.rewrites(model, tokenizer, lines, random.Random(0), 0), model
    return writer.paraphrases(model, tokenizer, [SyntheticExample(gap, said, said, "cloze", "Sund", answer)], 0), model


@pytest.mark.parametrize("language", ABROAD)
def test_a_gap_is_asked_for_as_a_question_in_its_language(language):
    said, answer, _, good, bad, *_ = ABROAD[language]
    (item,), _ = written_by_a_model(language, "paraphrase", good)
    assert (item.prompt, item.reply, item.span, item.style) == (good, said, answer, "paraphrase")
    for text in (bad, IN_ENGLISH[0], good.rstrip("?？؟ ") + f" {answer}?", ""):
        assert written_by_a_model(language, "paraphrase", text)[0] == []


@pytest.mark.parametrize("language", ABROAD)
def test_a_sentence_is_said_in_other_words_in_its_language(language):
    said, *_, good, without_number, other_name = ABROAD[language]
    (item,), _ = written_by_a_model(language, "rewrite", good)
    assert (item.reply, item.context, item.style) == (good, said, "rewrite") and item.prompt
    for text in (said, without_number, other_name, IN_ENGLISH[1], good.rstrip(".。") + "?", ""):
        assert written_by_a_model(language, "rewrite", text)[0] == []


@pytest.mark.parametrize("language", ["de", "zh", "ar"])
def test_the_model_is_shown_examples_in_the_language_of_the_text(language):
    _, model = written_by_a_model(language, "rewrite", "")
    assert model.prompts and all(examples_for(language).rewrites[0][1] in prompt for prompt in model.prompts)


def test_a_document_in_two_languages_is_asked_about_in_both():
    tokenizer = merging_tokenizer()
    answers = {SAID: "In 1802 Orla Finch built the mill of Sund.", ABROAD["de"][0]: ABROAD["de"][5]}
    model = scripted_model(tokenizer, lambda prompt: next(f" {text}\n\n" for said, text in answers.items() if said in prompt))
    lines = [LINE, *read_lines([Chunk(ABROAD["de"][0], "Sund", 0, 9)])]
    items = writer.rewrites(model, tokenizer, lines[::-1], random.Random(0), 0)
    assert [item.reply for item in items] == list(answers.values())[::-1]


def test_a_prompt_that_does_not_fit_the_window_is_left_out():
    tokenizer = merging_tokenizer()
    model = scripted_model(tokenizer, lambda prompt: ABROAD["de"][5])
    model.config.max_position_embeddings = 100
    assert writer.rewrites(model, tokenizer, read_lines([Chunk(ABROAD["de"][0], "Sund", 0, 9)]), random.Random(0), 0) == []
    assert model.prompts == []
