"""What was said today, in one file of a run's folder, until a night has learned it.

    <output_dir>/today.jsonl
        {"day": "chat of 2026-05-01", "since": "2026-05-01T09:12:44", "kept": "in this file alone, /home/...", "run": {...}}
        {"role": "user", "text": "My cat is called Miso."}
        {"role": "assistant", "text": "What a lovely name."}
        {"role": "remember", "text": "The bins go out on Thursday."}

The file is written anew for each line, whole or not at all, so that a chat which is killed goes on with all that was said.  It
stays on this machine: what a run publishes is its `model/` alone.  Its first line has the settings of the run too, so that a
chat goes on as it began before any night.

A night learns what the user said and told it to remember, as the user's turns of a transcript: what somebody says of themselves
is then answered to them.  Left out are lines of questions and greetings alone, which say nothing, and the model's replies, which
may be wrong.
"""

from __future__ import annotations

import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from sleepkit.errors import SleepkitError, first_line
from sleepkit.language.data.experience import Experience, render_message
from sleepkit.language.questions.prose import is_greeting, is_question
from sleepkit.language.questions.sentences import sentences
from sleepkit.reporting.scripts import is_unspaced
from sleepkit.utils.files import plain, read_jsonl, write_jsonl
from sleepkit.utils.options import shown

__all__ = ["TODAY", "Line", "Today", "run_of", "turns_of"]

TODAY = "today.jsonl"
ROLES = ("user", "assistant", "remember")
_CLOCK = "%Y-%m-%dT%H:%M:%S"


@dataclass(frozen=True)
class Line:
    """One line of a day.

    Attributes:
        role: ``user``, ``assistant``, or ``remember`` for what the user told the model to keep.
        text: what was said.
    """

    role: str
    text: str

    @property
    def is_learned(self) -> bool:
        """Whether a night learns it: it is the user's, and more than questions, greetings and single words."""
        return self.role != "assistant" and any(map(_says_something, sentences(self.text)))


def _says_something(sentence: str) -> bool:
    is_word = len(sentence.split()) == 1 and not is_unspaced(sentence)
    return not (is_word or is_question(sentence) or is_greeting(sentence))


def turns_of(lines: Sequence[Line]) -> list[dict[str, str]]:
    """Lines as a conversation in which user and assistant take turns and the user begins, as chat templates want it."""
    turns: list[dict[str, str]] = []
    for line in lines:
        role = "assistant" if line.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += f"\n{line.text}"
        elif line.text and (turns or role == "user"):
            turns.append({"role": role, "content": line.text})
    return turns


class Today:
    """The lines of a day, kept in a file.

    Args:
        folder: of the run.
        run: seed and settings of the run, ``{"seed": ..., "config": {...}}``.
        taken: titles of earlier days.
        now: seconds since the epoch.

    Raises:
        SleepkitError: the file is damaged or cannot be read.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], taken: Container[str] = (), now: float | None = None) -> None:
        self.path, self.run = folder / TODAY, plain(run)
        self.title, self.since = "", 0.0
        self.lines: list[Line] = []
        if self.path.exists():
            head, self.lines = _read(self.path)
            self.title, self.since = head["day"], time.mktime(time.strptime(head["since"], _CLOCK))
        else:
            self.begin(taken, now)

    # -- what was said ------------------------------------------------------------------------------------------------
    def add(self, role: str, text: str) -> None:
        """Keep a line; it is on the disk when this returns."""
        self._write([*self.lines, Line(role, text)])

    @property
    def said(self) -> list[Line]:
        """The user's lines, in order; they are counted from 1."""
        return [line for line in self.lines if line.role != "assistant"]

    def forget(self, what: str) -> Line:
        """Take out the line of this number, or the only one that holds this text, and return it.

        The replies that came after it go too: they may repeat it.

        Raises:
            SleepkitError: there is no such line, or there are several.
        """
        place = self._place(what.strip())
        later = [line for line in self.lines[place + 1 :] if line.role != "assistant"]
        forgotten = self.lines[place]
        self._write([*self.lines[:place], *later])
        return forgotten

    def experience(self) -> Experience:
        """What a night learns, as one document: the transcript of what the user stated."""
        turns = (render_message("user", line.text) for line in self.said if line.is_learned)
        return Experience(self.title, ["\n\n".join(turns)])

    # -- days ---------------------------------------------------------------------------------------------------------
    def begin(self, taken: Container[str], now: float | None = None) -> None:
        """Begin a new day with nothing said; its title is none of those ``taken``."""
        self.since = time.time() if now is None else now
        first = f"chat of {time.strftime('%Y-%m-%d', time.localtime(self.since))}"
        titles = chain([first], (f"{first} ({number})" for number in count(2)))
        self.title = next(title for title in titles if title not in taken)
        self._write([])

    def tried(self, now: float) -> None:
        """Note that there was a night which has not learned the day."""
        self.since = now
        self._write(self.lines)

    def _place(self, what: str) -> int:
        said = [place for place, line in enumerate(self.lines) if line.role != "assistant"]
        if what.isdecimal():
            if not 1 <= int(what) <= len(said):
                raise SleepkitError(f"today has no line {what}; /history numbers its lines, {len(said)} so far")
            return said[int(what) - 1]
        holding = [number for number, place in enumerate(said, 1) if what.lower() in self.lines[place].text.lower()]
        if not what or not holding:
            raise SleepkitError(f"no line of today holds {shown(what)}; give a number of /history, or words of the line")
        if len(holding) > 1:
            raise SleepkitError(f"lines {', '.join(map(str, holding))} hold {shown(what)}; give the number of one")
        return said[holding[0] - 1]

    def _write(self, lines: Sequence[Line]) -> None:
        since = time.strftime(_CLOCK, time.localtime(self.since))
        kept = f"in this file alone, {self.path.absolute()}, until a night has learned it"
        head = {"day": self.title, "since": since, "kept": kept, "run": self.run}
        write_jsonl(self.path, [head, *map(asdict, lines)])
        self.lines = list(lines)  # what could not be written was not said


def run_of(folder: Path) -> dict[str, Any] | None:
    """Seed and settings of the run in a folder, if it has a day; raises `SleepkitError` if the file is damaged."""
    path = folder / TODAY
    return _read(path)[0]["run"] if path.exists() else None


def _read(path: Path) -> tuple[dict[str, Any], list[Line]]:
    """The head and the lines of a file."""
    try:
        head, *rows = read_jsonl(path)
        time.strptime(head["since"], _CLOCK)
        lines = [Line(**row) for row in rows]
        if not isinstance(head["day"], str) or not isinstance(head["run"]["config"], dict) or "seed" not in head["run"]:
            raise ValueError("its first line is another")
        if not all(line.role in ROLES and isinstance(line.text, str) for line in lines):
            raise ValueError("a line has another role or text")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SleepkitError(f"{path} is damaged ({first_line(error)}); mend it, or move it away to begin the day anew") from error
    return head, lines
