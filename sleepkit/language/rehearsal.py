"""Rehearsal buffer: items, dreams and questions of earlier nights.  Its size is bounded, so the cost of a night is constant.

    items      a night's own items; some are replayed on each later night, half of those that it may disturb, half by chance
    dreams     a reservoir of rehearsed dreams, of which a share is replayed                                      dreaming/pool.py
    quiz       self-written questions that were never trained on: what the gate asks to see what was lost
    general    general prompts with the unslept model's replies, in every night

Replay as in experience replay (Rolnick et al. 2019, arXiv 1811.11682).  Ours: which items may be disturbed (they share words
with tonight's documents), and that statements which tonight outdates are neither replayed nor asked: those that answer the
same prompt anew, and all of a document of which there is a newer version.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sleepkit.language.dreaming.config import DreamingConfig
from sleepkit.language.dreaming.pool import DreamPool
from sleepkit.language.questions.examples import SyntheticExample, load_items, not_outdated, save_items
from sleepkit.language.questions.words import matching_words
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.utils.files import read_json, write_json
from sleepkit.utils.seeds import derive_seed

DREAMS_NAME, OUTDATED_NAME = "dreams.json", "outdated.json"
LISTS = ("replay", "general", "quiz")  # files of items
SNAPSHOT = ("kept", "dreams", "outdated")  # names of the tensors of a snapshot


class Rehearsal:
    """Items, dreams and questions of earlier nights, of which each night replays a bounded number.

    Args:
        seeding: how much is kept and replayed, and the seed.
        dreaming: how many dreams are kept, and their share of what is replayed.
    """

    def __init__(self, seeding: KnowledgeSeedingConfig, dreaming: DreamingConfig) -> None:
        self.seeding, self.dream_share = seeding, dreaming.dream_replay_share
        self.replay: list[SyntheticExample] = []
        self.quiz: list[SyntheticExample] = []
        self.general: list[SyntheticExample] = []
        self.dreams = DreamPool(dreaming.dream_pool)
        self.outdated: dict[str, int] = {}  # title of a document -> the night that read a newer version of it

    def outdate(self, titles: Iterable[str], night: int) -> None:
        """Neither replay nor ask, from ``night`` on, what earlier nights learned of these documents."""
        self.outdated |= dict.fromkeys(titles, night)

    def current(self, items: Iterable[SyntheticExample], tonight: Sequence[SyntheticExample] = ()) -> list[SyntheticExample]:
        """Items of earlier nights that still hold."""
        return not_outdated(list(filter(self._is_newest, items)), tonight)

    def _is_newest(self, item: SyntheticExample) -> bool:
        return item.source not in self.outdated or item.night >= self.outdated[item.source]

    # -- what a night leaves ------------------------------------------------------------------------------------------
    def remember(self, items: Sequence[SyntheticExample], held_out: Sequence[SyntheticExample], night: int) -> None:
        """Keep a night's own items, of given examples the first ``notes_kept`` of each kind, and its questions.

        Args:
            items: that the night has trained on.
            held_out: that it was tested on.
            night: its number.
        """
        self.quiz += [replace(item, night=night) for item in held_out]
        seen = Counter[str]()
        for item in items:
            if item.role != "new":
                continue
            kind = {"note": item.span, "written": item.source}.get(item.style, "")
            seen[kind] += kind != ""
            if seen[kind] <= self.seeding.notes_kept:
                again = self.seeding.rehearse_as_new == "all" or (self.seeding.rehearse_as_new, item.style) == ("notes", "note")
                self.replay.append(replace(item, context="", style=item.style if again else "replay", night=night))

    def remember_dreams(self, rows: Iterable[SyntheticExample], night: int) -> None:
        """Offer a night's rehearsed dreams to the reservoir."""
        self.dreams.add(
            (replace(row, context="", style="replay", night=night) for row in rows),
            derive_seed(self.seeding.seed, "dream pool", night),
        )

    # -- what a night takes -------------------------------------------------------------------------------------------
    def draw(self, night: int, tonight: Sequence[SyntheticExample], words: Set[str]) -> list[SyntheticExample]:
        """Draw ``replay_items`` items and dreams of earlier nights, as far as there are so many.

        Args:
            night: its number, from which with the seed they are drawn.
            tonight: items of the night; what they answer anew is not drawn.
            words: content words of its documents.
        """
        dreams = list(filter(self._is_newest, self.dreams.items))
        count = min(round(self.dream_share * self.seeding.replay_items), len(dreams))
        chosen = random.Random(derive_seed(self.seeding.seed, "replayed dreams", night)).sample(dreams, count)
        return self.at_risk(self.current(self.replay, tonight), night, words, self.seeding.replay_items - count) + chosen

    def at_risk(self, items: Sequence[SyntheticExample], night: int, words: Set[str], most: int) -> list[SyntheticExample]:
        """Choose items, half of which share most words with tonight's documents, where a new expert is likely to interfere.

        Args:
            items: to choose from.
            night: its number, from which with the seed the other half is drawn.
            words: content words of its documents.
            most: items at most.
        """

        def overlap(item: SyntheticExample) -> float:
            asked = matching_words(item.prompt)
            return sum(word in words for word in asked) / max(1, len(asked))

        count = min(most, len(items))
        ranked = sorted(items, key=overlap, reverse=True)
        close, rest = ranked[: count // 2], ranked[count // 2 :]
        return close + random.Random(derive_seed(self.seeding.seed, "replay", night)).sample(rest, count - len(close))

    def questions(self, night: int, tonight: Sequence[SyntheticExample], most: int) -> list[SyntheticExample]:
        """Draw at most ``most`` questions of earlier nights, none that the items of ``tonight`` outdate."""
        quiz = self.current(self.quiz, tonight)
        return random.Random(derive_seed(self.seeding.seed, "quiz", night)).sample(quiz, min(most, len(quiz)))

    # -- what is forgotten --------------------------------------------------------------------------------------------
    def only_of(self, nights: Collection[int], items: Iterable[SyntheticExample]) -> list[SyntheticExample]:
        """Those of some items that these nights alone have left: no other night asks the same, or says it in the same sentence.

        A reply that is no more than its answer, such as a label, is no sentence.
        """
        others = [item for item in (*self.replay, *self.quiz, *self.dreams.items) if item.night not in nights]
        prompts = {item.prompt for item in others}
        sentences = {item.reply for item in others if item.reply != item.span}
        own = (item for item in items if item.night in nights)
        return [item for item in own if item.prompt not in prompts and item.reply not in sentences]

    def forget(self, nights: Collection[int], outdated: Mapping[str, int]) -> None:
        """Take out all that some nights have left.

        Args:
            nights: their numbers.
            outdated: which documents are outdated without them, as `outdate` notes it.
        """
        self.replay, self.quiz = ([item for item in items if item.night not in nights] for items in (self.replay, self.quiz))
        self.dreams.forget(nights)
        self.outdated = dict(outdated)

    # -- keeping ------------------------------------------------------------------------------------------------------
    def snapshot(self) -> dict[str, Tensor]:
        """Return what `restore` needs: lists grow only at their ends, so their lengths are enough."""
        outdated = torch.tensor(list(json.dumps(self.outdated).encode()), dtype=torch.uint8)
        kept = torch.tensor([len(self.replay), len(self.quiz)])
        return {"kept": kept, "dreams": self.dreams.to_tensor(), "outdated": outdated}

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Forget what came since the snapshot."""
        replayed, quizzed = snapshot["kept"].tolist()
        self.replay, self.quiz = self.replay[:replayed], self.quiz[:quizzed]
        self.dreams.from_tensor(snapshot["dreams"])
        self.outdated = json.loads(bytes(snapshot["outdated"].tolist()))

    def save(self, folder: Path) -> None:
        """Write items as JSON lines, and the reservoir."""
        self.dreams.save(folder / DREAMS_NAME)
        write_json(folder / OUTDATED_NAME, self.outdated)
        for name in LISTS:
            save_items(getattr(self, name), folder / f"{name}.jsonl")

    def inherit(self, folder: Path) -> None:
        """Begin with what another life has saved: its nights lie before the first one of this."""
        self.load(folder)
        self.replay, self.quiz, self.dreams.items = map(self.current, (self.replay, self.quiz, self.dreams.items))
        last = max((item.night for item in (*self.replay, *self.quiz, *self.dreams.items)), default=0)
        for items in (self.replay, self.quiz, self.dreams.items):
            items[:] = [replace(item, night=item.night - last - 1) for item in items]
        self.outdated = {}

    def load(self, folder: Path) -> None:
        """Read what `save` has written."""
        self.dreams.load(folder / DREAMS_NAME)
        self.outdated = dict(read_json(folder / OUTDATED_NAME))
        for name in LISTS:
            setattr(self, name, load_items(folder / f"{name}.jsonl"))
