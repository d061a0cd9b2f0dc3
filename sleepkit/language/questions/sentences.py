"""Split text into sentences by rules: enough for prompts and chunks, without a model or a download.

A sentence ends at ``.``, ``!``, ``?`` or an ellipsis (closing quotes and brackets included) before white space, unless

- the next word begins with a small letter;
- the stop belongs to a title (Dr.), to an abbreviation before a number (No. 5), to "e.g." and its like, or to the
  number of a list item ("2. Salt");
- the stop belongs to an initial, an acronym or a word such as "etc.", "Inc.", "a.m.", and the next word is not one that
  commonly starts a sentence ("the U.S. Army", but "in the U.S. | The army").

It also ends at a blank line, before and after a Markdown heading, before a list item or a turn of a transcript, and
at the full stops of Chinese and Japanese.  A stop inside a number or a name (3.5, example.org) has no white space
after it.  Each pattern begins where the character before it could not: the work is linear in the length of the text.

Ours, after the observations behind Punkt (Kiss & Strunk 2006, Computational Linguistics 32(4)): abbreviations, initials
and common sentence starters decide almost every stop.  Left out: other languages' abbreviations.
"""

from __future__ import annotations

import re

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

_BREAK = re.compile(
    r"""(?<![.!?\u2026])(?P<stop>[.!?\u2026]+["'\u2019\u201d\u00bb)\]]*)\s+   # a stop before white space
      | [\u3002\uff01\uff1f]+["\u201d\u300d\u300f\uff09]*\s*   # Chinese and Japanese stops need none
      | (?<![ \t])[ \t]*\n(?:
            (?:[ \t]*\n)+                                      # blank lines; what follows keeps its indentation
          | (?=[ \t]*(?:[-*+\u2022]|\d{1,9}[.)])[ \t])         # before a list item
          | (?=\#{1,6}[ ])                                     # before a heading
          | (?=(?:System|User|Assistant|Tool):[ ])             # before a turn of a transcript
        )
    """,
    re.VERBOSE,
)
_HEADING = re.compile(r"^#{1,6} .*\n(?:[ \t]*\n)*", re.MULTILINE)
_ACRONYM = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_NEXT_WORD = re.compile(r"[^\w]{0,40}(\w{0,40})")  # bounded, as one stop may follow another for pages


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the white space around them; blank ones are left out."""
    stripped = (text[start:end].strip() for start, end in sentence_spans(text))
    return [sentence for sentence in stripped if sentence]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Spans ``[start, end)`` of the sentences with the white space after them: they tile the text exactly."""
    ends = {match.end() for match in _BREAK.finditer(text) if match["stop"] is None or _ends_sentence(text, match)}
    ends |= {match.end() for match in _HEADING.finditer(text)}
    bounds = [0, *sorted(ends - {0, len(text)}), len(text)]
    return [(start, end) for start, end in zip(bounds, bounds[1:], strict=False) if end > start]


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    following = _NEXT_WORD.match(text, match.end())
    after = following[1] if following else ""
    if "\n\n" in match[0].replace(" ", ""):
        return True
    if after[:1].islower():
        return False
    if match["stop"][0] != "." or match["stop"].startswith(".."):
        return True
    before = text[max(0, match.start() - 40) : match.start()]  # enough for the word and what stands before it
    word = before[max(before.rfind(space) for space in " \n\t") + 1 :].lstrip("\"'([{\u2018\u201c\u00ab")
    if word.isdigit() and not before[: len(before) - len(word)].rpartition("\n")[2].strip():
        return False  # the number of a list item
    if word in _TITLES or word.lower() in _CONNECTING or (word.lower() in _NUMBERED and after[:1].isdigit()):
        return False
    initial = len(word) == 1 and word.isupper()
    if initial or word.lower() in _EITHER or _ACRONYM.fullmatch(word):
        return after.lower() in _STARTERS
    return True
