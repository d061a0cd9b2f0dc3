"""Whom English pronouns stand for: in a question that is to be understood alone, and in an answer to who said "I".

    "The ferry of Sund is called Brisa. It was built in Tarvik."     it: "the ferry of Sund"
    "Where was it built?"                                            becomes "Where was the ferry of Sund built?"
    "Its captain is Oda Renn."                                       becomes "The captain of the ferry of Sund is Oda Renn."

The subject of the last sentence that has one of its own is taken: "it" and "its" for a thing with an article in front, "he",
"she", "his" and "her" for a name.  In other cases the pronoun stays.  Only prompts are changed: replies are quoted.

What a user says of themselves is asked as they would ask, and answered as one answers them::

    "I'm a baker and my cat is called Miso."
    "What is my cat called?"                      "You're a baker and your cat is called Miso."

`said_back` turns "I" and "we" into "you"; "you" is left, as it may be anybody, but where the user tells it something.  `as_asked`
turns "your cat" in a question into "my cat".  What stands in quotation marks is somebody else's.

Subjects as antecedents follow centering theory (Grosz, Joshi and Weinstein 1995, Computational Linguistics 21(2)); questions that
stand alone follow Choi et al. 2021, "Decontextualization" (arXiv 2102.05169).  Left out: plurals, pronouns within a
sentence, and in other languages who speaks, as their verbs would change too.
"""

from __future__ import annotations

import re

from sleepkit.language.questions.english.verbs import main_verb, without_opening

__all__ = ["antecedent_of", "as_asked", "resolved", "said_back", "speaks_to_you", "spelled_out"]

_THING = re.compile(r"(?:It|Its)\b")
_PERSON = re.compile(r"(?:He|She|His|Her)\b")
_ARTICLES = frozenset("The A An This That My Our".split())
_MOST_WORDS = 8  # of a subject
_SPEAKERS = frozenset("I i We we You you".split())

_QUOTED = re.compile(r"(\"[^\"]*\"|“[^”]*”)")
_SHORT = re.compile(r"\b(I|we|you)(?:['’](m|ve|ll|re))\b", re.IGNORECASE)
_LONG = {"m": "am", "ve": "have", "ll": "will", "re": "are"}
_TOLD = re.compile(r"\b(tell|told|ask|asked|show|showed|give|gave|promised|remind|reminded) you\b")
_BACK = {"am": "are", "was": "were", "wasn't": "weren't", "wasn’t": "weren’t"}  # of "I", in front of it or behind it
_TO_YOU = re.compile(
    r"\b(?:(?P<first>am|was|wasn['’]t) (?=[Ii]\b))?"
    r"(?:(?P<subject>[Ii]|[Ww]e)(?P<short>['’]m\b)?(?![\w-]|\.\w)(?P<verb> (?:am|was|wasn['’]t)\b)?"
    r"|(?P<other>[Mm]e|[Mm]y|[Mm]yself|[Uu]s|[Oo]urs?|[Oo]urselves)\b(?!-))|(?P<own>\b(?:of|is|are|was|were|than|and) mine\b)"
)
_SAID_BACK = {"me": "you", "my": "your", "myself": "yourself", "us": "you", "our": "your", "ours": "yours"}
_SAID_BACK |= {"ourselves": "yourselves"}
_AUXILIARY = "do|does|did|are|were|have|had|can|could|will|would|should|must|may"
_TO_ME = re.compile(
    rf"\b(?:(?P<aux>{_AUXILIARY}) you|(?P<subject>you)(?P<verb> (?:are|were))|(?P<other>you|yourself|yours?))\b", re.IGNORECASE
)
_YOU = re.compile(r"\b(?:you|yours?|yourself)\b", re.IGNORECASE)
_ASKED = {"your": "my", "yours": "mine", "yourself": "myself", "you": "me"}


def antecedent_of(sentence: str, known: str) -> str:
    """What a pronoun in the next sentence may stand for: the subject of this one, or what was ``known`` before it."""
    if _THING.match(sentence) or _PERSON.match(sentence):
        return known
    words = without_opening(sentence.split())
    place = main_verb(words, [])
    subject = words[:place] if place else []
    if not _is_phrase(subject) or not (subject[0] in _ARTICLES and len(subject) > 1 or _is_name(subject)):
        return ""
    first = ["The"] if subject[0] in ("A", "An", "This", "That") else subject[:1]
    return " ".join([*first, *subject[1:]])


def resolved(text: str, subject: str) -> str:
    """The text with its subject in place of the pronoun that it begins with, where the two fit."""
    if not subject:
        return text
    pronoun = (_PERSON if _is_name(subject.split()) else _THING).match(text)
    if pronoun is None:
        return text
    rest = text[pronoun.end() :]
    if pronoun[0] == "Its" and (owned := _owned(rest.split())):
        return f"The {' '.join(owned)} of {_within(subject)} {' '.join(rest.split()[len(owned) :])}"
    return subject + ("'s" if pronoun[0] in ("Its", "His", "Her") else "") + rest


def spelled_out(text: str) -> str:
    """The text with "I am" for "I'm" and the like, which rules for verbs can read."""
    return _SHORT.sub(lambda found: f"{found[1]} {_LONG[found[2].lower()]}", text)


def said_back(text: str) -> str:
    """What a user says of themselves, as one says it to them: "Your cat is called Miso." of "My cat is called Miso."."""
    return "".join(part if part[:1] in ('"', "“") else _said_back(part) for part in _QUOTED.split(text))


def _said_back(text: str) -> str:
    text = _TOLD.sub(lambda found: f"{found[1]} \0", text)  # marked, as "you" comes of "I" too
    return _TO_YOU.sub(lambda found: _capital_as(found, _turned(found)), text).replace("\0", "me")


def _turned(found: re.Match[str]) -> str:
    if found["own"]:
        return found["own"].replace("mine", "yours")
    if found["other"]:
        return _SAID_BACK[found["other"].lower()]
    first = f"{_BACK.get(found['first'], found['first'])} " if found["first"] else ""
    verb = f" {_BACK.get(found['verb'][1:], found['verb'][1:])}" if found["verb"] else ""
    return f"{first}you{found['short'][0] + 're' if found['short'] else ''}{verb}"


def _capital_as(found: re.Match[str], text: str) -> str:
    """A replacement with a capital where a sentence begins, or the word has one that is not that of "I"."""
    before = found.string[: found.start()].rstrip(" \"“'(")
    begins = not before or before[-1] in ".!?\n"
    is_capital = begins if found[0][0] == "I" else found[0][0].isupper()
    return text[:1].upper() + text[1:] if is_capital else text


def speaks_to_you(text: str) -> bool:
    """Whether a text says "you" to somebody."""
    return _YOU.search(text) is not None


def as_asked(question: str) -> str:
    """A question about what a user said, as they would ask it themselves: "What is my cat called?" of "... your cat ...?"."""
    return _TO_ME.sub(_asked, question)


def _asked(found: re.Match[str]) -> str:
    if found["aux"]:
        verb = {"are": "am", "were": "was", "does": "do"}.get(found["aux"].lower(), found["aux"].lower())
        return f"{verb.capitalize() if found['aux'][0].isupper() else verb} I"
    if found["subject"]:
        return "I" + {" are": " am", " were": " was"}[found["verb"].lower()]
    text = _ASKED[found["other"].lower()]
    return text.capitalize() if found["other"][0].isupper() else text


def _owned(words: list[str]) -> list[str]:
    """What something has, as far as a sentence that begins with "Its" names it before its verb; none where that is not plain."""
    owned = words[: (main_verb(["Its", *words], []) or 1) - 1]
    return owned if _is_phrase(owned) else []


def _is_phrase(words: list[str]) -> bool:
    """Whether these are a few words without a break."""
    return 0 < len(words) <= _MOST_WORDS and not any(word.endswith((",", ";", ":")) for word in words)


def _within(subject: str) -> str:
    """The subject as it stands within a sentence, its article in small letters."""
    first, _, rest = subject.partition(" ")
    return f"{first.lower()} {rest}" if first in _ARTICLES else subject


def _is_name(words: list[str]) -> bool:
    """Whether these are capitalised words without an article, three at most: somebody, where "he" or "she" follows."""
    return (
        len(words) <= 3
        and _SPEAKERS.isdisjoint(words)
        and words[0] not in _ARTICLES
        and all(word[:1].isupper() for word in words)
    )
