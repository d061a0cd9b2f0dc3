"""What reads like prose, so that questions can be asked about it by rule; the rest is quoted as it stands (passages.py).

Questions by rule need sentences.  Of a table, of code or of a list of names they make nonsense ("Who 7.25 22.00 4.50?"), and a
time stamp is no answer.  A line is *data* if it is one of these::

    code, configuration     import, def f(x):, key = value, <tag>, a line that ends in ; { or }
    tables                  | a | b |, tabs or gaps between columns, values with , or ; and no space after it, mostly numbers
    messengers and logs     it begins with a date, a time or a level: [12.03.24, 18:22] Ada: hello

A sentence is prose if it ends like one, or has a verb and no end; if most of it is letters, and if it is none of these::

    questions               their answer is elsewhere
    headings, fragments     # History, names without a verb
    entries and dialogues   Keeper: Orla Finch
    too long                more than `LONGEST` characters

and a paragraph is verse if its lines are short and do not end where sentences end.  Rules of thumb, of characters and a few
English verbs, linear in the length of the text.  They err towards quoting: what is quoted is still learned.  Ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sleepkit.language.questions.english.verbs import has_verb
from sleepkit.reporting.scripts import UNSPACED, apart, language_of_script

__all__ = [
    "CODE",
    "DATA",
    "TEXT",
    "ends_sentence",
    "is_greeting",
    "is_prose",
    "is_question",
    "is_verse",
    "kind_of_line",
    "without_marker",
]

TEXT, DATA, CODE = "text", "data", "code"  # of a line
LONGEST = 1200  # characters of a sentence
FEW_WORDS = 8
VERSE, SHORT_VERSE = 60, 36  # characters of the longest line

_STAMP = re.compile(
    r"""\s*[\[(<]?(?:
        \d{1,4}[./-]\d{1,2}[./-]\d{1,4}\b                            # 12.03.24, 2024-03-12
      | \d{1,2}:\d{2}\b                                              # 18:22
      | (?:[A-Z][a-z]{2},?\s)?[A-Z][a-z]{2}\s{1,2}\d{1,2}\s\d{2}:\d{2}   # Mar 12 18:22:01
    )
      | \s*<[\w.@+-]{1,30}>\s\S                                      # <ada> hello
      | \s*\[?(?:DEBUG|INFO|WARN|WARNING|ERROR|FATAL|CRITICAL|TRACE|NOTICE)\b
      | [^\s\[][^\[\n]{0,40}\s{1,3}\[\d{1,2}[:.]\d{1,2}              # Ada Lovelace  [6:22 PM], Ada, [12.03.24
    """,
    re.VERBOSE,
)
_COLUMNS = re.compile(r"\S(?:\t| {3,})\S")
_RULE = re.compile(r"[\s|+:=_*~.#-]+$")
_NUMBERS = re.compile(r"[\d\s.,;:|+%€$£-]+$")
_VALUE = re.compile(r"(?<!\d)[,;](?=[^\s\"'”’)\]*_])|[,;](?=[^\s\d\"'”’)\]*_])")  # a delimiter without a space; not 1,907
_NUMBER = re.compile(r"[^\w\s]*\d[^a-zA-Z\s]*$")
_CODE_LINE = re.compile(
    r"""\s*(?:
        (?:def|class|function|fn|func|sub|proc|struct|interface|enum)\s+\w+\s*[(:{<]
      | (?:async|public|private|protected|static|export|abstract|final)\s+\w+\s+\S.*[({;]$
      | (?:import|package|using|require|include|use)\s+["'<]?[\w.*/:-]+[">']?;?\s*(?:as\s+\w+)?$
      | from\s+[\w.]+\s+import\s
      | (?:if|for|while|elif|with|except|switch|match|case|catch|unless|foreach)\b.*[:{]$
      | (?:else|try|finally|do|begin|end)\b\s*[:{;]?$
      | (?:return|yield|raise|throw|assert|await|goto)\b(?:\s+[^\s,.]+\s*;?|.*[()\[\]{}=]\S*)?$
      | (?:print|echo|puts|exit)\b\s*[("'$]
      | (?:pass|break|continue)\s*;?$
      | (?:var|let|const|local|my|our|val|set|export|declare)\s+[\w$.]+\s*(?::\s*\w+\s*)?=
      | [\w.$\[\]"'-]+\s*(?::\s*[\w\[\], |.]+\s*)?(?::=|[-+*/|&]?=)\s*\S
      | [\w.]+\([^()]*\)\s*;?$
      | (?:SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER)\s.*\b(?:FROM|INTO|SET|TABLE|VALUES|AS|WHERE)\b
      | (?:\#!|//|/\*|\*/|<!--|<\?|\#include|\#define|@\w+\b(?:\(|\s*$)|>>>\s|\$\s\w|--\s.*;$)
      | </?[a-zA-Z!][^<>]*>\s*$
      | \[[\w .:"'-]+\]\s*$
      | (?:-\s)?[a-z][\w-]*:(?:\s+[\w./\"'\[{-]+)?$                    # yaml
    )""",
    re.VERBOSE,
)
_CODE_END = re.compile(r"(?:[{}\\]|\):|\[|\(|=|&&|\|\||[\])}],)$")
_STATEMENT = re.compile(r"[\w.]+(?:\s\S+){0,2};$|.*[()=\[\]\"'].*;$")  # not the items of a contract, which end so too
_SYMBOL = re.compile(r"[{}\[\]<>=;_\\|~^@#$&+]|\w\(|->|::")  # not those of Markdown's emphasis
_ADDRESS = re.compile(r"\w{2,10}://\S+")
_MARKER = re.compile(r"\s*(?:(?:[-*+•]|\d{1,3}[.)]|\(\w{1,4}\))\s+(?:\[[ xX]\]\s+)?|>\s?)")
_HEADING = re.compile(r"\s*#{1,6}\s")
_LABEL = re.compile(r"[\W_]{0,4}(\w[^:.!?\n]{0,40}?)[*_]{0,2}:[*_]{0,2}(?:\s|$)")
_CLOSING = r"[\s\"'\u2018\u201c\u2039\u203a\u00ab\u3011\u300b\u2019\u201d\u00bb\u300d\u300f\uff09)\]*_]{0,8}\s*$"
_END = re.compile(rf"[.!\u2026\u3002\uff01\uff0e\uff61\u0964\u0965\u06d4\u1362\u0589\u104b\u17d4\u17d5\u0f0d\u0f0e]{_CLOSING}")
_QUESTION = re.compile(rf"[?\uff1f\u061f]!?{_CLOSING}")
_LETTERS = re.compile(r"[^\W\d_]+|\d+")
_GREETINGS = frozenset(
    "hi hello hey there again good morning evening night afternoon day to you all everybody everyone and thanks thank so very "
    "much a lot bye goodbye cheers see later tomorrow then ok okay yes no sure please welcome nice great well lol haha "
    "hallo guten morgen abend tag gute nacht danke bitte tschüss ja nein schön hola buenos días buenas tardes noches gracias "
    "adiós bonjour bonsoir bonne nuit salut merci oui non au revoir ciao buongiorno buonasera grazie olá bom dia obrigado "
    "obrigada привет здравствуйте спасибо доброе утро добрый день вечер да нет 你好 您好 早上好 晚安 谢谢 再见 好的 おはよう "
    "おはようございます こんにちは こんばんは おやすみ ありがとう ありがとうございます はい いいえ "
    "مرحبا شكرا صباح مساء الخير نعم لا".split()
)
_LAST = 24  # characters in which an end is looked for
_NO_LETTER = re.compile(r"[\s\d!-/:-@\[-`{-~]+")
_UNSPACED = re.compile(f"[{UNSPACED}]")
_WITHOUT_STOPS = ("th", "lo")  # languages that have none


def kind_of_line(line: str) -> str:
    """`DATA` for rows of tables, messages and logs, `CODE` for code and configuration, else `TEXT`."""
    line = line.rstrip()[:LONGEST]
    if _STAMP.match(line) or _is_row(without_marker(line).strip()):
        return DATA
    is_statement = _STATEMENT.match(line.lstrip()) and not _MARKER.match(line)
    if is_statement or _CODE_LINE.match(line) or _CODE_END.search(line[-4:]) or _is_dense(line):
        return CODE
    return TEXT


def is_prose(sentence: str) -> bool:
    """Whether questions can be asked about a sentence, its list marker aside."""
    text = without_marker(sentence).strip()
    if len(text) > LONGEST or _HEADING.match(sentence) or _is_label(text) or _is_dense(text) or is_question(text):
        return False
    letters = len(_NO_LETTER.sub("", text))
    if 5 * letters < 3 * len("".join(text.split())):
        return False
    words = text.split()
    if _END.search(text[-_LAST:]):
        return len(words) > 2 or (_UNSPACED.search(text) is not None and letters > 3)
    if language_of_script(text) in _WITHOUT_STOPS:
        return letters > FEW_WORDS
    return len(words) > 3 and text[-1] not in ":,;-–—" and has_verb(text)


def ends_sentence(line: str) -> bool:
    """Whether a line ends where a sentence may end, or something is announced."""
    line = line.rstrip()
    return _END.search(line[-_LAST:]) is not None or is_question(line) or line.endswith(":")


def is_question(sentence: str) -> bool:
    """Whether it ends with a question mark."""
    return _QUESTION.search(sentence.rstrip()[-_LAST:]) is not None


def is_greeting(sentence: str) -> bool:
    """Whether it is made of greetings, thanks and the like alone, which state nothing: "Good morning to you all!"."""
    words = _LETTERS.findall(sentence.lower())
    return bool(words) and _GREETINGS.issuperset(words)


def is_verse(lines: Sequence[str]) -> bool:
    """Whether the lines of a paragraph break where verse breaks: short, most with a capital in front, few at a sentence's end."""
    longest = max(map(len, lines))
    if len(lines) < 2 or longest >= VERSE or any(map(_UNSPACED.search, lines)) or any(map(_MARKER.match, lines)):
        return False
    ends = sum(_END.search(line.rstrip()[-_LAST:]) is not None for line in lines[:-1])
    capitals = sum(line.lstrip()[:1].isupper() for line in lines[1:])
    follow = len(lines) - 1
    broken = 4 * capitals >= 3 * follow if longest >= SHORT_VERSE else capitals == follow or follow > 2
    return broken and (2 * ends < follow or follow == 1 > ends) and (longest < SHORT_VERSE or follow > 1)


def without_marker(sentence: str) -> str:
    """A sentence without the ``-``, ``1.`` or ``>`` of a list or quotation in front."""
    return sentence[_MARKER.match(sentence).end() :] if _MARKER.match(sentence) else sentence  # type: ignore[union-attr]


def _is_row(line: str) -> bool:
    """A row of a table, or the rule between two."""
    if _RULE.match(line) or _NUMBERS.match(line) or line.count("|") > 1:
        return True
    words = apart(line).split()
    gaps = sum(1 for _ in _COLUMNS.finditer(line))
    if gaps > 1 or (gaps and len(words) <= FEW_WORDS):
        return True
    if len(words) > 2 and 2 * sum(_NUMBER.match(word) is not None for word in words) >= len(words):
        return True
    values = sum(1 for _ in _VALUE.finditer(line))
    return values > 0 and 4 * values >= len(words)


def _is_dense(text: str) -> bool:
    """Of signs that prose has few of."""
    symbols = sum(1 for _ in _SYMBOL.finditer(_ADDRESS.sub("", text)))
    return symbols > 1 and 8 * symbols >= len(_NO_LETTER.sub("", text))


def _is_label(text: str) -> bool:
    found = _LABEL.match(text)
    return found is not None and len(found[1].split()) < 5 and not has_verb(found[1])
