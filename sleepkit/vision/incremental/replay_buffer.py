"""Replay buffer: which images of a stream are kept, as numbers of experience and row, with small tensors beside them.

    places   (n, 2) int64     experience and row in its training images
    labels   (n,)   int64
    extras   {name: (n, width)} float; what a method stores with each, such as logits (DER++); NaN where it is not known

Every row that is offered draws a key, and the buffer keeps the ``capacity`` rows with the smallest::

    reservoir        a random key                    each row ever offered is kept with equal probability (Vitter 1985)
    class_balanced   rank within its class by a random key      equal shares for the classes (GDumb's greedy sampler)
    herding          rank within its class by iCaRL's herding   the mean of the first m approximates the class mean

Keys come from the seed and the count of rows offered before, so the buffer is the same on every rank and after resuming, and
needs no generator's state.  Sources: Vitter 1985; Prabhu et al. 2020 (GDumb); Rebuffi et al. 2017 (iCaRL, arXiv 1611.07725,
algorithm 4).  Ours: one rule for all three; keeping the smallest of random keys is the same distribution as
Vitter's algorithm R.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sleepkit.errors import SleepkitError

__all__ = ["POLICIES", "ReplayBuffer"]

POLICIES = ("reservoir", "class_balanced", "herding")


class ReplayBuffer:
    """Replay buffer: which images of a stream are kept, as numbers of experience and row, with small tensors beside them.

    Args:
        capacity (`int`): rows kept at most, >= 1.
        policy (`str`, defaults to `"reservoir"`): which rows are kept: ``"reservoir"`` (each with equal probability),
            ``"class_balanced"`` (equal shares for the classes) or ``"herding"`` (those whose mean is nearest to the class mean).
        seed (`int`, defaults to 0): of the draws.

    Attributes:
        places: ``(n, 2)`` int64, experience and row in its training images.
        labels: ``(n,)`` int64.

    Raises:
        SleepkitError: a capacity below 1, or an unknown policy.

    Example:

        >>> buffer = ReplayBuffer(capacity=2, policy="class_balanced")
        >>> buffer.add(0, torch.tensor([3, 3, 7, 7]))
        >>> sorted(buffer.labels.tolist())
        [3, 7]
    """

    def __init__(self, capacity: int, policy: str = "reservoir", seed: int = 0) -> None:
        if capacity < 1:
            raise SleepkitError(f"capacity of the replay buffer is {capacity}; give at least 1")
        if policy not in POLICIES:
            raise SleepkitError(f"policy of the replay buffer is {policy!r}; use one of {', '.join(POLICIES)}")
        self.capacity, self.policy, self.seed = capacity, policy, seed
        self.offered = 0
        self.places = torch.zeros(0, 2, dtype=torch.int64)
        self.labels = torch.zeros(0, dtype=torch.int64)
        self.keys = torch.zeros(0, dtype=torch.float64)
        self.extras: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, experience: int, labels: Tensor, features: Tensor | None = None) -> None:
        """Offer all rows of an experience, in the order of its training images.

        Args:
            labels: ``(rows,)``.
            features: ``(rows, hidden)``, for herding.
        """
        keys = np.random.default_rng([self.seed, self.offered]).random(len(labels))
        if self.policy == "herding":
            if features is None:
                raise SleepkitError("the replay buffer's policy is herding and there are no features; pass them to add()")
            keys = _herding_ranks(features, labels, self.capacity).numpy().astype(np.float64)
        places = torch.stack([torch.full((len(labels),), experience), torch.arange(len(labels))], dim=1)
        self.offered += len(labels)
        self.places = torch.cat([self.places, places])
        self.labels = torch.cat([self.labels, labels])
        self.keys = torch.cat([self.keys, torch.from_numpy(keys)])
        self.extras = {name: _padded(values, len(self), values.shape[1]) for name, values in self.extras.items()}
        order = torch.argsort(self.keys, stable=True)
        if self.policy != "reservoir":
            order = order[torch.argsort(_ranks(self.labels[order]), stable=True)]  # the first of each class, the second, ...
        kept = order[: self.capacity].sort().values
        self.places, self.labels, self.keys = self.places[kept], self.labels[kept], self.keys[kept]
        self.extras = {name: values[kept] for name, values in self.extras.items()}

    def rows_of(self, experience: int) -> Tensor:
        """Rows of an experience that are kept, in the order in which `store` takes values for them."""
        return self.places[self.places[:, 0] == experience, 1]

    def store(self, name: str, experience: int, values: Tensor) -> None:
        """Keep values beside the rows of an experience, such as the logits that a model gave them.

        Args:
            name: of the values.
            experience: whose rows they belong to, in the order of `rows_of`.
            values: ``(rows, width)``; where they are wider than those before, all are widened with NaN.
        """
        old = self.extras.get(name, torch.zeros(0, 0))
        self.extras[name] = _padded(old, len(self), max(old.shape[1], values.shape[1]))
        self.extras[name][self.places[:, 0] == experience] = _padded(values, len(values), self.extras[name].shape[1])

    def bytes(self, image_bytes: int) -> int:
        """Return the bytes needed to store the rows: images as uint8, labels, extras; places are no substitute for images."""
        extras = sum(values.numel() * values.element_size() for values in self.extras.values())
        return len(self) * (image_bytes + self.labels.element_size()) + extras

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that later calls depend on."""
        kept = {"places": self.places, "labels": self.labels, "keys": self.keys, "offered": torch.tensor(self.offered)}
        return kept | {f"extras.{name}": values for name, values in self.extras.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` has returned."""
        self.places, self.labels, self.keys = state["places"], state["labels"], state["keys"]
        self.offered = int(state["offered"])
        self.extras = {name.removeprefix("extras."): values for name, values in state.items() if name.startswith("extras.")}


def _ranks(labels: Tensor) -> Tensor:
    """``(n,)``: how many rows of the same label come before each."""
    order = torch.argsort(labels, stable=True)
    _, counts = labels[order].unique_consecutive(return_counts=True)
    ranks = torch.empty_like(labels)
    ranks[order] = torch.cat([torch.arange(count) for count in counts.tolist()] or [torch.zeros(0, dtype=torch.int64)])
    return ranks


def _herding_ranks(features: Tensor, labels: Tensor, most: int) -> Tensor:
    """``(n,)``: place of each row in its class, by iCaRL's greedy choice: the mean so far stays near the class mean.

    Rows after the first ``most`` of a class share the last place: they are never kept.
    """
    features = torch.nn.functional.normalize(features.double(), dim=1)
    ranks = torch.full_like(labels, most)
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten()
        own = features[rows]
        mean, total = own.mean(0), torch.zeros(own.shape[1], dtype=own.dtype)
        free = torch.ones(len(rows), dtype=torch.bool)
        for place in range(min(most, len(rows))):
            distance = (mean - (total + own) / (place + 1)).norm(dim=1)
            best = int(distance.masked_fill(~free, float("inf")).argmin())
            free[best], total = False, total + own[best]
            ranks[rows[best]] = place
    return ranks


def _padded(values: Tensor, rows: int, width: int) -> Tensor:
    """NaN below and on the right."""
    padding = (0, width - values.shape[1], 0, rows - values.shape[0])
    return torch.nn.functional.pad(values, padding, value=float("nan"))
