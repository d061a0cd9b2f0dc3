"""Items in the model's own words: questions about a sentence, the same in other words, and the sentence in other words.

    question     for an answer span of an English sentence, with the sentence in view; kept if the sentence makes the answer
                 likely and the document has the question's words
    paraphrase   of a question, or of a sentence with a gap; kept if it names nothing that the document does not
    rewrite      of a sentence; kept if no number and no name was lost or invented

Worked examples stand in front, as raw text, so that any causal LM continues them; those of paraphrases and rewrites are in the
language of the text where we have some (own_words/worked_examples.py), and what is kept must be in it.  What may be a number or a
name in other scripts says own_words/facts.py.  Ours: the filters.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from sleepkit.language.generation.chat import decode, generate, raw_ids, reply_log_probs, text_ids, window_of
from sleepkit.language.questions.english.rules import about, statement
from sleepkit.language.questions.english.spans import answer_spans, question_words
from sleepkit.language.questions.gaps import GAP, question_mark, tell_about
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.questions.languages import ENGLISH, is_in, language_of
from sleepkit.language.questions.own_words.facts import agreement, lacking
from sleepkit.language.questions.own_words.worked_examples import examples_for
from sleepkit.language.questions.prose import ends_sentence, is_question
from sleepkit.language.questions.words import content_words
from sleepkit.reporting.live.meter import timed
from sleepkit.reporting.scores import contained

if TYPE_CHECKING:
    from sleepkit.language.questions.lines import Line

__all__ = ["answer_log_probs", "paraphrases", "rewrites", "room_for", "written_questions"]

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
_LEAST_AGREEMENT = 0.5  # of the content words of a sentence, with its rewriting


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


@timed("scoring")
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
    """Each question in other words, with its reply; a sentence with a gap as a question.  Each in its own language."""
    languages = [language_of(f"{item.prompt} {item.reply}", ENGLISH) for item in asked]
    prompts = [examples_for(told).paraphrase_prompt(item.prompt) for item, told in zip(asked, languages, strict=True)]
    given = [(told, item.prompt) for item, told in zip(asked, languages, strict=True)]
    made = _by_language(model, tokenizer, prompts, given, 24, temperature=0.6, seed=seed + 2, description="paraphrasing")
    return [
        replace(item, prompt=text, style="paraphrase")
        for item, language, text in zip(asked, languages, made, strict=True)
        if _asks_the_same(item, text, language)
    ]


def rewrites(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    lines: Sequence[Line],
    rng: random.Random,
    seed: int,
) -> list[SyntheticExample]:
    """Each sentence in other words, in its own language."""
    prompts = [examples_for(line.language).rewrite_prompt(line.said) for line in lines]
    given = [(line.language, line.said) for line in lines]
    made = _by_language(model, tokenizer, prompts, given, 48, temperature=0.7, seed=seed + 1, description="rewriting")
    return [
        SyntheticExample(prompt, text, line.context, "rewrite", line.title)
        for line, text in zip(lines, made, strict=True)
        if _says_the_same(line.said, text, line.language) and (prompt := _told(line, rng))
    ]


def _told(line: Line, rng: random.Random) -> str:
    """A request for a sentence, in its language; "" where it has too few words."""
    return about(line.said, rng) if line.language == ENGLISH else tell_about(line.said, line.language, rng)


def _by_language(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    given: Sequence[tuple[str, str]],
    tokens: int,
    **options: Any,
) -> list[str]:
    """What the model writes on one line after each prompt, those of one language together, as they begin alike.

    Args:
        given: of each prompt the language, and the text that is to be said in other words.
        tokens: of what is written in English.  In other languages "" stands for what does not fit the model's window.
    """
    texts: dict[int, str] = {}
    for language in dict.fromkeys(told for told, _ in given):
        ids = {k: raw_ids(tokenizer, prompts[k]) for k, (told, _) in enumerate(given) if told == language}
        room = room_for(tokenizer, [given[k][1] for k in ids], language, tokens)
        if language != ENGLISH:
            ids = {k: row for k, row in ids.items() if len(row) + room <= window_of(model)}
        rows = generate(model, tokenizer, list(ids.values()), room, 64, stop=["\n"], **options)
        texts.update((k, decode(tokenizer, row)) for k, row in zip(ids, rows, strict=True))
    return [texts.get(k, "") for k in range(len(prompts))]


def room_for(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], language: str, tokens: int) -> int:
    """Tokens for what is written about texts: ``tokens``; in other languages than English, of which vocabularies hold few whole
    words, half as many again as the longest text has, if that is more."""
    return tokens if language == ENGLISH else max(tokens, *(3 * len(text_ids(tokenizer, text)) // 2 for text in texts))


def _asks_the_same(item: SyntheticExample, text: str, language: str) -> bool:
    """Whether a paraphrase is another question with the same answer, of the same document, in the same language."""
    known = f"{item.prompt} {item.context} {item.source}"
    if text == item.prompt or contained(text, item.span, "" if language == ENGLISH else language):
        return False
    if language == ENGLISH:
        words = set(content_words(text)[1:])
        return text.endswith("?") and not words.isdisjoint(content_words(known)) and not _named_anew(text, known)
    is_asked = is_question(text) or text.endswith(question_mark(language))
    is_about_it = agreement(text, known, language) > 0 and not lacking(text, known, language)
    return is_asked and GAP not in text and is_in(text, language) and is_about_it


def _says_the_same(said: str, text: str, language: str) -> bool:
    """Whether a rewriting is another sentence with the same numbers and names, in the same language."""
    if text == said:
        return False
    if language == ENGLISH:
        return text.endswith(".") and not _named_anew(text, said) and not _named_anew(said, text)
    is_whole = (ends_sentence(text) or not ends_sentence(said)) and not is_question(text) and not text.endswith((":", "："))
    keeps = not lacking(text, said, language) and not lacking(said, text, language)
    has_same_words = agreement(said, text, language) >= _LEAST_AGREEMENT
    return is_whole and is_in(text, language) and keeps and has_same_words


def _named_anew(text: str, known: str) -> set[str]:
    """Numbers and capitalised names of an English text (the first word aside) that another has nowhere."""
    words = content_words(text)[1:]
    return {word for word in words if word[:1].isupper() or any(c.isdigit() for c in word)} - set(content_words(known))
