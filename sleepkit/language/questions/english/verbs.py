"""Verbs of English sentences, as far as questions need them: which word is the verb, and what its other forms are.

    main_verb(["The", "mill", "was", "sold"], [])   -> 2
    base_form("carries")                            -> ("does", "carry")
    own_clause("I am Imre and I live in Orta.", "Orta")   -> "I live in Orta."

By endings and short lists.  Left out: parsing.
"""

from __future__ import annotations

import re

from sleepkit.language.questions.words import STOP_WORDS

__all__ = [
    "AUXILIARIES",
    "COORDINATORS",
    "DROPPED",
    "HAVING",
    "MONTHS",
    "OPENINGS",
    "PAST_OF",
    "PREPOSITIONS",
    "RELATIVE",
    "base_form",
    "has_verb",
    "last_predicate",
    "main_verb",
    "own_clause",
    "past_of",
    "without_by",
    "without_next_predicate",
    "without_opening",
]

MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
AUXILIARIES = frozenset("is was are were has had have can could will would did does must may should".split())
HAVING = {"has": "does", "have": "do", "had": "did"}
DROPPED = frozenset("in on at by to from of for with about the a an its their his her since until around during as into".split())
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
RELATIVE = frozenset("that which who whom whose where when while because although though if whether than".split())
COORDINATORS = frozenset("and but or nor so yet".split())
_BEFORE_NOUNS = frozenset("a an the of and or with in by for to from on at".split())
PAST_OF = dict(  # of participles that are not also pasts
    pair.split(":")
    for pair in (
        "written:wrote taken:took given:gave drawn:drew chosen:chose broken:broke driven:drove known:knew begun:began grown:grew "
        "sung:sang seen:saw worn:wore thrown:threw hidden:hid frozen:froze flown:flew ridden:rode run:ran woven:wove "
        "stolen:stole shown:showed sewn:sewed sawn:sawed eaten:ate beaten:beat forgotten:forgot done:did"
    ).split()
)
_UNCHANGED = frozenset("cast cut set put shut hit hurt let read spread shed split".split())  # pasts and participles alike
_LONGEST_VERB = 30
PREPOSITIONS = frozenset("in on at since during after before by from until within under over through following".split())
_KEEPS_STEM = frozenset("develop envelop gallop visit limit edit exhibit inhabit prohibit credit benefit deposit permit".split())
_TIMES = frozenset("yesterday today tomorrow tonight now then actually also finally sadly luckily recently lately".split())
OPENINGS = _TIMES | frozenset("well oh yes no ah hi hello hey ok okay so anyway right please thanks sorry".split())
_SUBJECTS = frozenset("I i we We you You they They".split())  # whose verbs have no ending in the present
_ADVERBS = frozenset("also always never still just only usually often now really sometimes mostly both all already once".split())
_OWN_CLAUSE = re.compile(r"(?:[,;]\s+|\s+)(?:and|but|so)\s+(?=(?:I|we|my|our)\b)|[,;]\s+(?=(?:I|we|my|our)\b)")


def without_opening(words: list[str]) -> list[str]:
    """The clause without "And", "Actually", "Oh,", without "By the early 20th century," and without "In 1902"."""
    while len(words) > 1 and words[0].lower().rstrip(",") in (OPENINGS if words[0].endswith(",") else _TIMES):
        words = words[1:]
    if words and words[0].lower() in COORDINATORS:
        words = words[1:]
    if words and words[0].lower() in PREPOSITIONS:
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
        if words[i - 1].lower() in RELATIVE | COORDINATORS:
            if finite is None and words[i - 1].lower() in RELATIVE:
                return None  # the first verb is that of a relative clause: the rules do not see past it
            continue
        if token in AUXILIARIES or _is_am(words, i):
            return i if finite is None or _is_participle(words, finite) else finite
        if finite is None and (base_form(token) is not None or _is_present(words, i)):
            finite = i
    later = (token for token, before in zip(rest, ["", *rest], strict=False) if before not in COORDINATORS)
    if finite is not None and _is_participle(words, finite) and any(token in AUXILIARIES for token in later):
        return None  # "the rocks collected from [span] are old": the verb comes after the answer
    return finite


def without_by(words: list[str]) -> list[str]:
    """Return what stands before "by" in "A crack was mended by the smith"; as a last word it was dropped already."""
    by = next((k for k in range(len(words) - 1, 0, -1) if words[k] == "by"), len(words))
    return words[:by]


def past_of(participle: str) -> str | None:
    """Return the past of a participle: "wrote" of "written"; None for other words."""
    past = PAST_OF.get(participle, participle)
    is_past = past != participle or past in _UNCHANGED or base_form(participle) is not None
    return past if is_past and participle not in _THIRD_PERSON else None


def without_next_predicate(rest: list[str]) -> list[str]:
    """Return what belongs to the verb before "in 1958 and carries twelve cars", "in 1958"; nothing of "and two windows"."""
    if rest[:1] == ["and"]:
        return []
    verbs = (k for k, word in enumerate(rest[1:]) if rest[k] == "and" and (word in AUXILIARIES or base_form(word) is not None))
    return rest[: next(verbs, len(rest))]


def last_predicate(words: list[str], place: int) -> list[str]:
    """Return the subject with its last verb, at the place of the first: "The ferry carries" of "The ferry was built and carries".

    "The house has" is that of "The house has three rooms and".
    """
    if words[-1] == "and":
        return words[: place + 1]
    for i in range(len(words) - 1, place + 1, -1):
        if words[i - 1] == "and" and (words[i] in AUXILIARIES or base_form(words[i]) is not None):
            stands_alone = words[i] in AUXILIARIES | _PAST_ONLY | _THIRD_PERSON.keys() or words[place] not in AUXILIARIES
            return [*words[:place], *words[i:]] if stands_alone else [*words[: place + 1], *words[i:]]
    return words


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
    return words[i] in ("called", "named") or following in DROPPED | PREPOSITIONS | {"to"}


def base_form(verb: str) -> tuple[str, str] | None:
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
        if word in AUXILIARIES or (not regular and base_form(word) is not None):
            return True
    return False
