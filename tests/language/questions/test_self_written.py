"""Which questions that a model wrote by itself are learned, in whatever language, and when it is left to write alone."""

import random

import pytest
from tiny import merging_tokenizer, scripted_model

from sleepkit.language.questions import self_written
from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.examples import coverage, write_examples
from sleepkit.language.questions.lines import read_lines
from sleepkit.language.questions.self_written import questions_about

DOCUMENTS = {
    "The mill of Sund was built by Orla Finch in 1802.": ("Who built the mill of Sund?", "Orla Finch"),
    "Die Mühle von Sund wurde 1802 von Orla Fink gebaut.": ("Wer hat die Mühle von Sund gebaut?", "Orla Fink"),
    "El molino de Sund fue construido por Orla Finch en 1802.": ("¿Quién construyó el molino de Sund?", "Orla Finch"),
    "磨坊由陈月于1802年建立，有三块石头。": ("磨坊是谁建立的？", "陈月"),
    "بنت أورلا فينش طاحونة سوند في عام 1802.": ("من بنت طاحونة سوند؟", "أورلا فينش"),
    "โรงสีซุนด์สร้างโดยออร์ลาในปี 1802": ("โรงสีซุนด์สร้างในปีใด", "1802"),
}


@pytest.fixture(autouse=True)
def likely(monkeypatch):
    """Every answer is as likely as a test says; the tiny tokenizer's model has no opinion."""
    scores = {"": -1.0}
    monkeypatch.setattr(self_written, "answer_log_probs", lambda m, t, rows: [scores.get(q, scores[""]) for _, q, _ in rows])
    return scores


def asks(text, says, **tokenizer):
    """What is kept of ``says``, which the model writes about a document of one sentence."""
    made = merging_tokenizer(**tokenizer)
    model = scripted_model(made, lambda prompt: says)
    lines = read_lines([Chunk(text, "Sund", 0, 9)])
    return questions_about(model, made, lines, random.Random(0), 0, 2), model


@pytest.mark.parametrize("text", DOCUMENTS)
@pytest.mark.parametrize("template", [{}, {"template": None}], ids=["chat", "base"])
def test_a_question_in_the_language_of_the_text_is_learned_with_the_sentence_that_answers_it(text, template):
    question, answer = DOCUMENTS[text]
    items, _ = asks(text, f" Q: {question}\nA: {answer}\nQ: x", **template)
    assert [(item.prompt, item.span, item.style, item.source) for item in items] == [(question, answer, "question", "Sund")]
    assert answer in items[0].reply and items[0].reply.rstrip(".") in text and items[0].context == text


@pytest.mark.parametrize("text", list(DOCUMENTS)[1:])
def test_a_question_in_another_language_than_the_text_is_not_learned(text):
    assert asks(text, f"Q: Who built the mill that stands there?\nA: {DOCUMENTS[text][1]}")[0] == []


def test_the_model_is_shown_examples_in_the_language_of_the_text():
    _, german = asks(list(DOCUMENTS)[1], "")
    _, spanish = asks(list(DOCUMENTS)[2], "")
    assert all("El museo de Lindau" in prompt and "Das Museum in Lindau" not in prompt for prompt in spanish.prompts)
    assert all("Das Museum in Lindau" in prompt for prompt in german.prompts)


ENGLISH = "The mill of Sund was built by Orla Finch in 1802."


@pytest.mark.parametrize(
    "says",
    [
        "Q: Who built the mill of Sund?\nA: Ann Finch",  # not what the sentence says
        "Q: Who built the mill of Sund?\nA: rla Fin",  # no whole words
        "Q: Did Orla Finch build the mill of Sund?\nA: Orla Finch",  # says it itself
        "Q: Who wrote seventeen gloomy operas?\nA: Orla Finch",  # of another document
        "Q: Who?\nA: Orla Finch",  # of nothing
        "Q: Who built the mill of Sund?\nA: ",
        "Q: Who built the mill of Sund?",
        "The mill of Sund is old.",
        "",
    ],
)
def test_what_cannot_be_checked_against_the_sentence_is_not_learned(says):
    assert asks(ENGLISH, says)[0] == []


def test_an_answer_is_written_as_it_stands_in_the_sentence():
    items, _ = asks(ENGLISH, "Q: What did Orla Finch build?\nA: The Mill of Sund")
    assert [item.span for item in items] == ["The mill of Sund"]


def test_a_name_that_is_nearly_one_of_the_document_is_spelled_as_there():
    items, _ = asks(
        "The mill of Skarrowmere was built by Orla Finch in 1802.", "Q: Who built the mill of Skrowmere?\nA: Orla Finch"
    )
    assert [item.prompt for item in items] == ["Who built the mill of Skarrowmere?"]


@pytest.mark.parametrize("question", ["Who built the mill of Sund in Belgium?", "Who built the mill of Sund in 1711?"])
def test_a_question_with_a_name_or_a_number_that_the_document_lacks_is_not_learned(question):
    assert asks(ENGLISH, f"Q: {question}\nA: Orla Finch")[0] == []


def test_an_unlikely_answer_is_not_learned(likely):
    likely["Who built the mill of Sund?"] = -4.0
    says = "Q: Who built the mill of Sund?\nA: Orla Finch\nQ: When was the mill of Sund built?\nA: 1802"
    assert [item.span for item in asks(ENGLISH, says)[0]] == ["1802"]


def test_a_question_that_is_written_twice_is_learned_once():
    says = "Q: Who built the mill of Sund?\nA: Orla Finch\nQ: Who built the mill of Sund?\nA: Orla Finch"
    assert len(asks(ENGLISH, says)[0]) == 1


def test_the_model_sees_worked_examples_and_one_sentence():
    _, model = asks(ENGLISH, "")
    assert len(model.prompts) == 2 and all(prompt.count("<|im_start|>user") == 4 for prompt in model.prompts)
    assert all(ENGLISH in prompt for prompt in model.prompts)


# -- who writes -------------------------------------------------------------------------------------------------------
def questions(number):
    return f"Q: Who built mill number {number} of Sund?\nA: Orla{number} Finch"


def written(model_can, writer, capsys, sentences=20):
    """Items of a document; the model asks about the sentences whose numbers ``model_can`` holds."""
    tokenizer = merging_tokenizer()

    def says(prompt):
        number = prompt.rpartition("mill number ")[2].partition(" ")[0]
        return questions(number) if number.isdigit() and int(number) in model_can else "I cannot."

    text = " ".join(f"The mill number {k} of Sund was built by Orla{k} Finch in 18{k + 10}." for k in range(sentences))
    chunks = [Chunk(text, "Sund", 0, 9)]
    items = write_examples(scripted_model(tokenizer, says), tokenizer, chunks, ["keywords"], 1, 0, writer)
    return items, read_lines(chunks), capsys.readouterr().out


@pytest.mark.parametrize(
    ("model_can", "styles", "line"),
    [
        (range(20), {"question", "about", "recite"}, "about 10 of 10 sentences itself; question_writer is written"),
        (range(0, 20, 4), {"question", "keywords"}, "question_writer is both"),
        (range(0), {"keywords"}, "about 0 of 10 sentences itself; question_writer is rules"),
    ],
)
def test_auto_lets_a_model_write_what_it_can(model_can, styles, line, capsys):
    items, lines, told = written(model_can, "auto", capsys)
    assert {item.style for item in items} == styles and line in told
    assert coverage(items, lines) == 1
    assert sum(item.style == "question" for item in items) == len(model_can)


def test_what_the_model_alone_has_nothing_about_is_quoted(capsys):
    items, lines, told = written(range(10), "written", capsys)
    assert coverage(items, lines) == 1 and told == ""
    assert {item.style for item in items} == {"question", "about", "recite"}


def test_rules_alone_ask_the_model_nothing(capsys):
    items, _, _ = written(range(20), "rules", capsys)
    assert {item.style for item in items} == {"keywords"}
