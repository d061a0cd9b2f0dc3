"""The continual stream of Infinite dSprites: new shapes in every experience, told apart among all shapes met so far.

    experience t:  classes t k ... (t + 1) k - 1;  of each class' combinations of factors, shares for train, validation and test

The benchmark of arXiv 2312.16731 has k = 10, 200 (up to 1,000) experiences, a grid of 8 values and shares .98, .01, .01.  Which
combinations go where is drawn for each class from (seed, class): splits are balanced by class and depend on nothing else. Ours:
that balance (the generator splits all images of a task at random), and an accumulated test set that is a pure function of t
(there: a reservoir).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sleepkit.errors import SleepkitError
from sleepkit.utils.ram import require_memory
from sleepkit.vision.idsprites.base_renderer import BaseRenderer
from sleepkit.vision.idsprites.dataset import SpritesDataset
from sleepkit.vision.idsprites.factors import FactorGrid, FactorRanges
from sleepkit.vision.idsprites.renderer import SpriteRenderer

__all__ = ["SpritesExperience", "SpritesStream"]


@dataclass(frozen=True)
class SpritesExperience:
    """Shapes of one night; the attributes are those of any experience of images.

    Attributes:
        name: of its classes.
        number: place in the stream, from 0.
        labels: its classes.
        label_names: a name for each.
        train, validation, test: its images.
        exemplars: ``(classes, channels, S, S)`` float32, one canonical image of each.
    """

    name: str
    number: int
    labels: tuple[int, ...]
    label_names: tuple[str, ...]
    train: SpritesDataset
    validation: SpritesDataset
    test: SpritesDataset
    exemplars: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Return what tells the experience from another: its classes, how they are drawn, and a hash of its splits."""
        rows = hashlib.sha256(b"".join(part.rows.numpy().tobytes() for part in self._parts() if part.rows is not None))
        drawn = {"factors": repr(self.train.factors), "renderer": repr(self.train.renderer)}
        return {"name": self.name, "labels": list(self.labels), **drawn, "rows": rows.hexdigest()}

    def _parts(self) -> tuple[SpritesDataset, SpritesDataset, SpritesDataset]:
        return self.train, self.validation, self.test


@dataclass(frozen=True)
class SpritesStream:
    """A sequence of experiences, each made when it is asked for.

    Attributes:
        experiences: how many.
        classes_per_experience: new shapes of each.
        factors: of every shape.
        renderer: draws the images; its seed decides which shapes there are.
        shares: of train, validation and test; they sum to 1.
        seed: of the split.
    """

    experiences: int = 200
    classes_per_experience: int = 10
    factors: FactorGrid | FactorRanges = field(default_factory=FactorGrid.regular)
    renderer: BaseRenderer = field(default_factory=SpriteRenderer)
    shares: tuple[float, float, float] = (0.98, 0.01, 0.01)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.experiences < 1 or self.classes_per_experience < 1 or self.seed < 0:
            counts = f"experiences {self.experiences}, classes_per_experience {self.classes_per_experience}, seed {self.seed}"
            raise SleepkitError(f"{counts}; give at least one of each and a seed from 0")
        if len(self.shares) != 3 or min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-9:
            raise SleepkitError(f"shares are {self.shares}; give three above 0 that sum to 1, as 0.98 0.01 0.01")
        if len(self.factors) < 3:
            raise SleepkitError(f"a class has {len(self.factors)} images; three splits need at least 3 combinations of factors")
        classes, each = self.experiences * self.classes_per_experience, len(self.factors)
        require_memory(
            3 * 8 * classes * each,  # numbers of rows, of all experiences
            f"{classes:,} classes of {each:,} images",
            "lower experiences, classes_per_experience or factor_values",
        )
        if sum(self._held_out()) >= each:
            raise SleepkitError(
                f"a class has {each} images, of which shares of {', '.join(f'{share:g}' for share in self.shares)} leave none to "
                "train on; lower the last two"
            )

    def __len__(self) -> int:
        return self.experiences

    def __iter__(self) -> Iterator[SpritesExperience]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> SpritesExperience:
        if not 0 <= number < len(self):
            raise IndexError(f"experience {number} of {len(self)}")
        classes = range(number * self.classes_per_experience, (number + 1) * self.classes_per_experience)
        images = SpritesDataset(classes, self.factors, self.renderer)
        parts = zip(*(self._split(label) for label in classes), strict=True)  # train of each class, validation of each, ...
        n = len(self.factors)
        train, validation, test = (
            images.select(torch.from_numpy(np.concatenate([place * n + rows for place, rows in enumerate(part)])))
            for part in parts
        )
        names = tuple(f"shape {label}" for label in classes)
        exemplars = self.renderer.exemplars(torch.tensor(classes))
        name = f"shapes {classes[0]} to {classes[-1]}"
        return SpritesExperience(name, number, tuple(classes), names, train, validation, test, exemplars)

    def accumulated_test(self, number: int, size: int | None = None) -> SpritesDataset:
        """Test images of all classes met up to experience ``number``: all, or about ``size``, equally many of each class."""
        classes = range((number + 1) * self.classes_per_experience)
        tests = [self._split(label)[2] for label in classes]
        each = len(tests[0]) if size is None else min(len(tests[0]), size // len(classes))
        if each < 1:
            raise SleepkitError(f"size is {size} for {len(classes)} classes; give at least one test image for each")
        rows = np.concatenate([label * len(self.factors) + rows[:each] for label, rows in zip(classes, tests, strict=True)])
        return SpritesDataset(classes, self.factors, self.renderer, torch.from_numpy(rows))

    def splits(self) -> dict[str, SpritesDataset]:
        """All images of all experiences: train, validation and test, for what wants a data set and not a stream."""
        classes = range(len(self) * self.classes_per_experience)
        n = len(self.factors)
        parts = zip(*([label * n + rows for rows in self._split(label)] for label in classes), strict=True)
        images = SpritesDataset(classes, self.factors, self.renderer)
        names = ("train", "validation", "test")
        return {name: images.select(torch.from_numpy(np.concatenate(part))) for name, part in zip(names, parts, strict=True)}

    def _held_out(self) -> tuple[int, int]:
        """Images of a class for validation and test."""
        validation, test = (max(1, round(share * len(self.factors))) for share in self.shares[1:])
        return validation, test

    def _split(self, label: int) -> list[np.ndarray]:
        """Places of a class for train, validation and test; each has one at least."""
        n = len(self.factors)
        validation, test = self._held_out()
        order = np.random.default_rng((self.seed, label)).permutation(n)
        return np.split(order, [n - validation - test, n - test])
