"""Questions from a sentence, by rule: the many ways in which somebody may ask for what it says.

For every span of a sentence that could be an answer (numbers, dates, names, quotations, short phrases)::

    statement   the clause that holds the span, at least ``min_words`` long: the reply
    cloze       the clause with the span replaced by a question word     "Pierre Curie was born in which city?"
    wh          the same in ordinary word order, by moving the verb      "In which city was Pierre Curie born?"
    keywords    a question word and a few content words of the sentence  "Where Pierre Curie born 1859?"
    about       content words alone                                      "Tell me about Pierre Curie 1859"
    whereabouts where somebody is who went somewhere                     "Where is Pierre Curie?" of "Pierre Curie went to Paris."
    own_clause  of what somebody says of themselves the clause of a span "I live in Orta" of "I am Imre and I live in Orta"

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
from itertools import dropwhile

from sleepkit.language.questions.words import STOP_WORDS, content_words

__all__ = [
    "ABOUT",
    "STOP_WORDS",
    "about",
    "answer_spans",
    "clauses_around",
    "cloze",
    "content_words",
    "has_verb",
    "keywords",
    "own_clause",
    "question_words",
    "statement",
    "wh_question",
    "whereabouts",
]

MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
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
_CLAUSE = re.compile(r"(?<=[,;:])\s+|(?<!\s)\s+(?=(?:and|but|which|who|when|while|where|because)\s)")
_AUXILIARIES = frozenset("is was are were has had have can could will would did does must may should".split())
_HAVING = {"has": "does", "have": "do", "had": "did"}
_DROPPED = frozenset("in on at by to from of for with about the a an its their his her since until around during as into".split())
_IRREGULAR = dict(
    pair.split(":")
    for pair in (
        "began:begin wrote:write made:make led:lead held:hold gave:give left:leave took:take became:become ran:run built:build "
        "won:win lost:lose sold:sell bought:buy brought:bring kept:keep found:find met:meet spent:spend stood:stand told:tell "
        "taught:teach grew:grow knew:know drew:draw rose:rise fell:fall broke:break spoke:speak chose:choose drove:drive "
        "wore:wear saw:see came:come went:go sent:send paid:pay said:say felt:feel fought:fight sought:seek got:get lay:lie "
        "laid:lay rode:ride sang:sing sank:sink swam:swim threw:throw flew:fly froze:freeze hid:hide shot:shoot "
        "slept:sleep heard:hear thought:think ate:eat drank:drink caught:catch forgot:forget woke:wake lit:light dug:dig "
        "fed:feed stole:steal meant:mean understood:understand"
    ).split()
)
_THIRD_PERSON = dict(
    pair.split(":")
    for pair in (
        "stands:stand carries:carry receives:receive contains:contain lies:lie holds:hold makes:make gives:give takes:take "
        "uses:use runs:run lives:live grows:grow keeps:keep wears:wear shows:show opens:open begins:begin ends:end crosses:cross "
        "measures:measure weighs:weigh covers:cover feeds:feed belongs:belong requires:require includes:include plays:play "
        "serves:serve works:work needs:need costs:cost sits:sit leads:lead shelters:shelter means:mean allows:allow marks:mark "
        "leaves:leave departs:depart arrives:arrive returns:return comes:come goes:go closes:close starts:start stops:stop "
        "sells:sell buys:buy teaches:teach meets:meet falls:fall rises:rise flows:flow produces:produce provides:provide "
        "offers:offer sleeps:sleep eats:eat drinks:drink likes:like loves:love wants:want knows:know speaks:speak reads:read "
        "writes:write sings:sing owns:own drives:drive rides:ride swims:swim flies:fly bakes:bake cooks:cook studies:study "
        "collects:collect repairs:repair hangs:hang lasts:last joins:join follows:follow consists:consist becomes:become "
        "brings:bring builds:build spans:span connects:connect prefers:prefer hates:hate pays:pay spends:spend"
    ).split()
)
_PAST_ONLY = frozenset(  # no participles
    "began wrote gave took became ran grew knew drew rose fell broke spoke chose drove wore saw came went rode sang sank swam "
    "threw flew froze".split()
)
_RELATIVE = frozenset("that which who whom whose where when while because although though if whether than".split())
_COORDINATORS = frozenset("and but or nor so yet".split())
_NO_SUBJECT = _RELATIVE | _COORDINATORS | frozenset("as such with by for to from including rather once also both".split())
_BEFORE_NOUNS = frozenset("a an the of and or with in by for to from on at".split())
_PAST_OF = dict(  # of participles that are not also pasts
    pair.split(":")
    for pair in (
        "written:wrote taken:took given:gave drawn:drew chosen:chose broken:broke driven:drove known:knew begun:began grown:grew "
        "sung:sang seen:saw worn:wore thrown:threw hidden:hid frozen:froze flown:flew ridden:rode run:ran woven:wove "
        "stolen:stole shown:showed sewn:sewed sawn:sawed eaten:ate beaten:beat forgotten:forgot done:did"
    ).split()
)
_UNCHANGED = frozenset("cast cut set put shut hit hurt let read spread shed split".split())  # pasts and participles alike
_LONGEST_VERB = 30
_PREPOSITIONS = frozenset("in on at since during after before by from until within under over through following".split())
_KEEPS_STEM = frozenset("develop envelop gallop visit limit edit exhibit inhabit prohibit credit benefit deposit permit".split())
_MOVED = r"(?:went|moved|travell?ed|journeyed|walked|ran|drove|flew|sailed|rode|returned|hurried|fled)(?: back)?"
_PASSIVE_BY = re.compile(
    r"\b(?:was|were|is|are|been|being) [^,;:]{0,99}\bby (?:(?:a|an|the|its|his|her|their) )?(?:[a-z-]+ ){0,2}$"
)
_IN_SOMETHING = re.compile(r"\b(?:in|on|at|near|under|behind|beside|above|below|inside) (?:the|a|an) $")
_AT_A_PLACE = re.compile(r"\b(?:in|at|near) (?:the )?$")
_OF_A_PERSON = re.compile(r"\b(?:he|she|his|her|who|born|died|married|aged)\b")
_MEASURE = re.compile(r" (tall|high|long|deep|wide|thick|old)\b")
_NAMED = re.compile(r"\b(?:called|named) (?:the )?$")
_TO_A_PLACE = re.compile(rf"\b{_MOVED} (?:in)?to (?:the )?$")
_WHEREABOUTS = re.compile(
    rf"(?P<who>(?:The |[A-Z])[\w’'-]*(?: [A-Z][\w’'-]*){{0,2}}) {_MOVED} (?:in)?to (?P<place>the [\w’'-]+|[A-Z][\w’'-]*)[.,!]"
)
_PRONOUNS = frozenset("i you he she it we they this that there who both all many some most others nobody everybody".split())
_PERSONAL = _PRONOUNS | frozenset("my your our mine i'm i've i'd i'll we're we've we'd we'll you're it's he's she's".split())
_OWNERS = frozenset("my our your".split())
_SUBJECTS = frozenset("I i we We you You they They".split())  # whose verbs have no ending in the present
_ADVERBS = frozenset("also always never still just only usually often now really sometimes mostly both all already once".split())
_TIMES = frozenset("yesterday today tomorrow tonight now then actually also finally sadly luckily recently lately".split())
_OPENINGS = _TIMES | frozenset("well oh yes no ah hi hello hey ok okay so anyway right please thanks sorry".split())
_OWN_CLAUSE = re.compile(r"(?:[,;]\s+|\s+)(?:and|but|so)\s+(?=(?:I|we|my|our)\b)|[,;]\s+(?=(?:I|we|my|our)\b)")
ABOUT = ("Tell me about {}.", "What do you know about {}?", "What about {}?")


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
        if words and (words[0] in _PAST_OF or _base_form(words[0]) is not None):  # "carries a green lamp"
            words = list(dropwhile((STOP_WORDS | _OWNERS).__contains__, words[1:]))
        if words and not _NUMERALS.fullmatch(words[0]) and not words[0].endswith("ed") and (len(words) > 1 or len(words[0]) > 4):
            add(" ".join(words))
    return list(found)


def _name(words: list[str]) -> str:
    """A run of capitals without the pronouns and the adverbs at its ends: "Imre" of "Yesterday Imre and I"."""
    words = list(dropwhile(_is_no_name, words))
    return " ".join(reversed(list(dropwhile(_is_no_name, reversed(words)))))


def _is_no_name(word: str) -> bool:
    return word.lower().replace("’", "'") in STOP_WORDS | _PERSONAL | _OPENINGS


def question_words(span: str, sentence: str = "") -> list[str]:
    """Question words that fit an answer in its sentence, likely ones first."""
    before = sentence.partition(span)[0]
    if _TO_A_PLACE.search(before):
        return ["where"]
    if measured := _measured(span, sentence):
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
    if _PASSIVE_BY.search(before):
        return ["who", "by whom"]
    if sentence.startswith(span) and _OF_A_PERSON.search(sentence):
        return ["who", "which person"]
    if _NAMED.search(before):
        return ["what"]
    return ["where", "in which place"] if _AT_A_PLACE.search(before) else ["who", "where", "which", "what"]


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
    if measured := _measured(span, text):
        after = after.removeprefix(f" {measured}")
    words, rest_of = before.split(), after.split(",")[0].split()
    while words and words[-1].lower() in _DROPPED:
        words = words[:-1]
    word = rng.choice(question_words(span, text))
    if not words and before:  # a leading "In 1902 ...": the subject follows
        if before.partition(" ")[0].lower() not in _PREPOSITIONS:
            return None
        words, rest_of = after.strip(" ,").split(), []
    elif not words:  # the span is the subject, if a verb follows
        following = rest_of[0].lower() if rest_of else ""
        present = r"[a-z]{3,}" if word.startswith("how many") and following not in STOP_WORDS else r"[a-z]{3,}[^s]s"
        is_verb = following in _AUXILIARIES or _base_form(following) is not None or re.fullmatch(present, following)
        return _capital(f"{word}{after}".strip(" ,")) + "?" if is_verb else None
    words = without_opening(words)
    place = main_verb(words, rest_of)
    if place is None:
        return None
    words, rest_of = _last_predicate(words, place), _without_next_predicate(rest_of)
    if _PASSIVE_BY.search(before):
        words = _without_by(words)
        if word == "who" and (past := _past_of(words[place + 1])):
            return _question(word, past, words[:place], [*words[place + 2 :], *rest_of])
    subject, verb, rest = words[:place], words[place], [*words[place + 1 :], *rest_of]
    if verb in _HAVING and len(words) == place + 1:
        return _question(word, _HAVING[verb], subject, ["have", *rest_of])
    if verb in _AUXILIARIES or verb == "am":
        return _question(word, verb, subject, rest)
    auxiliary, base = _base_form(verb) or ("do", verb)
    return _question(word, auxiliary, subject, [base, *rest])


def without_opening(words: list[str]) -> list[str]:
    """The clause without "And", "Actually", "Oh,", without "By the early 20th century," and without "In 1902"."""
    while len(words) > 1 and words[0].lower().rstrip(",") in (_OPENINGS if words[0].endswith(",") else _TIMES):
        words = words[1:]
    if words and words[0].lower() in _COORDINATORS:
        words = words[1:]
    if words and words[0].lower() in _PREPOSITIONS:
        comma = next((k for k, token in enumerate(words) if token.endswith(",")), None)
        if comma is not None:
            return words[comma + 1 :]
        speaker = next((k for k, token in enumerate(words[1:4], 1) if token in _SUBJECTS), None)
        if speaker is not None:  # "On Saturday I went"
            return words[speaker:]
        dated = next((k for k, token in enumerate(words[1:], 1) if not re.search(rf"\d|^(?:{MONTHS})$", token)), len(words))
        return words[dated:] if dated > 1 else words
    return words


def main_verb(words: list[str], rest: list[str]) -> int | None:
    """Place of the finite verb that is to move: not inside a relative clause, and not a participle behind its noun."""
    finite = None
    for i, token in enumerate(words):
        if i == 0 or "," in words[i - 1] or token != token.lower():
            continue
        if words[i - 1].lower() in _RELATIVE | _COORDINATORS:
            if finite is None and words[i - 1].lower() in _RELATIVE:
                return None  # the first verb is that of a relative clause: the rules do not see past it
            continue
        if token in _AUXILIARIES or _is_am(words, i):
            return i if finite is None or _is_participle(words, finite) else finite
        if finite is None and (_base_form(token) is not None or _is_present(words, i)):
            finite = i
    later = (token for token, before in zip(rest, ["", *rest], strict=False) if before not in _COORDINATORS)
    if finite is not None and _is_participle(words, finite) and any(token in _AUXILIARIES for token in later):
        return None  # "the rocks collected from [span] are old": the verb comes after the answer
    return finite


def _measured(span: str, sentence: str) -> str:
    """Return what a number says of something: "tall" of "43 metres" in "It is 43 metres tall"; "" of others."""
    found = _MEASURE.match(sentence.partition(span)[2]) if re.match(rf"\d|{_NUMERALS.pattern}", span) else None
    return "" if found is None else found[1]


def _without_by(words: list[str]) -> list[str]:
    """Of "A crack was mended by the smith" what stands before "by"; as a last word it was dropped already."""
    by = next((k for k in range(len(words) - 1, 0, -1) if words[k] == "by"), len(words))
    return words[:by]


def _past_of(participle: str) -> str | None:
    """Return the past of a participle: "wrote" of "written"; None for other words."""
    past = _PAST_OF.get(participle, participle)
    is_past = past != participle or past in _UNCHANGED or _base_form(participle) is not None
    return past if is_past and participle not in _THIRD_PERSON else None


def _without_next_predicate(rest: list[str]) -> list[str]:
    """Of "in 1958 and carries twelve cars" what belongs to the verb before it, "in 1958"; of "and two windows" nothing."""
    if rest[:1] == ["and"]:
        return []
    verbs = (k for k, word in enumerate(rest[1:]) if rest[k] == "and" and (word in _AUXILIARIES or _base_form(word) is not None))
    return rest[: next(verbs, len(rest))]


def _last_predicate(words: list[str], place: int) -> list[str]:
    """Of "The ferry was built in 1958 and carries" what asks for the last verb, "The ferry carries", at the place of the first.

    Of "The house has three rooms and" it is "The house has".
    """
    if words[-1] == "and":
        return words[: place + 1]
    for i in range(len(words) - 1, place + 1, -1):
        if words[i - 1] == "and" and (words[i] in _AUXILIARIES or _base_form(words[i]) is not None):
            stands_alone = words[i] in _AUXILIARIES | _PAST_ONLY | _THIRD_PERSON.keys() or words[place] not in _AUXILIARIES
            return [*words[:place], *words[i:]] if stands_alone else [*words[: place + 1], *words[i:]]
    return words


def _with_what_is_counted(sentence: str, number: re.Match[str]) -> str | None:
    """A number that is no year, with the words behind it up to the first plural of three; None where there is none."""
    digits = re.match(r"\d[\d,.]*", number.group())
    end = number.start() + digits.end() if digits else number.end()
    following = re.match(r"(?: [a-z-]+){0,3}", sentence[end:])[0].split()  # type: ignore[index]
    following = following[: next((k for k, word in enumerate(following) if word in STOP_WORDS), len(following))]
    plural = next((k + 1 for k, word in enumerate(following) if re.fullmatch(_PLURAL, word)), 0)
    is_year = re.fullmatch(_YEAR, sentence[number.start() : end])
    return " ".join([sentence[number.start() : end], *following[:plural]]) if plural and not is_year else None


def _is_am(words: list[str], i: int) -> bool:
    """Whether a word is the verb of "I am", and not the hour of "9 am"."""
    return words[i] == "am" and words[i - 1] in ("I", "i")


def _is_present(words: list[str], i: int) -> bool:
    """Whether a word stands where "I" and "we" have their verb, which has no ending in the present."""
    before = i - 2 if words[i - 1] in _ADVERBS else i - 1
    return before >= 0 and words[before] in _SUBJECTS and words[i].isalpha() and words[i] not in _ADVERBS | STOP_WORDS


def own_clause(text: str, span: str) -> str:
    """The clause that holds ``span`` of a text in which somebody says "I" or "we" in several, as each can be understood alone."""
    cuts = [(match.start(), match.end()) for match in _OWN_CLAUSE.finditer(text)]
    ends = [*(start for start, _ in cuts), len(text)]
    clauses = [text[start:end] for start, end in zip([0, *(end for _, end in cuts)], ends, strict=True)]
    if len(clauses) < 2 or any(main_verb(clause.split(), []) is None for clause in clauses):
        return text
    return next((clause for clause in clauses if span in clause), text)


def _is_participle(words: list[str], i: int) -> bool:
    """True for "collected from" and the like, which may stand behind a noun."""
    following = words[i + 1].lower() if i + 1 < len(words) else "by"
    return words[i] in ("called", "named") or following in _DROPPED | _PREPOSITIONS | {"to"}


def _question(word: str, verb: str, subject: list[str], rest: list[str]) -> str | None:
    if not subject or len(subject) > 9 or subject[0].lower().strip(",") in _NO_SUBJECT or not content_words(" ".join(subject)):
        return None
    small = subject[0].lower()
    first = small if small != "i" and small in STOP_WORDS | _DROPPED | _PERSONAL else subject[0]
    return _capital(" ".join([word, verb, first, *subject[1:], *rest]).strip(" ,;:")) + "?"


def _base_form(verb: str) -> tuple[str, str] | None:
    """``(did | does, base form)`` of a past or third-person verb, None for other words."""
    if len(verb) > _LONGEST_VERB:
        return None
    if verb in _IRREGULAR:
        return "did", _IRREGULAR[verb]
    if re.fullmatch(r"[a-z]{2,}ed", verb):
        stem = verb[:-2]
        if re.search(r"([bdgmnprt])\1$|[aeiou].*ell$", stem):
            return "did", stem[:-1]
        if stem.endswith("i"):
            return "did", stem[:-1] + "y"
        if stem in _KEEPS_STEM:
            return "did", stem
        return "did", verb[:-1] if re.search(
            r"([^aeiou][aiou][^aeiouwxyn]|[aeiou][scvgz]|[uv]|[bcdgktpz]l|[rn][gcsv])$", stem
        ) else stem
    if verb in _THIRD_PERSON:
        return "does", _THIRD_PERSON[verb]
    return None


def has_verb(text: str) -> bool:
    """Whether the rules know a finite verb in a text: an auxiliary, an irregular one, or one in -ed that is not before a noun."""
    words = [word.strip(",.;:!?\"'“”’()*_") for word in text.split()]
    for before, word in zip(["a", *words], words, strict=False):
        regular = word.endswith("ed") and before.lower() in _BEFORE_NOUNS
        if word in _AUXILIARIES or (not regular and _base_form(word) is not None):
            return True
    return False


def keywords(sentence: str, span: str, rng: random.Random, title: str = "") -> str:
    """A question word with three to six content words of the sentence, sometimes with the title, never the answer."""
    words = content_words(sentence.replace(span, " ", 1))
    kept = sorted(rng.sample(range(len(words)), min(len(words), rng.randint(3, 6))))
    topic = [title] if title and rng.random() < 0.3 and span not in title else []
    return _capital(" ".join([rng.choice(question_words(span, sentence)), *topic, *(words[i] for i in kept)])) + "?"


def whereabouts(sentence: str) -> tuple[str, list[str]] | None:
    """A place that somebody named went to, and questions for it, or None.  Who went somewhere is there, until newer is said."""
    found = _WHEREABOUTS.match(sentence)
    if found is None or not _PERSONAL.isdisjoint(found["who"].lower().split()):
        return None
    who = found["who"].replace("The ", "the ", 1)
    return found["place"].removeprefix("the "), [f"Where is {who}?", f"Where is {who} now?"]


def about(sentence: str, rng: random.Random) -> str:
    """A request for the sentence by two to four of its content words."""
    words = content_words(sentence)
    return rng.choice(ABOUT).format(" ".join(rng.sample(words, min(len(words), rng.randint(2, 4)))))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
