"""Accepted dreams of old nights, a fixed number of them, for replay: a uniform sample of all that there ever were.

Reservoir sampling (Vitter 1985, algorithm R): dream number i enters with probability capacity / i, in a random place.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sleepkit.errors import SleepkitError
from sleepkit.language.questions.examples import SyntheticExample
from sleepkit.utils.files import write_json


@dataclass
class DreamPool:
    """At most ``capacity`` of the ``seen`` rows of dreams."""

    capacity: int
    items: list[SyntheticExample] = field(default_factory=list)
    seen: int = 0

    def add(self, items: Iterable[SyntheticExample], seed: int) -> None:
        """Offer rows to the reservoir; equal on all ranks for equal seeds."""
        rng = random.Random(seed)
        for item in items:
            self.seen += 1
            if len(self.items) < self.capacity:
                self.items.append(item)
            elif (place := rng.randrange(self.seen)) < self.capacity:
                self.items[place] = item

    def forget(self, nights: Collection[int]) -> None:
        """Take out the rows of some nights; of those that were seen, it is taken that they had the same share."""
        left = [item for item in self.items if item.night not in nights]
        self.seen = max(len(left), round(self.seen * len(left) / max(1, len(self.items))))
        self.items = left

    def to_tensor(self) -> Tensor:
        """All of it as bytes, for a snapshot."""
        return torch.tensor(list(self._text().encode()), dtype=torch.uint8)

    def from_tensor(self, state: Tensor) -> None:
        """Take over what `to_tensor` has returned."""
        self._read(bytes(state.tolist()).decode())

    def save(self, path: Path) -> None:
        """Write the reservoir as JSON, atomically."""
        write_json(path, json.loads(self._text()))

    def load(self, path: Path) -> None:
        """Read what `save` has written.  Raises `SleepkitError` if the file is not there or damaged."""
        try:
            self._read(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise SleepkitError(f"{path} cannot be read ({error}); start anew with --overwrite true") from error

    def _text(self) -> str:
        return json.dumps({"seen": self.seen, "items": [asdict(item) for item in self.items]}, ensure_ascii=False)

    def _read(self, text: str) -> None:
        document = json.loads(text)
        items = [SyntheticExample(**row) for row in document["items"]]
        self.items, self.seen = items, int(document["seen"])
