"""What the pronoun that begins an English sentence stands for, so that a question about the sentence can be understood alone.

    "The ferry of Sund is called Brisa. It was built in Tarvik."     it: "the ferry of Sund"
    "Where was it built?"                                            becomes "Where was the ferry of Sund built?"
    "Its captain is Oda Renn."                                       becomes "The captain of the ferry of Sund is Oda Renn."

The subject of the last sentence that has one of its own is taken: "it" and "its" for a thing with an article in front, "he",
"she", "his" and "her" for a name.  In other cases the pronoun stays.  Only prompts are changed: replies are quoted.

Subjects as antecedents follow centering theory (Grosz, Joshi and Weinstein 1995, Computational Linguistics 21(2)); questions that
stand alone follow Choi et al. 2021, "Decontextualization" (arXiv 2102.05169).  Left out: plurals, and pronouns within a sentence.
"""

from __future__ import annotations

import re

from sleepkit.language.questions.rules import main_verb, without_opening

__all__ = ["antecedent_of", "resolved"]

_THING = re.compile(r"(?:It|Its)\b")
_PERSON = re.compile(r"(?:He|She|His|Her)\b")
_ARTICLES = frozenset("The A An This That My Our".split())
_MOST_WORDS = 8  # of a subject


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
    return len(words) <= 3 and words[0] not in _ARTICLES and all(word[:1].isupper() for word in words)
