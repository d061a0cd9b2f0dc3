"""Nights on passages of the notebook in five languages: all of it is asked about, and right and wrong students are told apart."""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tiny import merging_tokenizer, scripted_model
from tiny_night import tiny_config

from sleepkit.language.config import LearnerConfig
from sleepkit.language.data.experience import Experience, Question
from sleepkit.language.generation.chat import chat_ids
from sleepkit.language.learner import LanguageLearner
from sleepkit.language.questions.items import RETOLD
from sleepkit.language.questions.languages import language_of
from sleepkit.language.questions.lines import coverage, read_lines
from sleepkit.reporting.scores import contained, normalize_answer

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = {"en": ROOT / "recipes" / "data" / "field_notebook.jsonl"}
NOTEBOOKS |= {language: ROOT / "benchmarks" / "data" / f"notebook_{language}.jsonl" for language in ("de", "es", "zh", "ar")}
STYLES = ["wh", "cloze", "keywords", "about", "recite"]
ENGLISH_WORDS = "what|which|who|whom|whose|where|when|how|why|tell|about|continue|know"
CLEARLY_LOWER = 0.7


def notebook(language):
    """Three passages with their questions, as one experience."""
    rows = [json.loads(line) for line in NOTEBOOKS[language].read_text(encoding="utf-8").split("\n") if line][:3]
    questions = [Question(**asked, document=k) for k, row in enumerate(rows) for asked in row["questions"]]
    return Experience("notebook", [row["context"] for row in rows], questions, [row["title"] for row in rows])


class Student(LanguageLearner):
    """A learner whose model says what ``replies`` holds for a prompt, and nothing else."""

    def __init__(self, folder):
        tokenizer = merging_tokenizer()
        self.replies = {}
        seeding = tiny_config(folder, styles=STYLES, question_writer="rules", general_items=0)
        model = scripted_model(tokenizer, lambda prompt: self.replies[prompt])
        config = LearnerConfig(context_max_tokens=4000, max_new_tokens=600, expert_width=4)  # a token is a byte
        super().__init__(model, tokenizer, seeding, config, [])

    def says(self, replies):
        """Take replies for questions."""
        self.replies = {self.tokenizer.decode(chat_ids(self.tokenizer, asked)): said for asked, said in replies.items()}


@pytest.fixture(params=NOTEBOOKS)
def night(request, tmp_path):
    """A learner that has read a notebook, the notebook, and the items of the night."""
    learner, notes = Student(tmp_path), notebook(request.param)
    learner.wake(notes)
    learner._begin(1)
    return learner, notes, *learner._night_items(1, tmp_path), request.param


@pytest.mark.parametrize("language", NOTEBOOKS)
def test_each_answer_stands_in_its_passage_and_not_in_its_question(language):
    asked = notebook(language).questions
    assert [question.kind for question in asked] == ["direct", "direct", "paraphrase", "paraphrase", "reversed", "reversed"] * 3
    for question in asked:
        assert question.answer in notebook(language).documents[question.document]
        assert not contained(question.question, question.answer, language)


def test_every_sentence_is_asked_about_in_its_own_language(night):
    learner, notes, items, held_out, language = night
    lines = read_lines(learner.day.chunks)
    assert len(lines) == 18 and all(line.is_prose and line.language == language for line in lines)
    assert coverage(items, lines) == 1
    assert {language_of(question.question, "en") for question in notes.questions} == {language}
    if language != "en":
        foreign = re.compile(rf"\b({ENGLISH_WORDS})\b", re.IGNORECASE)
        assert not [item for item in [*items, *held_out] if foreign.search(f"{item.prompt} {item.reply}")]


def test_prompts_and_replies_have_no_control_token_but_those_of_the_template(night):
    learner, _, items, held_out, _ = night
    control = set(learner.tokenizer.all_special_ids)
    of_template = sum(token in control for token in chat_ids(learner.tokenizer, "a"))
    for item in [*items, *held_out]:
        assert sum(token in control for token in chat_ids(learner.tokenizer, item.prompt)) == of_template
        assert "<|" not in f"{item.prompt}{item.reply}"


def test_a_student_that_says_each_taught_reply_is_right_in_the_test_of_the_gate(night):
    learner, _, _, held_out, _ = night
    learner.says({item.prompt: item.reply for item in held_out})
    assert len(held_out) >= 6 and learner.self_test.ask(held_out, [])[0]["held_out"] == 1


def test_a_student_that_says_other_sentences_of_the_document_is_not(night):
    learner, _, _, held_out, language = night
    lines = read_lines(learner.day.chunks)
    of_document = {item: [line.context for line in lines if line.title == item.source] for item in held_out}
    answer_of = partial(normalize_answer, language=language)
    for step in range(1, 6):
        others = {item: said[(said.index(item.context) + step) % len(said)] for item, said in of_document.items()}
        learner.says({item.prompt: said for item, said in others.items()})
        by_chance = sum(answer_of(item.span) in answer_of(said) for item, said in others.items())  # the subject of the document
        assert learner.self_test.ask(held_out, [])[0]["held_out"] == by_chance / len(held_out) < CLEARLY_LOWER


def test_what_the_model_tells_of_whole_passages_is_not_asked_by_the_gate(night):
    learner, notes, _, held_out, _ = night
    told = replace(held_out[0], reply=notes.documents[0], context=notes.documents[0], style=RETOLD, span="")
    assert learner.self_test._can_be_asked(held_out[0]) and not learner.self_test._can_be_asked(told)


def test_right_answers_are_right_in_the_evaluation_alone_and_in_sentences(night):
    learner, notes, *_ = night
    learner.says({question.question: question.answer for question in notes.questions})
    assert learner.evaluate([notes])[0].contained == 1
    learner.says({question.question: _sentence_with(notes, question) for question in notes.questions})
    assert learner.evaluate([notes])[0].contained == 1


def test_other_sentences_of_the_documents_are_wrong_in_the_evaluation(night):
    learner, notes, *_ = night
    answers = {question.question: _sentence_with(notes, question) for question in notes.questions}
    said = list(answers.values())
    for step in (1, 4, 7):
        learner.says({question: said[(k + step) % len(said)] for k, question in enumerate(answers)})
        assert learner.evaluate([notes])[0].contained < CLEARLY_LOWER


def _sentence_with(notes, question):
    """The sentence of the document that holds the answer to a question, the last of several."""
    return [said for said in re.split(r"(?<=[.。])\s*(?=\D)", notes.documents[question.document]) if question.answer in said][-1]
