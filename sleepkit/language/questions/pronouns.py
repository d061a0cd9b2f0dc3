"""What the pronoun that begins an English sentence stands for, so that a question about the sentence can be understood alone.

    "The ferry of Sund is called Brisa. It was built in Tarvik."     it: "the ferry of Sund"
    "Where was it built?"                                            becomes "Where was the ferry of Sund built?"

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
    is_one = 0 < len(subject) <= _MOST_WORDS and not any(word.endswith((",", ";", ":")) for word in subject)
    if not is_one or not (subject[0] in _ARTICLES and len(subject) > 1 or _is_name(subject)):
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
    return subject + ("'s" if pronoun[0] in ("Its", "His", "Her") else "") + text[pronoun.end() :]


def _is_name(words: list[str]) -> bool:
    """Whether these are capitalised words without an article, three at most: somebody, where "he" or "she" follows."""
    return len(words) <= 3 and words[0] not in _ARTICLES and all(word[:1].isupper() for word in words)
