"""Texts and lines of 60,000 characters of anything take seconds at most: no pattern goes back over what it has read.

A pattern that does takes half a minute or more here, so a limit of seconds tells them apart on any machine.
"""

import random
import time

import pytest
from tiny import tiny_tokenizer

from sleepkit.language.data.experience import word_count
from sleepkit.language.questions.context import Chunk, ContextStore
from sleepkit.language.questions.english import rules, spans, verbs
from sleepkit.language.questions.examples import rule_questions
from sleepkit.language.questions.lines import quotations, read_lines
from sleepkit.language.questions.passages import passages
from sleepkit.language.questions.sentences import sentences
from sleepkit.language.questions.words import content_words

LENGTH, SECONDS = 60_000, 8.0
PARTS = (
    *(
        ".",
        ". ",
        " .",
        "…",
        "!",
        "? ",
        " ",
        "\n",
        " \n",
        "\t",
        '"',
        '."',
        "'",
        "(",
        ")",
        "()",
        "[",
        "]",
        "{",
        "}",
        "<",
        "1",
        "1 ",
    ),
    *(
        "1.",
        "1,",
        "12:",
        "$",
        "a",
        "a ",
        "a, ",
        "aA",
        "A",
        "A ",
        "AA. ",
        "A.",
        "Aa-",
        "A of ",
        "the ",
        "the a ",
        " and ",
        ",",
        ", ",
    ),
    *(
        "; ",
        ": ",
        "a: ",
        "-",
        "--\n",
        "#\n",
        "# ",
        "|",
        "| ",
        "_",
        "*",
        "=",
        "a=",
        "`",
        "```\n",
        "User: ",
        "\nUser: a",
        "。",
        "中",
    ),
    *("\u2028", "\x85", "Dr. ", "U.S. ", "e.g. ", "1. ", "\n1. ", "\n- ", "\n> ", "May ", "aed ", "aeed", "f(", "if ", "return "),
    *("SELECT FROM ", "import a\n", "a\n", "A\n", "a\t", "word.\nWord ", "He is a ", "went to ", "12.03.24 "),
)


@pytest.fixture
def clock():
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("part", PARTS)
def test_reading_and_asking(part, clock):
    rng = random.Random(0)
    text = "A" + part * (LENGTH // len(part)) + "x!"
    for work in (sentences, passages, spans.answer_spans, content_words, rules.whereabouts, word_count, verbs.base_form):
        work(text)
    rules.statement(text, text[:3], rng)
    rules.cloze(text, text[:3], rng)
    rules.wh_question(f"The {text} was built in Rome.", "Rome", rng)
    rules.wh_question(text, text[3:6], rng)


@pytest.mark.parametrize(
    "text", ["value,4.50," * 10_000, "z" * LENGTH, "the mill of Tarn and " * 5_000, "." * 20_000, "中" * LENGTH]
)
def test_cutting_into_chunks(text, clock):
    memory = ContextStore(tiny_tokenizer(), 200)
    memory.add_document(text)
    chunks = memory.chunks()
    assert all(chunk.n_tokens <= 200 for chunk in chunks)
    assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())


def test_a_document_of_30000_words(clock):
    text = " ".join(f"In {1000 + k} the keeper Orla Finch{k} of Tarn lit {k} lamps for the old harbour." for k in range(2_300))
    chunks = [Chunk(text[k : k + 4000], "book", k // 4000, 1000) for k in range(0, len(text), 4000)]
    rng = random.Random(0)
    lines = read_lines(chunks)
    styles = ("wh", "cloze", "keywords", "about", "recite")
    items = [
        item for line in lines for item in (rule_questions(line, styles, 1, rng) if line.is_prose else quotations(line, rng))
    ]
    assert len(lines) >= 2_300 and len(items) > 20_000
