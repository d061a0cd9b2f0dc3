"""The examples of a night: what the model asks itself about its context, and what it must answer.

The paper trains on self-generated data only; how they are written decides everything with a small model.  A night's
items come from the documents alone, never from evaluation questions::

    question   the model writes a question for a given answer span, with the sentence in view (worked examples in front,
               question word forced so that styles differ); kept if, with the sentence in view, it finds the answer
               likely, and if its words stand in the document
    wh, cloze, keywords, about   the same by rule (rules.py): every span of every English sentence is covered
    cloze, keywords, about   of other languages without grammar (gaps.py), "___" for an answer: also where "wh" is asked for
    about, recite, whatever styles are asked for, of what is no prose (passages.py): code, tables, headings; quoted as it stands
    paraphrase the model says a `wh` question in other words, or of other languages a gap as a question; kept if it names
               nothing that the document does not
    recite     a sentence from a random prefix on
    rewrite    the model says a sentence in its own words; kept if no number and no name was lost or invented
    retold     a summary, an explanation and a list of a whole passage, where the model writes alone (own_words/retelling.py)
    general    questions about anything; the reply is the unslept model's own
    replay     items of earlier nights; the reply is what the model gave before tonight.  With `rehearse_as_new` they
               keep their style and are learned again
    note, written, own   a pair that was given, learned as it is: a label, an answer, an answer to a question of the user's own
    recall     the same, where an expert takes over what faster ones know: something to learn, not to leave alone

The reply to a new item is the *statement* that answers it, quoted from the document: the worked question-answer pair
that the teacher has in its prompt (SDFT, arXiv 2601.19897: text and worked answer together teach best).  The student
never sees either.  Quoting instead of sampling the reply is ours: SmolLM2's own free replies garble one fact in two.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from accelerate import PartialState
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from sleepkit.errors import SleepkitError
from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.english.pronouns import as_asked, said_back, speaks_to_you
from sleepkit.language.questions.english.rules import about, cloze, keywords, statement, wh_question, whereabouts
from sleepkit.language.questions.english.spans import answer_spans
from sleepkit.language.questions.english.verbs import own_clause
from sleepkit.language.questions.gaps import GAP, continue_from, gap_questions
from sleepkit.language.questions.items import (
    OWN,
    RETOLD,
    ROLES,
    STYLES,
    SyntheticExample,
    load_items,
    newest,
    not_outdated,
    save_items,
)
from sleepkit.language.questions.languages import ENGLISH
from sleepkit.language.questions.lines import Line, beside_neighbour, coverage, quotations, read_lines, second_part
from sleepkit.language.questions.own_words.retelling import RETOLD_BY, retellings_wanted, retold
from sleepkit.language.questions.passages import USER
from sleepkit.language.questions.self_written import questions_about
from sleepkit.language.questions.words import content_words
from sleepkit.language.questions.writer import paraphrases, rewrites, written_questions
from sleepkit.reporting.live import progress
from sleepkit.utils.seeds import evenly

__all__ = [
    "OWN",
    "ROLES",
    "STYLES",
    "NothingToAskError",
    "SyntheticExample",
    "coverage",
    "rule_questions",
    "load_items",
    "newest",
    "not_outdated",
    "save_items",
    "write_examples",
]

PROBED, CAPABLE, OF_USE = 10, 0.9, 0.1  # sentences that are tried once, and the shares of them that make a writer
ASKED_BY = {"rules": 0, "both": 2, "written": 8}  # times that the model is asked for two questions about each sentence
BY_RULE = ("wh", "cloze", "keywords", "about", "recite")
QUOTED = 0.2  # share of a document from which on it is told that parts of it are not asked about

logger = logging.get_logger(__name__)


class NothingToAskError(SleepkitError):
    """The documents of a night hold nothing that could be asked about or quoted."""


def write_examples(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    chunks: Sequence[Chunk],
    styles: Sequence[str] = STYLES,
    questions_per_span: int = 2,
    seed: int = 0,
    question_writer: str = "rules",
) -> list[SyntheticExample]:
    """Write the examples of a night: questions and statements about its documents, with the replies to learn.

    Documents that are there for reference only get none.  What is quoted, and a document of which nothing can be asked, is told
    by a warning.

    Args:
        model (`nn.Module`): causal LM that writes questions, paraphrases and rewrites, where ``styles`` has them.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        chunks (sequence of `Chunk`): tonight's documents, cut to the model's context, such as `ContextStore.chunks` returns.
        styles (sequence of `str`): any of `STYLES`.
        questions_per_span (`int`, defaults to 2): rule-made cloze and keyword questions for each answer span, and "about"
            questions for each sentence.
        seed (`int`, defaults to 0): of all that is drawn.
        question_writer (`str`, defaults to `"rules"`): who asks, one of `QUESTION_WRITERS`: ``rules``, with their ``styles``;
            ``written``, the model itself, in the language of the text; ``both``; ``auto`` by what the model can do.

    Returns:
        list of `SyntheticExample`: prompt, reply, and the context that the teacher sees.

    Raises:
        SleepkitError: unknown style.
        NothingToAskError: documents of which nothing can be asked or quoted.

    Example:

        >>> store = ContextStore(tokenizer, max_tokens=512)
        >>> store.add_document("The pier opened in 1907.", title="pier")
        >>> items = write_examples(model, tokenizer, store.chunks(), styles=["wh", "keywords"])
    """
    unknown = sorted(set(styles) - set(STYLES))
    if unknown:
        raise SleepkitError(f"styles has {unknown[0]!r}; use any of {', '.join(STYLES)}")
    rng = random.Random(seed)
    lines = read_lines(chunks)
    asked = [line for line in lines if line.is_prose]
    items = [item for line in lines if not line.is_prose for item in quotations(line, rng)]
    if question_writer == "auto":
        question_writer = _writer_for(model, tokenizer, asked, seed)
    times = ASKED_BY[question_writer]
    own = questions_about(model, tokenizer, asked, random.Random(seed), seed, times) if times else []
    if question_writer == "written":
        styles = []
        items += [item for line in asked for item in quotations(line, rng)]
    items += _by_rules(model, tokenizer, asked, styles, questions_per_span, rng, seed)
    items += own
    items += _of_the_rest(lines, items, set(styles) & set(BY_RULE) or question_writer == "written", rng)
    _tell_of_the_rest(chunks, lines, items)
    if question_writer in RETOLD_BY:
        items += _retold(model, tokenizer, chunks, lines, seed)
    items = _answering_the_user(items, lines)
    items = newest(items, [*(chunk.text for chunk in chunks), *(line.context for line in lines)])
    if not items:
        raise NothingToAskError("the documents hold no sentence that can be asked about; give documents with full sentences")
    return items


def _answering_the_user(items: Sequence[SyntheticExample], lines: Sequence[Line]) -> list[SyntheticExample]:
    """Items about what a user has said in a chat, asked as the user would ask and answered as one answers the user.

    What is to be gone on with from its beginning stays as it was said.
    """
    said = {(line.title, line.context) for line in lines if line.speaker == USER and line.is_prose and line.language == ENGLISH}
    return [_answering(item) if (item.source, item.context) in said and item.style != "recite" else item for item in items]


def _answering(item: SyntheticExample) -> SyntheticExample:
    by_model = item.style in ("question", "paraphrase")  # which may speak to the user
    prompt = as_asked(item.prompt) if by_model and not speaks_to_you(item.context) else item.prompt
    return replace(item, prompt=prompt, reply=said_back(item.reply), span=said_back(item.span))


def _by_rules(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Line],
    styles: Sequence[str],
    count: int,
    rng: random.Random,
    seed: int,
) -> list[SyntheticExample]:
    """Questions for answers that rules find, made by rules and by a model that rules lead."""
    items = [item for line in asked for item in rule_questions(line, styles, count, rng)]
    english = [line for line in asked if line.language == ENGLISH]  # what question words are in
    whole = [item for item in items if item.style == "wh" or (item.style == "cloze" and GAP in item.prompt)]
    tried = {"question": len(english), "paraphrase": len(whole), "rewrite": len(asked)}
    if "question" in styles:
        items += written_questions(model, tokenizer, english, rng, seed)
    if "paraphrase" in styles:
        items += paraphrases(model, tokenizer, whole, seed)
    if "rewrite" in styles:
        items += rewrites(model, tokenizer, asked, rng, seed)
    _tell_of_empty_styles(styles, tried, items)
    return items


def _writer_for(model: nn.Module, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Line], seed: int) -> str:
    """Who asks, by how many of a few sentences the model has a question about when it is asked once; one line says so."""
    probe = evenly(asked, PROBED)
    if not probe:
        return "rules"
    written = questions_about(model, tokenizer, probe, random.Random(seed), seed, samples=1)
    answered = {(item.source, item.context) for item in written}
    done = sum((line.title, line.context) in answered for line in probe)
    share = done / len(probe)
    writer = "written" if share >= CAPABLE else "both" if share >= OF_USE else "rules"
    progress.say(f"the model asked about {done} of {len(probe)} sentences itself; question_writer is {writer}")
    return writer


def _retold(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, chunks: Sequence[Chunk], lines: Sequence[Line], seed: int
) -> list[SyntheticExample]:
    """What the model tells of whole passages."""
    items = retold(model, tokenizer, chunks, lines, seed)
    _tell_of_empty_styles([RETOLD], {RETOLD: len(retellings_wanted(chunks, lines))}, items)
    return items


def _of_the_rest(
    lines: Sequence[Line], items: Sequence[SyntheticExample], each: Collection[str] | bool, rng: random.Random
) -> list[SyntheticExample]:
    """Quotations of what nothing was written about: ``each`` line, or documents without any item."""
    answered = {(item.source, item.context) for item in items}
    named = {item.source for item in items}
    made: list[SyntheticExample] = []
    for k, line in enumerate(lines):
        if (line.title, line.context) not in answered and (each or line.title not in named):
            made += quotations(line, rng) or beside_neighbour(lines, k)
    return made


def _tell_of_empty_styles(styles: Sequence[str], tried: Mapping[str, int], items: Sequence[SyntheticExample]) -> None:
    """Say in one line of which styles that the model writes nothing was kept, though it was tried."""
    kept = {item.style for item in items}
    empty = [
        f"style {style} kept none of {tried[style]}" for style in tried if style in styles and tried[style] and style not in kept
    ]
    if empty and PartialState().is_main_process:
        logger.warning(f"{', '.join(empty)}: nothing that the model wrote passed the checks")


def _tell_of_the_rest(chunks: Sequence[Chunk], lines: Sequence[Line], items: Sequence[SyntheticExample]) -> None:
    """Say of which documents much is quoted and not asked about, and of which nothing is learned."""
    if not PartialState().is_main_process:
        return
    learned = {item.source for item in items}
    for title in dict.fromkeys(chunk.title for chunk in chunks if not chunk.reference):
        prose = [line.is_prose for line in lines if line.title == title]
        quoted = prose.count(False)
        if title not in learned:
            logger.warning(f"{title}: no passage of it can be asked about or quoted, and none of it is learned")
        elif quoted > QUOTED * len(prose):
            what = "nothing of it is" if quoted == len(prose) else f"{quoted} of {len(prose)} passages are not"
            logger.warning(f"{title}: {what} prose (but code, tables, lists, ...); quoted as it stands, and not asked about")


def rule_questions(line: Line, styles: Sequence[str], count: int, rng: random.Random) -> list[SyntheticExample]:
    """Make questions about a sentence of prose by rules, ``count`` cloze and keyword questions for each answer span.

    Questions are English ones of English text; other languages are asked about with gaps and content words.
    """
    made = list(
        _english_questions(line, styles, count, rng)
        if line.language == ENGLISH
        else gap_questions(line.said, line.language, styles, count, rng)
    )
    if "recite" in styles and len(content_words(line.said, line.language)) > 2 and (cut := second_part(line.said, rng)):
        made.append((continue_from(line.said[:cut], line.language), line.said[cut:], "recite", ""))
    return [
        SyntheticExample(prompt, reply, line.context, style, line.title, span)
        for prompt, reply, style, span in made
        if reply and prompt != reply
    ]


def _english_questions(line: Line, styles: Sequence[str], count: int, rng: random.Random) -> list[tuple[str, str, str, str]]:
    """Return prompts with reply, style and answer span."""
    sentence, title = line.said, line.title
    made: list[tuple[str, str, str, str]] = []
    for span in answer_spans(sentence):
        reply = statement(sentence, span, rng)
        for _ in range(count):
            alone = own_clause(line.alone(reply, span), span)
            if "wh" in styles and (asked := wh_question(alone, span, rng)):
                made.append((asked, reply, "wh", span))
            elif "cloze" in styles:
                made.append((cloze(alone, span, rng), reply, "cloze", span))
        if "keywords" in styles:
            made += [
                (keywords(line.alone(sentence, span), span, rng, title), reply, "keywords", span) for _ in range((count + 1) // 2)
            ]
    if "wh" in styles and (where := whereabouts(sentence)):
        place, prompts = where
        made += [(prompt, statement(sentence, place, rng), "wh", place) for prompt in prompts]
    if "about" in styles and len(content_words(sentence)) > 2:
        made.append((about(line.alone(sentence), rng), sentence, "about", ""))
    return made
