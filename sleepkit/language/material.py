"""The material of a night: what the model asks itself about its memory, and what it must answer.

The paper trains on self-generated data only; how they are written decides everything with a small model.  A night's
items come from the documents alone, never from evaluation questions::

    question   the model writes a question for a given answer span, with the sentence in view (worked examples in front,
               question word forced so that styles differ); kept if, with the sentence in view, it finds the answer
               likely, and if its words stand in the document
    wh, cloze, keywords, about   the same by rule (cues.py): every span of every sentence is covered
    paraphrase the model says a `wh` question in other words; kept if it names nothing that the document does not
    recite     a sentence from a random prefix on
    rewrite    the model says a sentence in its own words; kept if no number and no name was lost or invented
    general    questions about anything; the reply is the unslept model's own
    replay     items of earlier nights; the reply is what the model gave before tonight.  With `relearn` they keep their style
               and are learned again
    note       a pair that was given, learned as it is
    recall     the same, where an expert takes over what faster ones know: something to learn, not to leave alone

The reply to a memory item is the *statement* that answers it, quoted from the document: the worked question-answer pair
that the teacher has in its prompt (SDFT, arXiv 2601.19897: text and worked answer together teach best).  The student
never sees either.  Quoting instead of sampling the reply is ours: SmolLM2's own free replies garble one fact in two.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from sleepkit.errors import SleepkitError
from sleepkit.language.chat import decode, generate, reply_log_probs, text_ids
from sleepkit.language.context_memory import MemoryChunk
from sleepkit.language.cues import (
    about,
    answer_spans,
    cloze,
    content_words,
    keywords,
    question_words,
    statement,
    wh_question,
    whereabouts,
)
from sleepkit.language.scoring import contained
from sleepkit.language.sentences import sentences
from sleepkit.results import read_jsonl, write_jsonl

STYLES = ("question", "wh", "paraphrase", "cloze", "keywords", "about", "recite", "rewrite")
ROLES = ("new", "general", "replay", "again")  # of an item in a night

# Worked examples of our own wording; raw text, so that any causal LM continues them.
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


@dataclass(frozen=True)
class SeedItem:
    """One line of a night's material.

    Attributes:
        prompt: what is asked; the student sees it alone.
        reply: what the teacher says.
        memory: the text that the teacher has in view; empty for general and replayed items.
        style: one of `STYLES`, "note" (of a label), "written" (an answer), "general", "replay" or "recall".
        source: name of the document.
        span: the words of the memory that answer the prompt, where there are such.
        night: when an item of an earlier night was learned, below 0 before this life of nights; 0: tonight's.
    """

    prompt: str
    reply: str
    memory: str
    style: str
    source: str = ""
    span: str = ""
    night: int = 0

    @property
    def role(self) -> str:
        """One of `ROLES`: what an expert has to learn, what of other kinds must stay as it is, and what it learns again."""
        if self.style in ("general", "replay"):
            return self.style
        return "again" if self.night and self.style != "recall" else "new"

    @property
    def is_memory(self) -> bool:
        """True for what is learned tonight, new or again; False for what must stay as it is."""
        return self.role in ("new", "again")


def write_material(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    chunks: Sequence[MemoryChunk],
    styles: Sequence[str] = STYLES,
    cues_per_span: int = 2,
    seed: int = 0,
) -> list[SeedItem]:
    """Write the memory items of a night from the chunks of the context memory.

    Args:
        styles: any of `STYLES`.
        cues_per_span: cloze and keyword cues for each answer span, and "about" cues for each sentence.

    Raises:
        SleepkitError: unknown style, or documents from which nothing can be asked.
    """
    unknown = sorted(set(styles) - set(STYLES))
    if unknown:
        raise SleepkitError(f"styles has {unknown[0]!r}; use any of {', '.join(STYLES)}")
    rng = random.Random(seed)
    lines = list(dict.fromkeys((chunk.title, sentence, chunk.text) for chunk in chunks for sentence in sentences(chunk.text)))
    items: list[SeedItem] = []
    for title, sentence, _ in lines:
        items += _cues(sentence, title, styles, cues_per_span, rng)
    if "question" in styles:
        items += _written_questions(model, tokenizer, lines, rng, seed)
    if "paraphrase" in styles:
        items += _paraphrases(model, tokenizer, [item for item in items if item.style == "wh"], seed)
    if "rewrite" in styles:
        items += _rewrites(model, tokenizer, lines, rng, seed)
    items = newest(items, [sentence for _, sentence, _ in lines])
    if not items:
        raise SleepkitError("the documents hold no sentence that can be asked about; give documents with full sentences")
    return items


def newest(items: Sequence[SeedItem], order: Sequence[str]) -> list[SeedItem]:
    """Items without repeats, of each prompt those of the last sentence of ``order`` that it asks about: what is newer holds."""
    place = {sentence: k for k, sentence in enumerate(order)}
    return list({(item.prompt, item.reply): item for item in _latest(items, lambda item: place[item.memory])}.values())


def not_outdated(kept: Sequence[SeedItem], tonight: Sequence[SeedItem] = ()) -> list[SeedItem]:
    """Items of earlier nights whose prompt no later night, nor ``tonight``'s memory, answers anew."""
    asked = {item.prompt for item in tonight if item.is_memory}
    return [item for item in _latest(kept, lambda item: item.night) if item.prompt not in asked]


def _latest(items: Sequence[SeedItem], when: Callable[[SeedItem], int]) -> list[SeedItem]:
    """Of each prompt the items for which ``when`` is greatest."""
    last: dict[str, int] = {}
    for item in items:
        last[item.prompt] = max(last.get(item.prompt, when(item)), when(item))
    return [item for item in items if when(item) == last[item.prompt]]


def _cues(sentence: str, title: str, styles: Sequence[str], count: int, rng: random.Random) -> list[SeedItem]:
    made: list[tuple[str, str, str, str]] = []
    for span in answer_spans(sentence):
        reply = statement(sentence, span, rng)
        for _ in range(count):
            if "wh" in styles and (asked := wh_question(reply, span, rng)):
                made.append((asked, reply, "wh", span))
            elif "cloze" in styles:
                made.append((cloze(reply, span, rng), reply, "cloze", span))
        if "keywords" in styles:
            made += [(keywords(sentence, span, rng, title), reply, "keywords", span) for _ in range((count + 1) // 2)]
    if "wh" in styles and (found := whereabouts(sentence)):
        place, prompts = found
        made += [(prompt, statement(sentence, place, rng), "wh", place) for prompt in prompts]
    if len(content_words(sentence)) > 2:
        if "about" in styles:
            made.append((about(sentence, rng), sentence, "about", ""))
        if "recite" in styles:
            words = sentence.split()
            cut = rng.randint(2, max(2, len(words) // 2))
            made.append((f"Continue: {' '.join(words[:cut])}", " ".join(words[cut:]), "recite", ""))
    return [
        SeedItem(prompt, reply, sentence, style, title, span) for prompt, reply, style, span in made if reply and prompt != reply
    ]


def _written_questions(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    lines: Sequence[tuple[str, str, str]],
    rng: random.Random,
    seed: int,
    kept_per_span: int = 1,
    min_log_prob: float = -3.0,
    min_grounding: float = 0.5,
) -> list[SeedItem]:
    asked = [
        (title, sentence, text, span, word.capitalize())
        for title, sentence, text in lines
        for span in answer_spans(sentence)
        for word in question_words(span, sentence)[:2]
    ]
    if not asked:
        return []
    head = "Each text is followed by an answer found in the text and a question that has this answer.\n\n"
    head += "".join(f"Text: {text}\nAnswer: {answer}\nQuestion: {question}\n\n" for text, answer, question in _EXAMPLES)
    newline = text_ids(tokenizer, "\n")[-1:]
    prompts = [text_ids(tokenizer, f"{head}Text: {s}\nAnswer: {a}\nQuestion: {word}") for _, s, _, a, word in asked]
    ends = generate(
        model, tokenizer, prompts, 20, 64, temperature=0.8, seed=seed, stop_ids=newline, description="writing questions"
    )
    best: dict[tuple[str, str], list[tuple[float, str, str, str]]] = defaultdict(list)
    candidates = []
    for (title, sentence, text, span, word), tokens in zip(asked, ends, strict=True):
        question = f"{word} {decode(tokenizer, tokens)}"
        vocabulary = {w.lower() for w in content_words(f"{title} {text}")}
        asked_words = [w.lower() for w in content_words(question)][1:]
        grounding = sum(w in vocabulary for w in asked_words) / max(1, len(asked_words))
        if question.endswith("?") and grounding >= min_grounding and not contained(question, span):
            candidates.append((title, sentence, span, question, grounding))
    scores = _answer_log_probs(model, tokenizer, [(s, q, a) for _, s, a, q, _ in candidates])
    for (title, sentence, span, question, grounding), score in zip(candidates, scores, strict=True):
        if score > min_log_prob:
            best[sentence, span].append((score + grounding, question, title, span))
    return [
        SeedItem(question, statement(sentence, span, rng), sentence, "question", title, span)
        for (sentence, span), found in best.items()
        for _, question, title, _ in sorted(found, reverse=True)[:kept_per_span]
    ]


def _answer_log_probs(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, triples: Sequence[tuple[str, str, str]]
) -> list[float]:
    """Mean log-probability per token of each answer, given (sentence, question, answer)."""
    head = "".join(f"Text: {text}\nQuestion: {question}\nAnswer: {answer}\n\n" for text, answer, question in _EXAMPLES[:1])
    rows = [
        (text_ids(tokenizer, f"{head}Text: {s}\nQuestion: {q}\nAnswer:"), text_ids(tokenizer, f" {a}")) for s, q, a in triples
    ]
    return [row.mean().item() for row in reply_log_probs(model, tokenizer, rows)]


def _paraphrases(model: nn.Module, tokenizer: PreTrainedTokenizerBase, asked: Sequence[SeedItem], seed: int) -> list[SeedItem]:
    head = "".join(f"Question: {question}\nIn other words: {other}\n\n" for question, other in _PARAPHRASES)
    prompts = [text_ids(tokenizer, f"{head}Question: {item.prompt}\nIn other words:") for item in asked]
    newline = text_ids(tokenizer, "\n")[-1:]
    made = generate(
        model, tokenizer, prompts, 24, 64, temperature=0.6, seed=seed + 2, stop_ids=newline, description="paraphrasing"
    )
    items = []
    for item, tokens in zip(asked, made, strict=True):
        text = decode(tokenizer, tokens)
        known = set(content_words(f"{item.prompt} {item.memory} {item.source}"))
        named = [word for word in content_words(text)[1:] if word[:1].isupper() or any(c.isdigit() for c in word)]
        shared = known & set(content_words(text)[1:])
        if text.endswith("?") and text != item.prompt and shared and known.issuperset(named) and not contained(text, item.span):
            items.append(replace(item, prompt=text, style="paraphrase"))
    return items


def _rewrites(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    lines: Sequence[tuple[str, str, str]],
    rng: random.Random,
    seed: int,
) -> list[SeedItem]:
    head = "".join(f"Text: {text}\nSaid differently: {other}\n\n" for text, other in _REWRITES)
    prompts = [text_ids(tokenizer, f"{head}Text: {sentence}\nSaid differently:") for _, sentence, _ in lines]
    newline = text_ids(tokenizer, "\n")[-1:]
    made = generate(model, tokenizer, prompts, 48, 64, temperature=0.7, seed=seed + 1, stop_ids=newline, description="rewriting")
    items = []
    for (title, sentence, _), tokens in zip(lines, made, strict=True):
        text = decode(tokenizer, tokens)
        if text.endswith(".") and text != sentence and _same_facts(sentence, text):
            items.append(SeedItem(about(sentence, rng), text, sentence, "rewrite", title))
    return items


def _same_facts(one: str, other: str) -> bool:
    """True if both texts hold the same numbers and capitalised names (first words aside)."""

    def facts(text: str) -> set[str]:
        words = content_words(text)
        return {w for i, w in enumerate(words) if any(c.isdigit() for c in w) or (i > 0 and w[:1].isupper())}

    a, b = facts(one), facts(other)
    first = {word for text in (one, other) for word in content_words(text)[:1]}
    return a - first == b - first


def save_items(items: Iterable[SeedItem], path: Path) -> None:
    """Write items as JSON lines, atomically."""
    write_jsonl(path, map(asdict, items))


def load_items(path: Path) -> list[SeedItem]:
    """Read items written by `save_items`.

    Raises:
        SleepkitError: not there, or cut short.
    """
    try:
        return [SeedItem(**row) for row in read_jsonl(path)]
    except (OSError, ValueError, TypeError) as error:
        raise SleepkitError(f"{path} cannot be read ({error}); start anew with --overwrite true") from error
