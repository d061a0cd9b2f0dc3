"""Items in the model's own words: questions about a sentence, the same in other words, and the sentence in other words.

    question     for an answer span, with the sentence in view; kept if the sentence makes the answer likely and the document
                 has the question's words
    paraphrase   of a question; kept if it names nothing that the document does not
    rewrite      of a sentence; kept if no number and no name was lost or invented

Worked examples stand in front, as raw text, so that any causal LM continues them.  Ours: the filters.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn
from transformers import PreTrainedTokenizerBase

from sleepkit.language.generation.chat import decode, generate, raw_ids, reply_log_probs, text_ids
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.questions.rules import about, answer_spans, content_words, question_words, statement
from sleepkit.reporting.scores import contained

if TYPE_CHECKING:
    from sleepkit.language.questions.lines import Line

__all__ = ["answer_log_probs", "paraphrases", "rewrites", "written_questions"]

_EXAMPLES = (
    (
        "Marie Curie was born in Warsaw in 1867 and moved to Paris to study physics.",
        "Warsaw",
        "In which city was Marie Curie born?",
    ),
    (
        "The Golden Gate Bridge, painted International Orange, is 2,737 metres long and opened in 1937.",
        "2,737 metres",
        "How long is the Golden Gate Bridge?",
    ),
    (
        "The heart pumps blood through the body, and its rhythm is set by the sinoatrial node.",
        "sinoatrial node",
        "What sets the rhythm of the heart?",
    ),
)
_PARAPHRASES = (
    ("In which city was Marie Curie born?", "What is the birthplace of Marie Curie?"),
    ("How long is the Golden Gate Bridge?", "What length does the Golden Gate Bridge have?"),
    ("What sets the rhythm of the heart?", "The heart keeps its rhythm thanks to what?"),
    ("Who was Ada Lovelace taught by?", "Which person gave lessons to Ada Lovelace?"),
)
_REWRITES = (
    ("Marie Curie was born in Warsaw in 1867.", "Warsaw is the city where Marie Curie was born in 1867."),
    ("The bridge, painted orange, is 2,737 metres long.", "Painted orange, the bridge has a length of 2,737 metres."),
)


def written_questions(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    lines: Sequence[Line],
    rng: random.Random,
    seed: int,
    kept_per_span: int = 1,
    min_log_prob: float = -3.0,
    min_grounding: float = 0.5,
) -> list[SyntheticExample]:
    """Questions for the answer spans of each line, of each span the best ``kept_per_span``."""
    asked = [
        (line, span, word.capitalize())
        for line in lines
        for span in answer_spans(line.said)
        for word in question_words(span, line.said)[:2]
    ]
    if not asked:
        return []
    head = "Each text is followed by an answer found in the text and a question that has this answer.\n\n"
    head += "".join(f"Text: {text}\nAnswer: {answer}\nQuestion: {question}\n\n" for text, answer, question in _EXAMPLES)
    prompts = [
        raw_ids(tokenizer, f"{head}Text: {line.alone(line.said, a)}\nAnswer: {a}\nQuestion: {word}") for line, a, word in asked
    ]
    ends = generate(model, tokenizer, prompts, 20, 64, temperature=0.8, seed=seed, stop=["\n"], description="writing questions")
    vocabularies: dict[str, set[str]] = {}  # of each chunk, with its title
    candidates = []
    for (line, span, word), tokens in zip(asked, ends, strict=True):
        question = f"{word} {decode(tokenizer, tokens)}"
        if line.chunk not in vocabularies:
            vocabularies[line.chunk] = {w.lower() for w in content_words(f"{line.title} {line.chunk}")}
        asked_words = [w.lower() for w in content_words(question)][1:]
        grounding = sum(w in vocabularies[line.chunk] for w in asked_words) / max(1, len(asked_words))
        if question.endswith("?") and grounding >= min_grounding and not contained(question, span):
            candidates.append((line, span, question, grounding))
    scores = answer_log_probs(
        model, tokenizer, [(line.alone(line.said, span), question, span) for line, span, question, _ in candidates]
    )
    best: dict[tuple[Line, str], list[tuple[float, str]]] = defaultdict(list)
    for (line, span, question, grounding), score in zip(candidates, scores, strict=True):
        if score > min_log_prob:
            best[line, span].append((score + grounding, question))
    return [
        SyntheticExample(question, statement(line.said, span, rng), line.context, "question", line.title, span)
        for (line, span), found in best.items()
        for _, question in sorted(found, reverse=True)[:kept_per_span]
    ]


def answer_log_probs(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, triples: Sequence[tuple[str, str, str]]
) -> list[float]:
    """Mean log-probability per token of each answer, given (sentence, question, answer)."""
    head = "".join(f"Text: {text}\nQuestion: {question}\nAnswer: {answer}\n\n" for text, answer, question in _EXAMPLES[:1])
    rows = [(raw_ids(tokenizer, f"{head}Text: {s}\nQuestion: {q}\nAnswer:"), text_ids(tokenizer, f" {a}")) for s, q, a in triples]
    return [row.mean().item() for row in reply_log_probs(model, tokenizer, rows)]


def paraphrases(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, asked: Sequence[SyntheticExample], seed: int
) -> list[SyntheticExample]:
    """Each question in other words, with its reply."""
    head = "".join(f"Question: {question}\nIn other words: {other}\n\n" for question, other in _PARAPHRASES)
    prompts = [raw_ids(tokenizer, f"{head}Question: {item.prompt}\nIn other words:") for item in asked]
    made = generate(model, tokenizer, prompts, 24, 64, temperature=0.6, seed=seed + 2, stop=["\n"], description="paraphrasing")
    items = []
    for item, tokens in zip(asked, made, strict=True):
        text = decode(tokenizer, tokens)
        known = set(content_words(f"{item.prompt} {item.context} {item.source}"))
        named = [word for word in content_words(text)[1:] if word[:1].isupper() or any(c.isdigit() for c in word)]
        shared = known & set(content_words(text)[1:])
        if text.endswith("?") and text != item.prompt and shared and known.issuperset(named) and not contained(text, item.span):
            items.append(replace(item, prompt=text, style="paraphrase"))
    return items


def rewrites(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    lines: Sequence[Line],
    rng: random.Random,
    seed: int,
) -> list[SyntheticExample]:
    """Each sentence in other words."""
    head = "".join(f"Text: {text}\nSaid differently: {other}\n\n" for text, other in _REWRITES)
    prompts = [raw_ids(tokenizer, f"{head}Text: {line.said}\nSaid differently:") for line in lines]
    made = generate(model, tokenizer, prompts, 48, 64, temperature=0.7, seed=seed + 1, stop=["\n"], description="rewriting")
    items = []
    for line, tokens in zip(lines, made, strict=True):
        text = decode(tokenizer, tokens)
        if text.endswith(".") and text != line.said and _same_facts(line.said, text):
            items.append(SyntheticExample(about(line.said, rng), text, line.context, "rewrite", line.title))
    return items


def _same_facts(one: str, other: str) -> bool:
    """True if both texts hold the same numbers and capitalised names (first words aside)."""

    def facts(text: str) -> set[str]:
        words = content_words(text)
        return {w for i, w in enumerate(words) if any(c.isdigit() for c in w) or (i > 0 and w[:1].isupper())}

    a, b = facts(one), facts(other)
    first = {word for text in (one, other) for word in content_words(text)[:1]}
    return a - first == b - first
