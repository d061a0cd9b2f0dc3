"""Factors of variation: on a grid, or drawn from ranges.

    at(classes (N,), places (N,)) -> factors (N, 4) float64, colors (N, 3) float64

factors are scale, orientation (radians), position x and y (from 0, left or top, to 1), in that order; colours are RGB in [0,
1]. `place` p of a class is the p-th combination of its grid (colour outermost, position y innermost), or the p-th draw.  With n
values each, the grid is that of the benchmark in "Infinite dSprites" (arXiv 2312.16731): scale .5 to 1, orientation 0 to 2 pi n
/ (n + 1), position 0 to 1; n = 8 there, which makes 4,096 images of a class.  Ours: ranges, and colours drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from sleepkit.errors import SleepkitError
from sleepkit.vision.idsprites.counter_random import FACTORS, uniform

__all__ = ["CANONICAL", "FACTOR_NAMES", "FactorGrid", "FactorRanges", "canonical", "rgb"]

FACTOR_NAMES = ("scale", "orientation", "position_x", "position_y")
CANONICAL = (1.0, 0.0, 0.5, 0.5)


@dataclass(frozen=True)
class FactorGrid:
    """All combinations of the values of each factor, in the order in which they are given.

    Attributes:
        color: names that matplotlib knows.
        scale: above 0; 1 is the canonical size.
        orientation: radians.
        position_x, position_y: from 0 to 1.
    """

    color: Sequence[str] = ("white",)
    scale: Sequence[float] = (1.0,)
    orientation: Sequence[float] = (0.0,)
    position_x: Sequence[float] = (0.5,)
    position_y: Sequence[float] = (0.5,)

    def __post_init__(self) -> None:
        for factor in fields(self):
            object.__setattr__(self, factor.name, tuple(getattr(self, factor.name)))
            if not getattr(self, factor.name):
                raise SleepkitError(f"the grid of factors has no value of {factor.name}; give at least one")
        for name in FACTOR_NAMES:
            _check(name, getattr(self, name))
        for color in self.color:
            rgb(color)

    @classmethod
    def regular(cls, values: int = 8, color: Sequence[str] = ("white",)) -> FactorGrid:
        """The benchmark's grid, with ``values`` values of each factor but the colour."""
        if not 1 <= values <= 64:
            raise SleepkitError(
                f"the grid of factors has {values} values of each; give 1 to 64, whose fourth power is images of a shape"
            )
        position = np.linspace(0, 1, values).tolist()
        orientation = np.linspace(0, 2 * math.pi * values / (values + 1), values).tolist()
        return cls(color, np.linspace(0.5, 1, values).tolist(), orientation, position, position)

    def __len__(self) -> int:
        return math.prod(len(getattr(self, factor.name)) for factor in fields(self))

    @property
    def max_scale(self) -> float:
        return max(self.scale)

    def at(self, classes: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Factors and colours of the combinations ``places``, the same for all classes."""
        columns = []
        for name in reversed(FACTOR_NAMES):
            values = torch.tensor(getattr(self, name), dtype=torch.float64)
            columns.append(values[places % len(values)])
            places = places // len(values)
        palette = torch.tensor([rgb(color) for color in self.color], dtype=torch.float64)
        return torch.stack(columns[::-1], dim=1), palette[places]


@dataclass(frozen=True)
class FactorRanges:
    """Factors drawn evenly from (lowest, highest), afresh for each image; a pure function of seed, class and place.

    Attributes:
        size: images of each class.
        color: names to draw from; empty draws any RGB colour.
        seed: of the draws.
    """

    size: int = 4096
    color: Sequence[str] = ("white",)
    scale: tuple[float, float] = (0.5, 1.0)
    orientation: tuple[float, float] = (0.0, 2 * math.pi)
    position_x: tuple[float, float] = (0.0, 1.0)
    position_y: tuple[float, float] = (0.0, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.seed < 0:
            raise SleepkitError(f"factors have size {self.size} and seed {self.seed}; give at least 1 image and a seed from 0")
        for name in FACTOR_NAMES:
            values = getattr(self, name)
            if len(values) != 2 or values[0] > values[1]:
                raise SleepkitError(f"{name} is {values}; give its lowest and its highest value")
            _check(name, values)
        for color in self.color:
            rgb(color)

    def __len__(self) -> int:
        return self.size

    @property
    def max_scale(self) -> float:
        return self.scale[1]

    def at(self, classes: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Factors and colours of draw ``places`` of ``classes``."""
        drawn = torch.from_numpy(uniform(self.seed, FACTORS, (classes * self.size + places).numpy(), 7))
        low, high = torch.tensor([getattr(self, name) for name in FACTOR_NAMES], dtype=torch.float64).T
        factors = low + drawn[:, :4] * (high - low)
        if not self.color:
            return factors, drawn[:, 4:]
        palette = torch.tensor([rgb(color) for color in self.color], dtype=torch.float64)
        return factors, palette[(drawn[:, 4] * len(palette)).long()]


def rgb(color: str) -> tuple[float, float, float]:
    """Red, green and blue in [0, 1] of a colour that matplotlib knows ("white", "#ff8800").

    Raises `SleepkitError` for an unknown one.
    """
    from matplotlib.colors import to_rgb

    try:
        return to_rgb(color)
    except ValueError:
        raise SleepkitError(f"color is {color!r}; use a name such as 'white' or 'tab:blue', or '#rrggbb'") from None


def canonical(count: int, color: str) -> tuple[Tensor, Tensor]:
    """The canonical pose in one colour, ``count`` times: factors ``(count, 4)`` and colours ``(count, 3)`` in float64."""
    factors, colors = torch.tensor(CANONICAL, dtype=torch.float64), torch.tensor(rgb(color), dtype=torch.float64)
    return factors.expand(count, 4), colors.expand(count, 3)


def _check(name: str, values: Sequence[float]) -> None:
    low, high = {"scale": (0.0, math.inf), "orientation": (-math.inf, math.inf)}.get(name, (0.0, 1.0))
    for value in values:
        if not math.isfinite(value) or not low <= value <= high or (name == "scale" and value == 0):
            allowed = {"scale": "above 0", "orientation": "finite"}.get(name, "from 0 to 1")
            raise SleepkitError(f"{name} contains {value:g}; give values {allowed}")
