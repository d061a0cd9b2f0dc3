"""The items of a night: what is asked, what is answered, and what the teacher has in view; and which of them still hold.

    SyntheticExample(prompt, reply, context, style)
    newest(items, order)        of each prompt the statements that came last
    not_outdated(kept, tonight) of earlier nights what no later one answers anew

Ours: all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sleepkit.errors import SleepkitError
from sleepkit.utils.files import read_jsonl, write_jsonl

__all__ = [
    "OWN",
    "QUESTION_WRITERS",
    "RETOLD",
    "ROLES",
    "STYLES",
    "SyntheticExample",
    "load_items",
    "newest",
    "not_outdated",
    "save_items",
]

QUESTION_WRITERS = ("auto", "rules", "written", "both")
STYLES = ("question", "wh", "paraphrase", "cloze", "keywords", "about", "recite", "rewrite")
ROLES = ("new", "general", "replay", "again")  # of an item in a night
OWN = "own"  # style of a pair that the user gave
RETOLD = "retold"  # style of what the model tells of a whole passage, where it writes alone


@dataclass(frozen=True)
class SyntheticExample:
    """Synthetic example of a night: a prompt, the reply to learn, and the context that the teacher sees.

    Attributes:
        prompt: what is asked; the student sees it alone.
        reply: what the teacher says.
        context: the text that the teacher has in view; empty for general and replayed items.
        style: one of `STYLES`, "retold" (a whole passage), "note" (of a label), "written" (an answer), "own" (of a pair that the
            user gave), "general", "replay" or "recall".
        source: name of the document.
        span: the words of the context that answer the prompt, where there are such.
        night: when an item of an earlier night was learned, below 0 before this life of nights; 0: tonight's.
    """

    prompt: str
    reply: str
    context: str
    style: str
    source: str = ""
    span: str = ""
    night: int = 0

    @property
    def role(self) -> str:
        """Role in the night, one of `ROLES`: what an expert has to learn, what must stay as it is, and what it learns again."""
        if self.style in ("general", "replay"):
            return self.style
        return "again" if self.night and self.style != "recall" else "new"

    @property
    def is_learned(self) -> bool:
        """True for what is learned tonight, new or again; False for what must stay as it is."""
        return self.role in ("new", "again")


def newest(items: Sequence[SyntheticExample], order: Sequence[str]) -> list[SyntheticExample]:
    """Items without repeats, of each prompt those of the last sentence of ``order`` that it asks about: what is newer holds."""
    place = {sentence: k for k, sentence in enumerate(order)}
    return list({(item.prompt, item.reply): item for item in _latest(items, lambda item: place[item.context])}.values())


def not_outdated(kept: Sequence[SyntheticExample], tonight: Sequence[SyntheticExample] = ()) -> list[SyntheticExample]:
    """Items of earlier nights whose prompt no later night, nor ``tonight``, answers anew."""
    asked = {item.prompt for item in tonight if item.is_learned}
    return [item for item in _latest(kept, lambda item: item.night) if item.prompt not in asked]


def _latest(items: Sequence[SyntheticExample], when: Callable[[SyntheticExample], int]) -> list[SyntheticExample]:
    """Return of each prompt the items for which ``when`` is greatest."""
    last: dict[str, int] = {}
    for item in items:
        last[item.prompt] = max(last.get(item.prompt, when(item)), when(item))
    return [item for item in items if when(item) == last[item.prompt]]


def save_items(items: Iterable[SyntheticExample], path: Path) -> None:
    """Write items as JSON lines, atomically."""
    write_jsonl(path, map(asdict, items))


def load_items(path: Path) -> list[SyntheticExample]:
    """Read items written by `save_items`.

    Raises:
        SleepkitError: not there, or cut short.
    """
    try:
        return [SyntheticExample(**row) for row in read_jsonl(path)]
    except (OSError, ValueError, TypeError) as error:
        raise SleepkitError(f"{path} cannot be read ({error}); start anew with --overwrite true") from error
