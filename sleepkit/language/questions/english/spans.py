"""Parts of an English sentence that could answer a question, and the question words that fit them.

    answer_spans("The ferry carries twelve cars.")                      -> ["twelve cars"]
    question_words("twelve cars", "The ferry carries twelve cars.")     -> ["how many cars", "how many"]

Numbers with what they count, dates, names, quotations, short phrases: so no fact is left out, and reversed questions are there
too, as the subject is a span.  Left out: parsing.
"""

from __future__ import annotations

import re
from itertools import dropwhile

from sleepkit.language.questions.english.verbs import (
    MONTHS,
    OPENINGS,
    PAST_OF,
    base_form,
)
from sleepkit.language.questions.words import STOP_WORDS

__all__ = [
    "MOVED",
    "PASSIVE_BY",
    "PERSONAL",
    "answer_spans",
    "measure_of",
    "question_words",
]

_DATE = re.compile(
    rf"(?:{MONTHS})\s+\d{{1,2}}(?!\d)(?:,\s*\d{{4}})?|\d{{1,2}}\s+(?:{MONTHS})(?:\s+\d{{4}})?|(?:{MONTHS})\s+\d{{4}}"
)
_NUMBER = re.compile(r"[$£€]?\d(?:[\d,.]*\d)?(?:[–-]\d+)?(?:%|\s?(?:percent|million|billion|thousand|[a-z]+))?")
_YEAR = r"1\d\d\d|20\d\d"
_NUMERAL = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
    "|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|(?:a |one )?(?:hundred|thousand|million|dozen)"
)
_NUMERALS = re.compile(rf"\b(?i:{_NUMERAL})(?:(?:-| and | )(?:one|{_NUMERAL}))*\b(?!-)")
_PLURAL = r"(?:[a-z-]+[^\Ws]s|people|children|men|women|feet|sheep|geese|mice|fish|deer)"
_COUNTED = re.compile(
    rf"(?:{_NUMERALS.pattern}|\d[\d,.]*(?: (?:hundred|thousand|million|billion))?) (?P<what>(?:[a-z-]+ )*{_PLURAL})"
)
_COUNTED_BY = {
    "how much": "grams kilograms kilos pounds ounces tons tonnes litres liters gallons crowns dollars euros cents pence".split(),
    "how long": "seconds minutes hours days weeks months years decades centuries".split(),
}
_NAME = re.compile(r"[A-Z][\w’'.-]*(?:\s+(?:(?:of|the|de|von|and|for|&)\s+)?[A-Z][\w’'.-]*)*")
_QUOTE = re.compile(r"[\"“]([^\"”]{3,60})[\"”]")
_BOUNDARY = r"of|in|to|for|with|by|and|that|which|who|on|at|from|as|was|is|were|are"
_PHRASE = re.compile(
    r"\b(?:a|an|the|of|by|in|for|to|with|as|from|into|on|is|are|was|were|called|named|and)\s+"
    rf"((?:[a-z][\w’'-]*\s+){{0,3}}[a-z][\w’'-]*)(?=\s*(?:[,.;:()]|\b(?:{_BOUNDARY})\b|$))"
)
MOVED = r"(?:went|moved|travell?ed|journeyed|walked|ran|drove|flew|sailed|rode|returned|hurried|fled)(?: back)?"
PASSIVE_BY = re.compile(
    r"\b(?:was|were|is|are|been|being) [^,;:]{0,99}\bby (?:(?:a|an|the|its|his|her|their) )?(?:[a-z-]+ ){0,2}$"
)
_IN_SOMETHING = re.compile(r"\b(?:in|on|at|near|under|behind|beside|above|below|inside) (?:the|a|an) $")
_AT_A_PLACE = re.compile(r"\b(?:in|at|near) (?:the )?$")
_OF_A_PERSON = re.compile(r"\b(?:he|she|his|her|who|born|died|married|aged)\b")
_MEASURE = re.compile(r" (tall|high|long|deep|wide|thick|old)\b")
_NAMED = re.compile(r"\b(?:called|named) (?:the )?$")
_TO_A_PLACE = re.compile(rf"\b{MOVED} (?:in)?to (?:the )?$")
_PRONOUNS = frozenset("i you he she it we they this that there who both all many some most others nobody everybody".split())
PERSONAL = _PRONOUNS | frozenset("my your our mine i'm i've i'd i'll we're we've we'd we'll you're it's he's she's".split())
_OWNERS = frozenset("my our your".split())


def answer_spans(sentence: str, max_words: int = 7) -> list[str]:
    """Spans of a sentence that could answer a question, verbatim, most specific kinds first, without repeats."""
    found: dict[str, None] = {}  # a set that keeps its order

    def add(text: str) -> None:
        words = text.strip(' ,.;:"“”()').split(" ")
        while len(words) > 1 and words[-1].lower() in STOP_WORDS | {""}:
            words.pop()
            words[-1] = words[-1].rstrip(" ,")
        text = " ".join(words)
        if len(text) > 1 and len(text.split()) <= max_words and text not in found and text in sentence:
            found[text] = None

    for match in _DATE.finditer(sentence):
        add(match.group())
    for match in _NUMBER.finditer(sentence):
        add(_with_what_is_counted(sentence, match) or match.group())
    for match in _NUMERALS.finditer(sentence):
        add(_with_what_is_counted(sentence, match) or match.group())
    for match in _NAME.finditer(sentence):
        named = _name(match.group().split())
        if not _NUMERALS.fullmatch(named):
            add(named)
    for match in _QUOTE.finditer(sentence):
        add(match.group(1))
    for match in _PHRASE.finditer(sentence):
        words = list(dropwhile((STOP_WORDS | _OWNERS).__contains__, match.group(1).split()))
        if words and (words[0] in PAST_OF or base_form(words[0]) is not None):  # "carries a green lamp"
            words = list(dropwhile((STOP_WORDS | _OWNERS).__contains__, words[1:]))
        if words and not _NUMERALS.fullmatch(words[0]) and not words[0].endswith("ed") and (len(words) > 1 or len(words[0]) > 4):
            add(" ".join(words))
    return list(found)


def _name(words: list[str]) -> str:
    """A run of capitals without the pronouns and the adverbs at its ends: "Imre" of "Yesterday Imre and I"."""
    words = list(dropwhile(_is_no_name, words))
    return " ".join(reversed(list(dropwhile(_is_no_name, reversed(words)))))


def _is_no_name(word: str) -> bool:
    return word.lower().replace("’", "'") in STOP_WORDS | PERSONAL | OPENINGS


def question_words(span: str, sentence: str = "") -> list[str]:
    """Question words that fit an answer in its sentence, likely ones first."""
    before = sentence.partition(span)[0]
    if _TO_A_PLACE.search(before):
        return ["where"]
    if measured := measure_of(span, sentence):
        return [f"how {measured}"]
    if re.search(rf"\b(?:{MONTHS})\b", span) or re.fullmatch(_YEAR, span):
        return ["when", "in what year"]
    if re.match(r"[$£€]", span):
        return ["how much"]
    if counted := _COUNTED.fullmatch(span):
        noun = counted["what"].split()[-1]
        return [f"how many {counted['what']}", next((word for word, nouns in _COUNTED_BY.items() if noun in nouns), "how many")]
    if re.search(r"\d", span):
        return ["how many", "what"]
    if _NUMERALS.fullmatch(span):
        return ["when", "at what time"] if re.search(r"\b(?:at|by|until) $", before) else ["how many", "what"]
    if not span[:1].isupper():
        return ["where", "what"] if _IN_SOMETHING.search(before) else ["what", "how"]
    if PASSIVE_BY.search(before):
        return ["who", "by whom"]
    if sentence.startswith(span) and _OF_A_PERSON.search(sentence):
        return ["who", "which person"]
    if _NAMED.search(before):
        return ["what"]
    return ["where", "in which place"] if _AT_A_PLACE.search(before) else ["who", "where", "which", "what"]


def measure_of(span: str, sentence: str) -> str:
    """Return what a number says of something: "tall" of "43 metres" in "It is 43 metres tall"; "" of others."""
    found = _MEASURE.match(sentence.partition(span)[2]) if re.match(rf"\d|{_NUMERALS.pattern}", span) else None
    return "" if found is None else found[1]


def _with_what_is_counted(sentence: str, number: re.Match[str]) -> str | None:
    """A number that is no year, with the words behind it up to the first plural of three; None where there is none."""
    digits = re.match(r"\d[\d,.]*", number.group())
    end = number.start() + digits.end() if digits else number.end()
    following = re.match(r"(?: [a-z-]+){0,3}", sentence[end:])[0].split()  # type: ignore[index]
    following = following[: next((k for k, word in enumerate(following) if word in STOP_WORDS), len(following))]
    plural = next((k + 1 for k, word in enumerate(following) if re.fullmatch(_PLURAL, word)), 0)
    is_year = re.fullmatch(_YEAR, sentence[number.start() : end])
    return " ".join([sentence[number.start() : end], *following[:plural]]) if plural and not is_year else None
