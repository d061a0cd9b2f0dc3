"""Questions that need no grammar, for languages other than English: gaps, content words and quotations.

    gap        the clause with an answer left out             "___ wurde 1874 gebaut."
    keywords   a few content words of the sentence            "Leuchtturm gebaut?"
    about      content words alone, asked for in the language "Was weißt du über Leuchtturm 1874?"
    recite     the sentence from a place on                   "Fahre fort: Der Leuchtturm"

Answers are dates and numbers with their counters, what stands in quotation marks, names, Latin words and katakana in scripts
without spaces, and where a sentence has few of these, its longest content words: each sentence is asked about.  Replies are
quoted, letter for letter.  No word of a language is put into an item of another: where we have no phrase, the words stand alone.

Pure functions of text and a seeded ``random.Random``.  Ours.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from sleepkit.language.questions.english.rules import ABOUT, clauses_around
from sleepkit.language.questions.languages import ENGLISH, STOP_WORDS
from sleepkit.language.questions.words import HAN_FUNCTION, content_words
from sleepkit.reporting.scores import contained
from sleepkit.reporting.scripts import HAN, MARKS, UNSPACED, apart, is_unspaced

__all__ = [
    "GAP",
    "continue_from",
    "gap_questions",
    "gap_spans",
    "question_mark",
    "quoted",
    "tell_about",
    "tell_about_title",
    "with_gap",
]

GAP = "___"
_CONTINUE = {
    ENGLISH: "Continue: {}", "de": "Fahre fort: {}", "es": "Continúa: {}", "fr": "Poursuis : {}", "it": "Continua: {}",
    "pt": "Prossiga: {}", "nl": "Ga verder: {}", "pl": "Kontynuuj: {}", "tr": "Devam et: {}", "vi": "Viết tiếp: {}",
    "ru": "Продолжи: {}", "uk": "Продовж: {}", "ar": "أكمل: {}", "fa": "ادامه بده: {}", "hi": "आगे लिखो: {}", "zh": "续写：{}",
    "ja": "続きを書いて：{}", "ko": "이어서 써 줘: {}", "th": "เขียนต่อ: {}",
}  # fmt: skip
_ABOUT = {
    ENGLISH: ABOUT,
    "de": ("Was weißt du über {}?", "Erzähle etwas über {}."),
    "es": ("¿Qué sabes de {}?", "Cuéntame algo de {}."),
    "fr": ("Que sais-tu de {} ?", "Parle-moi de {}."),
    "it": ("Che cosa sai di {}?", "Parlami di {}."),
    "pt": ("O que você sabe sobre {}?", "Fale sobre {}."),
    "nl": ("Wat weet je over {}?", "Vertel iets over {}."),
    "pl": ("Co wiesz o tym: {}?",),
    "tr": ("{} hakkında ne biliyorsun?",),
    "vi": ("Bạn biết gì về {}?",),
    "ru": ("Что ты знаешь об этом: {}?", "Расскажи об этом: {}."),
    "uk": ("Що ти знаєш про це: {}?",),
    "ar": ("ماذا تعرف عن {}؟",),
    "fa": ("دربارهٔ {} چه می‌دانی؟",),
    "hi": ("{} के बारे में तुम क्या जानते हो?",),
    "zh": ("关于{}，你知道什么？", "请说说{}。"),
    "ja": ("{}について何を知っていますか？", "{}について教えてください。"),
    "ko": ("다음에 대해 무엇을 알고 있니: {}?", "다음에 대해 말해 줘: {}."),
    "th": ("คุณรู้อะไรเกี่ยวกับ {}",),
}
_QUESTION_MARK = {"zh": "？", "ja": "？", "ar": "؟", "fa": "؟", "ur": "؟", "el": ";", "th": "", "lo": ""}
_MOST_WORDS, _MOST_CHARACTERS = 24, 60  # of a sentence that is quoted as a whole
_ENOUGH_WORDS, _ENOUGH_CHARACTERS = 9, 20  # of clauses
_LONGEST = 60  # characters of an answer
_FEW = 2  # answers of a sentence: with fewer, its longest words are some too

_COUNTERS = (
    "年月日号號时時分秒岁歲歳人名个個件本冊枚台隻只条條米里吨元円歩倍回次届度代万萬亿億千百世紀纪"
    "년월일명개살원시분초층호회번위대세"
)
_NUMBER = re.compile(
    r"(?<![A-Za-z])(?<![A-Za-z]-)(?:\d+[年년]\s?\d+[月월](?:\s?\d+[日号일])?"
    r"|\d{1,2}\.?\s(?:de\s)?[^\W\d_]{3,12}\.?\s(?:de\s)?\d{3,4}(?!\d)"
    rf"|\d(?:[\d.,:/–٫٬-]*\d)?(?:[{_COUNTERS}]{{1,3}}|\s?[%٪％€$£])?)"
)
_QUOTED = re.compile(r"[“„«「『《‹\"]\s?([^“”„«»「」『』《》‹›\"]{2,60}?)\s?[”“»」』》›\"]")
_RUN = re.compile(r"[A-Za-zÀ-ɏ][A-Za-zÀ-ɏ0-9.'’&-]*(?: [A-Za-zÀ-ɏ0-9][A-Za-zÀ-ɏ0-9.'’&-]*)*|[\u30a1-\u30fa\u30fc-\u30ff・]{2,}")
_NAMED = f"(?![{HAN_FUNCTION}])[{HAN}]"
_DOTTED = re.compile(rf"(?<!{_NAMED})(?:{_NAMED}){{1,4}}(?:·(?:{_NAMED}){{1,4}})+(?!{_NAMED})")  # 艾达·布鲁克
_PARTICLE = re.compile("(?<=[가-힣]{2})(?:에서는|에서|에게|으로|부터|까지|이었다|였다|이다|은|는|이|가|을|를|에|의|와|과|도|로)$")
_WORD = re.compile(rf"[^\W\d_][\w{MARKS}’'-]*")
_OF = frozenset("von van der den de del della di da do dos das du la le les el y und et e zu of af av den".split())
_LEFT_OUT = re.compile(GAP + "[가-힣]*")  # with its particle
_CLAUSE = re.compile(r"(?<=[,;:،؛、，；：])\s*")


def gap_spans(sentence: str, language: str) -> list[str]:
    """Parts of a sentence that could answer a question, verbatim, most specific kinds first, without repeats."""
    spans = [match.group() for match in _NUMBER.finditer(sentence)]
    spans += [match.group(1) for match in _QUOTED.finditer(sentence)]
    if language in ("zh", "ja") or is_unspaced(sentence):
        spans += [match.group() for pattern in (_RUN, _DOTTED) for match in pattern.finditer(sentence)]
    else:
        spans += _names(sentence, language)
    found: list[str] = []
    for span in (span.strip(" .,;:'’-。！？؟") for span in spans):
        if 0 < len(span) <= _LONGEST and not any(span in other for other in found):
            found.append(span)
    longest = iter(sorted(content_words(sentence, language), key=lambda word: -len(word)))
    while len(found) < _FEW and (word := next(longest, "")):
        word = _PARTICLE.sub("", word)
        found += [] if any(word in span or span in word for span in found) else [word]
    return [span for span in found if with_gap(sentence, span).strip(f" {GAP}.。!！?？।۔؟")]


def _names(sentence: str, language: str) -> Iterator[str]:
    """Words with a capital that follow each other, with "von" and the like between them."""
    stop = STOP_WORDS.get(language, frozenset())
    run: list[re.Match[str]] = []
    for word in (*_WORD.finditer(sentence), None):
        close = word is not None and (not run or sentence[run[-1].end() : word.start()] in (" ", ". "))
        if word is not None and close and (word[0][0].isupper() and word[0].lower() not in stop or (run and word[0] in _OF)):
            run.append(word)
            continue
        while run and not run[-1][0][0].isupper():
            run.pop()
        if run and run[-1].end() - run[0].start() > 1:
            yield sentence[run[0].start() : run[-1].end()]
        run = [word] if word is not None and word[0][0].isupper() and word[0].lower() not in stop else []


def with_gap(text: str, span: str) -> str:
    """The text with a gap at each place of the span, where it is not a part of a longer word or number."""
    return re.sub(_edge(span[:1], "<!") + re.escape(span) + _edge(span[-1:], "!"), GAP, text)


def _edge(character: str, look: str) -> str:
    """A look to the side: no more of the same word or number, in scripts whose words stand apart."""
    if character.isdigit():
        return rf"(?{look}\d)"
    return rf"(?{look}[^\W\d_{UNSPACED}])" if character.isalpha() and apart(character) == character else ""


def gap_questions(
    sentence: str, language: str, styles: Sequence[str], count: int, rng: random.Random
) -> Iterator[tuple[str, str, str, str]]:
    """Make ``(prompt, reply, style, span)`` of a sentence: of each span one gap, for "wh" and "cloze", and keyword questions."""
    for span in gap_spans(sentence, language):
        reply = quoted(sentence, span, rng)
        asked = with_gap(reply, span)
        if not contained(reply, span, language) or contained(asked, span, language):
            continue
        if "wh" in styles or "cloze" in styles:
            yield asked, reply, "cloze", span
        if "keywords" in styles:
            for _ in range((count + 1) // 2):
                if words := _keywords(sentence, span, language, rng):
                    yield words, reply, "keywords", span
    if "about" in styles and (prompt := tell_about(sentence, language, rng)):
        yield prompt, sentence, "about", ""


def quoted(sentence: str, span: str, rng: random.Random) -> str:
    """The sentence, or of a long one the clauses around ``span``."""
    unspaced = is_unspaced(sentence)
    most, enough = (_MOST_CHARACTERS, _ENOUGH_CHARACTERS) if unspaced else (_MOST_WORDS, _ENOUGH_WORDS)
    if len(apart(sentence).split()) <= most:
        return sentence
    parts = [sentence[start:end] for start, end in _between(_CLAUSE.finditer(sentence), len(sentence))]
    return clauses_around(parts, span, rng, lambda text: len(apart(text).split()) >= enough, "").strip()


def _between(places: Iterator[re.Match[str]], length: int) -> Iterator[tuple[int, int]]:
    ends = [*(match.end() for match in places), length]
    return ((start, end) for start, end in zip([0, *ends], ends, strict=False) if end > start)


def _keywords(sentence: str, span: str, language: str, rng: random.Random) -> str:
    words = content_words(_LEFT_OUT.sub(" ", with_gap(sentence, span)), language)
    chosen = sorted(rng.sample(range(len(words)), min(len(words), rng.randint(3, 6))))
    asked = " ".join(words[k] for k in chosen)
    return asked + question_mark(language) if asked and not contained(asked, span, language) else ""


def question_mark(language: str) -> str:
    """What a question ends with in a language; "" where nothing marks it."""
    return _QUESTION_MARK.get(language, "?")


def tell_about(sentence: str, language: str, rng: random.Random) -> str:
    """A request for a sentence by two to four of its content words, in its language; "" where it has too few."""
    words = content_words(sentence, language)
    if len(words) < 3:
        return ""
    joint = "、" if language in ("zh", "ja") else " "
    phrases = _ABOUT.get(language, ("{}",))
    return rng.choice(phrases).format(joint.join(rng.sample(words, min(len(words), rng.randint(2, 4)))))


def tell_about_title(title: str, language: str) -> str:
    """A request for what a document says, in its language."""
    return _ABOUT.get(language, ("{}",))[0].format(title)


def continue_from(beginning: str, language: str) -> str:
    """A request to go on from the beginning of a text, in its language."""
    return _CONTINUE.get(language, "{} …").format(beginning.rstrip())
