"""Questions from a sentence, by rule: the many ways in which somebody may ask for what it says.

For every span of a sentence that could be an answer (numbers, dates, names, quotations, short phrases)::

    statement   the clause that holds the span, at least ``min_words`` long: the reply
    cloze       the clause with the span replaced by a question word     "Pierre Curie was born in which city?"
    wh          the same in ordinary word order, by moving the verb      "In which city was Pierre Curie born?"
    keywords    a question word and a few content words of the sentence  "Where Pierre Curie born 1859?"
    about       content words alone                                      "Tell me about Pierre Curie 1859"
    whereabouts where somebody is who went somewhere                     "Where is Pierre Curie?" of "Pierre Curie went to Paris."

Every span is asked for, so no fact of a document is left out, reversed questions included (the subject is a span too).
Clozes with question words as noisy questions follow Lewis et al. 2019, "Unsupervised Question Answering by Cloze
Translation" (arXiv 1906.04980).  The spans, the keyword questions and their use in sleep are ours.

Pure functions of text and a seeded ``random.Random``.  English patterns, for English text: other languages are asked about
without grammar (gaps.py).  Left out: parsing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from sleepkit.language.questions.english.spans import (
    MOVED,
    PASSIVE_BY,
    PERSONAL,
    measure_of,
    question_words,
)
from sleepkit.language.questions.english.verbs import (
    AUXILIARIES,
    COORDINATORS,
    DROPPED,
    HAVING,
    PREPOSITIONS,
    RELATIVE,
    base_form,
    last_predicate,
    main_verb,
    past_of,
    without_by,
    without_next_predicate,
    without_opening,
)
from sleepkit.language.questions.words import STOP_WORDS, content_words

__all__ = [
    "ABOUT",
    "about",
    "clauses_around",
    "cloze",
    "keywords",
    "statement",
    "wh_question",
    "whereabouts",
]

_CLAUSE = re.compile(r"(?<=[,;:])\s+|(?<!\s)\s+(?=(?:and|but|which|who|when|while|where|because)\s)")
_NO_SUBJECT = RELATIVE | COORDINATORS | frozenset("as such with by for to from including rather once also both".split())
_WHEREABOUTS = re.compile(
    rf"(?P<who>(?:The |[A-Z])[\w’'-]*(?: [A-Z][\w’'-]*){{0,2}}) {MOVED} (?:in)?to (?P<place>the [\w’'-]+|[A-Z][\w’'-]*)[.,!]"
)
ABOUT = ("Tell me about {}.", "What do you know about {}?", "What about {}?")


def statement(sentence: str, span: str, rng: random.Random, min_words: int = 9, max_words: int = 24) -> str:
    """The sentence, or of a sentence longer than ``max_words`` the clauses around ``span``; ends with a full stop."""
    if len(sentence.split()) > max_words and span in sentence:
        sentence = clauses_around(_CLAUSE.split(sentence), span, rng, lambda text: len(text.split()) >= min_words)
    sentence = sentence.strip(" ,;:")
    return _capital(sentence) if sentence.endswith((".", "!", "?", '."', ".”")) else _capital(sentence) + "."


def clauses_around(
    clauses: Sequence[str], span: str, rng: random.Random, is_enough: Callable[[str], bool], joint: str = " "
) -> str:
    """The clause that holds ``span`` with as many neighbours as are enough; all of them where none holds it."""
    middle = next((i for i, clause in enumerate(clauses) if span in clause), None)
    if middle is None:
        return joint.join(clauses)
    low, high = middle, middle + 1
    while not is_enough(joint.join(clauses[low:high])) and (low > 0 or high < len(clauses)):
        if low > 0 and (high >= len(clauses) or rng.random() < 0.6):
            low -= 1
        else:
            high += 1
    return joint.join(clauses[low:high])


def cloze(text: str, span: str, rng: random.Random) -> str:
    """The text with the span replaced by a question word."""
    return _capital(text.replace(span, rng.choice(question_words(span, text)), 1).rstrip(". ")) + "?"


def wh_question(text: str, span: str, rng: random.Random) -> str | None:
    """A question in ordinary word order whose answer is ``span``, or None where the rules find no verb.

    "The mill was sold in 1902" asks "When was the mill sold?"; "Ann kept bees" asks "What did Ann keep?".
    """
    text = text.rstrip(". ")
    if span not in text:
        return None
    before, after = text.split(span, 1)
    if measured := measure_of(span, text):
        after = after.removeprefix(f" {measured}")
    words, rest_of = before.split(), after.split(",")[0].split()
    while words and words[-1].lower() in DROPPED:
        words = words[:-1]
    word = rng.choice(question_words(span, text))
    if not words and before:  # a leading "In 1902 ...": the subject follows
        if before.partition(" ")[0].lower() not in PREPOSITIONS:
            return None
        words, rest_of = after.strip(" ,").split(), []
    elif not words:
        return _of_the_subject(word, after)
    words = without_opening(words)
    place = main_verb(words, rest_of)
    if place is None:
        return None
    words, rest_of = last_predicate(words, place), without_next_predicate(rest_of)
    if PASSIVE_BY.search(before):
        words = without_by(words)
        if word == "who" and (past := past_of(words[place + 1])):
            return _question(word, past, words[:place], [*words[place + 2 :], *rest_of])
    subject, verb, rest = words[:place], words[place], [*words[place + 1 :], *rest_of]
    if verb in HAVING and len(words) == place + 1:
        return _question(word, HAVING[verb], subject, ["have", *rest_of])
    if verb in AUXILIARIES or verb == "am":
        return _question(word, verb, subject, rest)
    auxiliary, base = base_form(verb) or ("do", verb)
    return _question(word, auxiliary, subject, [base, *rest])


def _of_the_subject(word: str, after: str) -> str | None:
    """A question whose answer begins the text, if a verb follows: "Who bought the mill?"."""
    following = next(iter(after.split(",")[0].split()), "").lower()
    present = r"[a-z]{3,}" if word.startswith("how many") and following not in STOP_WORDS else r"[a-z]{3,}[^s]s"
    is_verb = following in AUXILIARIES or base_form(following) is not None or re.fullmatch(present, following)
    return _capital(f"{word}{after}".strip(" ,")) + "?" if is_verb else None


def _question(word: str, verb: str, subject: list[str], rest: list[str]) -> str | None:
    if not subject or len(subject) > 9 or subject[0].lower().strip(",") in _NO_SUBJECT or not content_words(" ".join(subject)):
        return None
    small = subject[0].lower()
    first = small if small != "i" and small in STOP_WORDS | DROPPED | PERSONAL else subject[0]
    return _capital(" ".join([word, verb, first, *subject[1:], *rest]).strip(" ,;:")) + "?"


def keywords(sentence: str, span: str, rng: random.Random, title: str = "") -> str:
    """A question word with three to six content words of the sentence, sometimes with the title, never the answer."""
    words = content_words(sentence.replace(span, " ", 1))
    kept = sorted(rng.sample(range(len(words)), min(len(words), rng.randint(3, 6))))
    topic = [title] if title and rng.random() < 0.3 and span not in title else []
    return _capital(" ".join([rng.choice(question_words(span, sentence)), *topic, *(words[i] for i in kept)])) + "?"


def whereabouts(sentence: str) -> tuple[str, list[str]] | None:
    """A place that somebody named went to, and questions for it, or None.  Who went somewhere is there, until newer is said."""
    found = _WHEREABOUTS.match(sentence)
    if found is None or not PERSONAL.isdisjoint(found["who"].lower().split()):
        return None
    who = found["who"].replace("The ", "the ", 1)
    return found["place"].removeprefix("the "), [f"Where is {who}?", f"Where is {who} now?"]


def about(sentence: str, rng: random.Random) -> str:
    """A request for the sentence by two to four of its content words."""
    words = content_words(sentence)
    return rng.choice(ABOUT).format(" ".join(rng.sample(words, min(len(words), rng.randint(2, 4)))))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
