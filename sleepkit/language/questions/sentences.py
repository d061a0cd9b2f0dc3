"""Split text into sentences by rules: enough for prompts and chunks, without a model or a download.

A sentence ends at ``.``, ``!``, ``?``, ``؟`` or an ellipsis (closing quotes and brackets included) before white space, unless

- the next word begins with a small letter;
- the stop belongs to a title (Dr.), to an abbreviation before a number (No. 5), to "e.g." and its like, or to the
  number of a list item ("2. Salt");
- the stop belongs to an initial, an acronym or a word such as "etc.", "Inc.", "a.m.", and the next word is not one that
  commonly starts a sentence ("the U.S. Army", but "in the U.S. | The army");
- in languages with ordinals such as "3.", it belongs to one, as before "März", and no stop word follows.

It also ends at a blank line, before and after a Markdown heading, before a list item or a turn of a transcript, and at stops that
need no white space: those of Chinese and Japanese, but not where a Japanese particle goes on after a quotation, the danda, and
those of Urdu, Armenian, Ethiopic, Burmese, Khmer and Tibetan.  Thai and Lao have no stops: there it ends at white space, once it
has some length.  A stop inside a number or a name (3.5, example.org) has no white space after it.  Each pattern begins where
the character before it could not: the work is linear in the length of the text.

Abbreviations are those of the language of the place (languages.py), told from some hundred characters around, so that a text may
be in several.

Ours, after the observations behind Punkt (Kiss & Strunk 2006, Computational Linguistics 32(4)): abbreviations, initials
and common sentence starters decide almost every stop.  Libraries were tried: sentencex 1.0 needs a compiled wheel and cuts
"M. Dupont", "1907 r. w Krakowie" and "am 2. Tag"; pysbd is not kept up; yasbd needs three more packages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sleepkit.language.questions.languages import ENGLISH, STOP_WORDS, UNKNOWN, language_of

__all__ = ["sentence_spans", "sentences"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Followed by a name, written with a capital: never the end of a sentence.
_TITLES = _words("Dr Mr Mrs Ms Mx Messrs Prof Rev Hon Fr St Mt Ft Gen Col Lt Sgt Capt Cpt Maj Cmdr Adm Sen Rep Gov Pres")
_CONNECTING = _words("e.g i.e v vs cf viz")
# Abbreviations before a number, words elsewhere.
_NUMBERED = _words("no nos fig figs eq eqs vol vols p pp ch sec art c ca approx")
# May end a sentence or not; acronyms (U.S., a.m.) and initials are recognised by their shape.
_EITHER = _words(
    "jr sr esq al inc ltd co corp bros llc etc jan feb mar apr jun jul aug sep sept oct nov dec "
    "mon tue wed thu fri sat sun ave blvd rd dept univ est ph.d"
)
_STARTERS = _words(
    "a after all although an and another as at because before but by despite during each every few finally first for "
    "from given he her here his how however i if in instead it its last later many meanwhile most my nevertheless next "
    "no nobody nor not now of on once one only or other our over since she so some soon still such that the their then "
    "there these they this those though three through to today two under unlike until we what when where whether which "
    "while who why with within without yet you your"
)

# In other languages, without the last stop.  Of Latin letters together, as short texts of two languages look alike.
_TITLES_ABROAD = {
    "": _words(
        "dr prof dipl ing hr fr frl geb gest verh sog bzw ca vgl hrsg evtl ggf inkl z.b d.h u.a str jh jhd "  # German
        "sr sra srta dra dña ud uds ee lic av avda p.ej m mm mme mmes mlle mlles drs pr st ste sto env cf boul "  # French
        "sig sigg sig.ra dott dott.ssa prof.ssa avv geom arch mons eng r séc p.ex "  # Italian, Portuguese
        "dhr mevr mw mr mrs ir bijv resp t.ex bl.a s.k kl jfr f.eks jf "  # Dutch, Swedish, Danish
        "mgr inż ks św ul np tzw tj m.in zm např tzv sv mudr ifj kb doç bkz örn yrd esim ks sdr ths pgs tp"
    ),
    "ru": _words("г-н г-жа др проф акад им ул пр просп пл д кв см ср напр т.е т.к тов св род ок"),
    "uk": _words("проф акад ім вул пл див напр св нар бл"),
    "el": _words("κ κα δρ καθ αγ π.χ"),
    "ar": _words("د أ م ص ج ت هـ"),
    "hi": _words("डॉ श्री श्रीमती प्रो पं कु"),
}
_NUMBERED_ABROAD = _NUMBERED | _words(
    "abb bd kap tel t chap éd núm pág págs pag pág cap nr čl str s blz jl jan feb mär mars avr juil août ene abr ago dic gen mag "
    "giu lug ott рис табл стр гл ст т том σελ εικ"
)
_YEARS = _words("г в р r w")  # "1907 г."
_ORDINALS = frozenset("de sv da cs hu tr fi pl".split())  # languages that write "3." for "third"
_PARTICLES = "とってはがをにのでもへや"  # that go on after a quotation
_UNSTOPPED = ("th", "lo")
_SHORTEST, _LONG = 20, 70  # characters of a sentence of a script without stops: before a word that begins one, before any
_AROUND = 500  # characters that tell the language of a place

_CLOSING = "\"'\u2018\u2019\u201c\u201d\u00ab\u00bb\u2039\u203a)\\]"
_CJK_CLOSING = "\"'\u2019\u201d\u300d\u300f\uff09)\u300b\u3009\u3011\u3015\\]"
_BREAK = re.compile(
    rf"""(?<![.!?\u061f\u2026])(?P<stop>[.!?\u061f\u2026]+[{_CLOSING}]*(?:[ \u00a0\u202f][\u00bb\u203a])?)\s+
      | (?P<wide>[\u3002\uff01\uff1f\uff61]+[{_CJK_CLOSING}]*)\s*   # Chinese and Japanese stops need none
      | [\u0964\u0965\u06d4\u1362\u1367\u0589\u104b\u17d4\u17d5\u0f0d\u0f0e]+[{_CLOSING}]*(?:[ \u00a0\u202f][\u00bb\u203a])?\s*
      | (?<![ \t])[ \t]*\n(?:
            (?:[ \t]*\n)+                                      # blank lines; what follows keeps its indentation
          | (?=[ \t]*(?:[-*+\u2022]|\d{{1,9}}[.)])[ \t])         # before a list item
          | (?=\#{{1,6}}[ ])                                     # before a heading
          | (?=(?:System|User|Assistant|Tool):[ ])             # before a turn of a transcript
        )
    """,
    re.VERBOSE,
)
_HEADING = re.compile(r"^#{1,6} .*\n(?:[ \t]*\n)*", re.MULTILINE)
_ACRONYM = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_NEXT_WORD = re.compile(r"[^\w]{0,40}(\w{0,40})")  # bounded, as one stop may follow another for pages
_SPACE_IN_UNSTOPPED = re.compile(
    r"(?<=[^\s\u0e46])\s+(?=(?P<begins>เขา|เธอ|มัน|พวก|เมื่อ|ต่อมา|หลัง|แต่|และ|นอกจาก|ดังนั้น|การ|ความ|ผู้|ที่นี่"
    r"|ນາງ|ລາວ|ເຂົາ|ແຕ່|ແລະ|ເມື່ອ)?[\u0e01-\u0e2e\u0e40-\u0e44\u0e81-\u0eae\u0ec0-\u0ec4])"
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the white space around them; blank ones are left out."""
    stripped = (text[start:end].strip() for start, end in sentence_spans(text))
    return [sentence for sentence in stripped if sentence]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Spans ``[start, end)`` of the sentences with the white space after them: they tile the text exactly."""
    languages = _Languages(text)
    ends = {match.end() for match in _BREAK.finditer(text) if _ends_sentence(text, match, languages)}
    ends |= {match.end() for match in _HEADING.finditer(text)}
    ends |= set(_ends_without_stops(text, ends, languages))
    bounds = [0, *sorted(ends - {0, len(text)}), len(text)]
    return [(start, end) for start, end in zip(bounds, bounds[1:], strict=False) if end > start]


class _Languages:
    """The language at a place of a text: that of its paragraph, or of some hundred characters of a long one."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.known: dict[tuple[int, int], str] = {}

    def at(self, place: int) -> str:
        low, high = max(0, place // _AROUND - 1) * _AROUND, (place // _AROUND + 2) * _AROUND
        first, last = self.text.rfind("\n\n", low, place), self.text.find("\n\n", place, high)
        return self._of(max(low, first), high if last < 0 else last) or self._of(low, high)

    def _of(self, low: int, high: int) -> str:
        if (low, high) not in self.known:
            self.known[low, high] = language_of(self.text[low:high])
        return self.known[low, high]


def _ends_without_stops(text: str, ends: set[int], languages: _Languages) -> Iterator[int]:
    """White space in Thai and Lao, where the sentence before it has some length, or a line ends."""
    stops, start = iter(sorted(ends)), 0
    stop = next(stops, len(text))
    for match in _SPACE_IN_UNSTOPPED.finditer(text):
        while stop <= match.start():
            start, stop = stop, next(stops, len(text) + 1)
        shortest = 1 if "\n" in match[0] else _SHORTEST if match["begins"] else _LONG
        if match.start() - start >= shortest and languages.at(match.start()) in _UNSTOPPED:
            start = match.end()
            yield start


def _ends_sentence(text: str, match: re.Match[str], languages: _Languages) -> bool:
    if wide := match["wide"]:  # "行く。」と言った"
        return not (wide[-1] in "\u300d\u300f" and text[match.end() : match.end() + 1] in tuple(_PARTICLES))
    if match["stop"] is None:
        return True
    following = _NEXT_WORD.match(text, match.end())
    after = following[1] if following else ""
    is_initial = (
        following is not None and len(after) == 1 and after.isalpha() and text[following.end() : following.end() + 1] == "."
    )
    if "\n\n" in match[0].replace(" ", ""):
        return True
    if after[:1].islower():
        return False
    if match["stop"][0] != "." or match["stop"].startswith(".."):
        return True
    before = text[max(0, match.start() - 40) : match.start()]  # enough for the word and what stands before it
    word = before[max(before.rfind(space) for space in " \n\t\u00a0\u202f") + 1 :].lstrip(
        "\"'([{\u2018\u201c\u201e\u00ab\u00bf\u00a1"
    )
    if word.isdigit() and not before[: len(before) - len(word)].rpartition("\n")[2].strip():
        return False  # the number of a list item
    language = languages.at(match.start())
    if language in (ENGLISH, UNKNOWN):
        return _ends_in_english(word, "" if is_initial else after)
    is_ordinal = language in _ORDINALS and len(word) <= 2 and word.isdigit() and text[match.end() : match.end() + 1].isalpha()
    return _ends_abroad(word, "" if is_initial else after.lower(), language, is_ordinal)


def _ends_in_english(word: str, after: str) -> bool:
    """Whether a sentence ends at the full stop behind a word, before another that may begin one."""
    small = word.lower()
    if word in _TITLES or small in _CONNECTING or (small in _NUMBERED and after[:1].isdigit()):
        return False
    initial = len(word) == 1 and word.isupper()
    if initial or small in _EITHER or _ACRONYM.fullmatch(word):
        return after.lower() in _STARTERS
    return True


def _ends_abroad(word: str, following: str, language: str, is_ordinal: bool) -> bool:
    """The same by the abbreviations, the ordinals and the stop words of another language than English."""
    small = word.lower()
    if small in _TITLES_ABROAD.get(language, _TITLES_ABROAD[""]) or (small in _NUMBERED_ABROAD and following[:1].isdigit()):
        return False
    is_initial = len(word) == 1 and word.isalpha() and word not in _YEARS
    if is_ordinal or is_initial or _ACRONYM.fullmatch(word):
        return following in STOP_WORDS.get(language, ())
    return True
