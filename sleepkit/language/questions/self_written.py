"""Questions that the model itself writes about a text, in the language of the text: no rule of any language is needed.

It is shown three worked examples as turns of a conversation, and then each sentence of the document: of English all three are
English, of other languages one is and two are in the language of the sentence, and where we have none one each is English, German
and Chinese (own_words/worked_examples.py).  Of what it writes a question is kept if

- it is in the language of the sentence;
- its answer stands in the sentence, word for word but for capitals, and not in the question;
- the document has most of its words and all its names and numbers, so that it is about this document: a name that is nearly one
  of the document's is taken for that;
- the model, with the sentence in view, finds the answer likely.

The reply to learn is the sentence that answers it, as for all other items (examples.py).  After the self-study of "Cartridges"
(Eyuboglu et al. 2025, arXiv 2506.06266), where the model is prompted to ask itself; the checks and quoted replies are ours.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from torch import nn
from transformers import PreTrainedTokenizerBase

from sleepkit.language.generation.chat import chat_ids, decode, generate, window_of
from sleepkit.language.questions.english.rules import statement
from sleepkit.language.questions.gaps import quoted
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.questions.languages import ENGLISH, is_in
from sleepkit.language.questions.own_words.facts import lacking
from sleepkit.language.questions.own_words.worked_examples import examples_for
from sleepkit.language.questions.words import content_words, matching_words
from sleepkit.language.questions.writer import answer_log_probs, room_for
from sleepkit.reporting.scores import contained
from sleepkit.reporting.scripts import characters, is_unspaced

if TYPE_CHECKING:
    from sleepkit.language.questions.lines import Line

__all__ = ["questions_about"]

_ASKED = (
    "Write two questions that are answered by this sentence, each with its short answer, copied from the sentence. "
    "Write in the language of the sentence.\n\n{}"
)
_PAIR = re.compile(r"Q:[ \t]*(\S[^\n]*?)[ \t]*\nA:[ \t]*(\S[^\n]*?)[ \t]*(?:\n|$)")
_STOPS = ".。!！ \t\"'“”„«»「」"
TOKENS = 80  # of two English questions with their answers
LONGEST_ANSWER = 60  # characters
MIN_LOG_PROB, MIN_GROUNDING = -3.0, 0.5
LIKENESS = 0.7  # of a misspelt name with the right one, as `difflib` measures it, from 0 to 1


def questions_about(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, lines: Sequence[Line], rng: random.Random, seed: int, samples: int
) -> list[SyntheticExample]:
    """Questions that the model writes about each line, in its language, without repeats.

    A sentence that does not fit the model's window beside the examples is left out.

    Args:
        lines: prose, in whatever languages.
        rng: draws what is quoted of long sentences.
        seed: of what the model writes.
        samples: how often it is asked about each line, for two questions each.
    """
    found: dict[tuple[Line, str], str] = {}
    for language in dict.fromkeys(line.language for line in lines):  # each by itself, as its prompts begin alike
        of_language = [line for line in lines if line.language == language]
        for line, text in _written_about(model, tokenizer, of_language, seed, samples):
            for written, said in _PAIR.findall(text):
                question, answer = _with_its_names(written, line), _as_it_stands(said.strip(_STOPS), line.said)
                if is_grounded(line, question, answer):
                    found[line, question] = answer
    triples = [(line.alone(line.said), question, answer) for (line, question), answer in found.items()]
    likely = answer_log_probs(model, tokenizer, triples)
    return [
        SyntheticExample(question, _reply(line, answer, rng), line.context, "question", line.title, answer)
        for ((line, question), answer), score in zip(found.items(), likely, strict=True)
        if score > MIN_LOG_PROB
    ]


def _written_about(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, lines: Sequence[Line], seed: int, samples: int
) -> list[tuple[Line, str]]:
    """What the model writes about lines of one language, ``samples`` times about each that fits its window."""
    prompt_of = {line: chat_ids(tokenizer, _conversation(line)) for line in lines}
    room = room_for(tokenizer, [line.said for line in lines], lines[0].language, TOKENS)
    asked = [line for line in lines if len(prompt_of[line]) + room <= window_of(model) for _ in range(samples)]
    prompts = [prompt_of[line] for line in asked]
    made = generate(
        model, tokenizer, prompts, room, 64, temperature=0.7, seed=seed + 3, stop=["\n\n"], description="asking itself"
    )
    return [(line, decode(tokenizer, tokens)) for line, tokens in zip(asked, made, strict=True)]


def _conversation(line: Line) -> list[dict[str, str]]:
    """Worked examples as turns, and the request for questions about a line."""
    turns = [
        {"role": role, "content": text}
        for sentence, pairs in examples_for(line.language).asked
        for role, text in (("user", _ASKED.format(sentence)), ("assistant", pairs))
    ]
    return [*turns, {"role": "user", "content": _ASKED.format(line.alone(line.said))}]


def is_grounded(line: Line, question: str, answer: str) -> bool:
    """Whether a question is about the line's document, in its language, and its answer stands in the line but not in it."""
    parts = characters if is_unspaced(line.said) else matching_words  # of these scripts, few pairs of a question are the text's
    words, known = parts(question), set(parts(f"{line.title} {line.chunk}"))
    shared = sum(word in known for word in words)
    return (
        0 < len(answer) <= LONGEST_ANSWER
        and (line.language == ENGLISH or is_in(question, line.language))
        and answer in line.said
        and contained(line.said, answer, line.language)
        and not contained(question, answer, line.language)
        and question != line.said
        and 0 < MIN_GROUNDING * len(words) <= shared
        and not _names_anew(question, line)
    )


def _names_anew(question: str, line: Line) -> list[str]:
    """Numbers of a question, and names with a capital, that the document does not have."""
    lacks = lacking(question, f"{line.title} {line.chunk}", line.language)
    return [word for word in lacks if word[0].isupper() or word[0].isdigit()]


def _with_its_names(question: str, line: Line) -> str:
    """A question with the names that a small model misspells as the document spells them, "Skrowmere" as "Skarrowmere"."""
    known = [word for word in content_words(f"{line.title} {line.chunk}", line.language) if word[0].isupper()]
    for name in _names_anew(question, line):
        if meant := get_close_matches(name, known, 1, LIKENESS):
            question = re.sub(rf"\b{re.escape(name)}\b", meant[0], question)
    return question


def _as_it_stands(answer: str, said: str) -> str:
    """An answer with the capitals that it has in the sentence, if it stands there."""
    start = said.lower().find(answer.lower())
    return answer if start < 0 else said[start : start + len(answer)]


def _reply(line: Line, answer: str, rng: random.Random) -> str:
    return statement(line.said, answer, rng) if line.language == ENGLISH else quoted(line.said, answer, rng)
