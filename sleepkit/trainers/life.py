"""The next day: which of today's documents are new to a life of nights, which were changed, and which are gone.

    life          a b c          what earlier nights were slept on
    today         a b' d         b' has b's name and another content
    -> stream     a b c d b'     two nights more; b is replaced by b', c is still known and is said to be

Documents are compared by their content, so that a file that is only moved or renamed is known; a changed one is found by its
name.  What waits for its night (a run that was killed) keeps its place, unless it was changed meanwhile.  Questions are asked
and not learned: the ones that were asked first stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sleepkit.cycle.cycle import EXPERIENCES_NAME
from sleepkit.cycle.state import CycleState
from sleepkit.language.config import WORDS
from sleepkit.language.data.experience import Experience, size_of, together
from sleepkit.utils.files import read_jsonl
from sleepkit.utils.phases import digest_of
from sleepkit.utils.ranks import main_finds
from sleepkit.utils.states import newest_state

__all__ = ["Day", "blank", "extended", "live_on", "lived", "replaced_in"]

Part = tuple[str, str]  # of an experience: the title of a document, and a digest of what is learned of it


@dataclass(frozen=True)
class Day:
    """The stream of a life up to today.

    Attributes:
        experiences: all of them, in the order of their nights.
        slept: how many of them have had their night.
        replaced: index of an experience -> index of the later one that replaces it.
        changed: titles of documents that are slept on again.
        gone: titles of documents that are known and not among today's.
        forgotten: titles of today's documents whose night was forgotten, and that are not slept on again.
    """

    experiences: list[Experience]
    slept: int = 0
    replaced: dict[int, int] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return what a user should know before the first night of the day, a line each; none on the first day."""
        if not self.slept:
            return []
        new = len(self.experiences) - self.slept
        said = [f"{self.slept} nights were slept before; today brings {new} more" if new else "nothing new to sleep on"]
        if self.changed:
            said.append(f"changed, and slept on anew: {', '.join(self.changed)}; what they said before is not rehearsed any more")
        if self.gone:
            said.append(
                f"not among today's documents, but still known: {', '.join(self.gone)}; a model that never read them is one "
                "that starts anew without them (--overwrite true)"
            )
        if self.forgotten:
            said.append(
                f"forgotten, and not slept on again: {', '.join(self.forgotten)}; to let it be learned again, change a word of it"
            )
        return said


def live_on(output_dir: Path, passages: Sequence[Experience], per_night: int | None = 1, anew: bool = False) -> Day:
    """Today's stream of the life in ``output_dir``, or a new life's; call it on all processes.

    Args:
        passages: today's documents, an experience each.
        per_night: documents that one night learns together; None: one where they come with questions, else as many as have
            `WORDS` words.
        anew: forget the life that is there.

    Raises:
        SleepkitError: the state of the life is damaged.
    """
    life, nights = ([], []) if anew else lived(output_dir)
    return extended(life, len(nights), passages, per_night)


def lived(output_dir: Path) -> tuple[list[Experience], list[dict[str, Any]]]:
    """The stream of the life in ``output_dir`` so far, and the rows of its nights, one for each of the first experiences.

    Call it on all processes.

    Raises:
        SleepkitError: the state of the life is damaged.
    """
    rows, nights = main_finds(lambda: _rows(output_dir))
    return [Experience.from_dict(row) for row in rows], nights


def _rows(output_dir: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    folder = newest_state(output_dir / "state")  # the cycle says what is damaged
    return ([], []) if folder is None else (read_jsonl(folder / EXPERIENCES_NAME), CycleState.load(folder).nights)


def extended(life: Sequence[Experience], slept: int, passages: Sequence[Experience], per_night: int | None = 1) -> Day:
    """Do what `live_on` does, for a life of which the first ``slept`` experiences have had their night."""
    slept_on, waiting = list(life[:slept]), life[slept:]
    new, missing = _compared(_held(slept_on), passages)
    tonight, rest = _still_waiting(waiting, new)
    unread = {part for experience in slept_on for part in experience.forgotten}
    titles = {part[0] for part in missing if part not in unread}
    tonight += [_replacing(together(group), titles) for group in _nights_of(rest, per_night)]
    changed = [title for experience in tonight for title in experience.replaces]
    stream = [*slept_on, *tonight]
    gone = [title for title in dict.fromkeys(part[0] for part in missing if part not in unread) if title not in changed]
    known = [passage for passage in passages if passage.documents and not any(passage is one for one in new)]
    digests = {digest for _, digest in unread}
    forgotten = [title for passage in known for title, digest in _parts(passage) if digest in digests]
    return Day(stream, slept, replaced_in(stream), changed, gone, forgotten)


def blank(experience: Experience) -> Experience:
    """What is kept of an experience whose night was forgotten: its name, and by which digests its documents are known."""
    return Experience(experience.name, [], forgotten=_parts(experience))


def _held(slept_on: Sequence[Experience]) -> list[Part]:
    """What was slept on and not replaced since, document by document."""
    held: list[Part] = []
    for k, experience in enumerate(slept_on):
        later = {title for newer in slept_on[k + 1 :] for title in newer.replaces}
        held += [part for part in _parts(experience) if part[0] not in later]
    return held


def _nights_of(passages: Sequence[Experience], per_night: int | None) -> list[list[Experience]]:
    """Passages by the nights that they are learned in."""
    if per_night is None and any(passage.questions for passage in passages):
        per_night = 1
    nights: list[list[Experience]] = []
    for passage in passages:
        last = nights[-1] if nights else []
        is_full = size_of([*last, passage]).words > WORDS if per_night is None else len(last) >= per_night
        if is_full or not last:
            nights.append([])
        nights[-1].append(passage)
    return nights


def _compared(held: Sequence[Part], passages: Sequence[Experience]) -> tuple[list[Experience], list[Part]]:
    """Passages that are not ``held`` yet, and what is held and not among the passages."""
    known = Counter(digest for _, digest in held)
    new = []
    for passage in passages:
        digests = Counter(digest for _, digest in _parts(passage))
        if digests <= known:
            known -= digests
        else:
            new.append(passage)
    missing = []
    today = {part for passage in passages for part in _parts(passage)}
    for part in sorted(
        held, key=today.__contains__
    ):  # of documents with the same content, the one that has today's name is there
        if known[part[1]] > 0:
            known[part[1]] -= 1
            missing.append(part)
    return new, missing


def _still_waiting(waiting: Sequence[Experience], new: Sequence[Experience]) -> tuple[list[Experience], list[Experience]]:
    """Experiences of an unfinished day of which every document is still there, and the passages that are in none of them."""
    rest, whole = list(new), []
    for experience in waiting:
        wanted = Counter(digest for _, digest in _parts(experience))
        chosen = []
        for passage in rest:
            digests = Counter(digest for _, digest in _parts(passage))
            if digests <= wanted:
                wanted -= digests
                chosen.append(passage)
        if not wanted.total():
            whole.append(experience)
            rest = [passage for passage in rest if not any(passage is taken for taken in chosen)]
    return whole, rest


def _replacing(experience: Experience, titles: set[str]) -> Experience:
    changed = [title for title in dict.fromkeys(title for title, _ in _parts(experience)) if title in titles]
    return replace(experience, replaces=changed) if changed else experience


def replaced_in(stream: Sequence[Experience]) -> dict[int, int]:
    """Each experience that a later one replaces, in part or as a whole, and the first that does."""
    replaced: dict[int, int] = {}
    for k, experience in enumerate(stream):
        for j, earlier in enumerate(stream[:k]):
            if set(experience.replaces) & {title for title, _ in _parts(earlier)}:
                replaced.setdefault(j, k)
    return replaced


def _parts(experience: Experience) -> list[Part]:
    """The documents of an experience; where pairs are given to be learned, all of it is one part."""
    if experience.forgotten:
        return experience.forgotten
    if experience.notes:
        pairs = [(note.question, note.answer, note.kind) for note in experience.notes]
        return [(experience.name, digest_of([experience.documents, pairs, experience.also_read]))]
    edits = experience.edits or [[] for _ in experience.documents]
    rows = zip(experience.titled(), experience.documents, edits, strict=True)
    return [(title, digest_of([document, texts])) for title, document, texts in rows]
