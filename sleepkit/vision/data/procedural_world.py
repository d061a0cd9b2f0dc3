"""A world of small pictures whose truth is known: a shape of some texture and colour, on some background.

    class      (shape, texture, colour)                6 x 6 x 6 = 216 of them
    caption    "red striped circle on black"           5 words, one token each
    picture    place, size, angle, phase of the texture, shades and noise are drawn for each

A stream has the 18 classes of `HELD_OUT`, three of each shape and texture and two or four of each colour; everything that a
generator is trained on has the 198 others.  Any two classes of the stream differ in two or three of their three parts (cells
of a Latin square), so what takes some parts from one seen class and the others from another is never one still to come.

Ours: all of it.  A picture depends on its seed and its row alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from sleepkit.utils.ram import require_memory
from sleepkit.vision.data.image_data import ImageData, Images, as_bytes

__all__ = ["GENERATOR_CLASSES", "HELD_OUT", "Palette", "draw", "generator_images", "other_images", "stream_images"]

SIZE = 32
SHAPES = ("circle", "square", "triangle", "cross", "ring", "star")
TEXTURES = ("plain", "striped", "barred", "checked", "dotted", "banded")
COLOURS = {
    "red": (0.9, 0.15, 0.15),
    "green": (0.15, 0.75, 0.2),
    "blue": (0.2, 0.3, 0.95),
    "yellow": (0.9, 0.85, 0.15),
    "purple": (0.75, 0.2, 0.8),
    "cyan": (0.15, 0.8, 0.85),
}
BACKGROUNDS = {"black": (0.08, 0.08, 0.08), "white": (0.92, 0.92, 0.92), "grey": (0.5, 0.5, 0.5), "brown": (0.45, 0.28, 0.15)}
COUNTS = {"train": 200, "validation": 20, "test": 60}  # pictures of each class of the stream
OTHER_COUNTS = {"train": 40, "validation": 1, "test": 1}  # and of each of the others


class Palette(NamedTuple):
    """What a class looks like; numbers of `SHAPES`, `TEXTURES` and `COLOURS`."""

    shape: int
    texture: int
    colour: int

    @property
    def name(self) -> str:
        """Return the name as it stands in a caption."""
        return f"{list(COLOURS)[self.colour]} {TEXTURES[self.texture]} {SHAPES[self.shape]}"


# Half of the cells of the Latin square "colour = shape + texture", three of each row and column.
HELD_OUT = [Palette(s, t, (s + t) % 6) for s, t in product(range(6), range(6)) if (t - s) % 6 in (0, 1, 3)]
GENERATOR_CLASSES = [look for look in map(Palette._make, product(range(6), range(6), range(6))) if look not in HELD_OUT]


def stream_images(seed: int = 0) -> ImageData:
    """Pictures of the held-out classes, `COUNTS` of each; the seed draws other pictures of the same classes."""
    return _data(HELD_OUT, COUNTS, 3 * seed)


def other_images(seed: int = 0) -> ImageData:
    """Pictures of the classes that the stream does not have."""
    return _data(GENERATOR_CLASSES, OTHER_COUNTS, 2_000_003 + 3 * seed)


def _data(classes: Sequence[Palette], counts: dict[str, int], seed: int) -> ImageData:
    parts: list[Images] = []
    for number, count in enumerate(counts.values()):
        labels = torch.arange(len(classes)).repeat_interleave(count)
        pixels, _ = draw([classes[label] for label in labels.tolist()], torch.Generator().manual_seed((seed + number) % 2**63))
        parts.append(Images(pixels, labels))
    train, validation, test = parts
    return ImageData(train, validation, test, [look.name for look in classes])


def generator_images(count: int, seed: int = 0) -> tuple[Tensor, list[str]]:
    """``count`` pictures ``(count, 3, 32, 32)`` uint8 of the classes that no stream has, in turn, and a caption of each."""
    require_memory(30 * count * 4 * SIZE**2, f"drawing {count} pictures", "lower images")
    looks = [GENERATOR_CLASSES[row % len(GENERATOR_CLASSES)] for row in range(count)]
    pixels, grounds = draw(looks, torch.Generator().manual_seed((1_000_003 + seed) % 2**63))
    names = list(BACKGROUNDS)
    return pixels, [f"{look.name} on {names[ground]}" for look, ground in zip(looks, grounds.tolist(), strict=True)]


def draw(looks: Sequence[Palette], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures ``(n, 3, 32, 32)`` uint8 and the numbers of their backgrounds ``(n,)``."""
    n = len(looks)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *(shape or (1, 1)), generator=generator)

    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    down, right = torch.meshgrid(axis, axis, indexing="ij")
    angle, size = uniform(-0.3, 0.3), uniform(0.6, 0.85)
    x, y = right - uniform(-0.15, 0.15), down - uniform(-0.15, 0.15)  # (n, 32, 32)
    x, y = (angle.cos() * x + angle.sin() * y) / size, (angle.cos() * y - angle.sin() * x) / size
    phase = (uniform(0, 1), uniform(0, 1))
    shapes, textures, colours = (torch.tensor(column) for column in zip(*looks, strict=True))
    outline, dark = torch.empty(n, SIZE, SIZE), torch.empty(n, SIZE, SIZE)
    for number, name in enumerate(SHAPES):
        own = shapes == number
        outline[own] = (0.5 - _SHAPES[name](x[own], y[own]) * size[own] * SIZE / 2).clamp(0, 1)  # a pixel wide edge
    for number, name in enumerate(TEXTURES):
        own = textures == number
        dark[own] = _TEXTURES[name](x[own], y[own], phase[0][own], phase[1][own])
    shade = torch.tensor(list(COLOURS.values()))[colours][:, :, None, None] + uniform(-0.1, 0.1, 3, 1, 1)
    grounds = torch.randint(len(BACKGROUNDS), (n,), generator=generator)
    ground = torch.tensor(list(BACKGROUNDS.values()))[grounds][:, :, None, None] + uniform(-0.08, 0.08, 3, 1, 1)
    figure = shade * (1 - 0.75 * dark[:, None])
    picture = outline[:, None] * figure + (1 - outline[:, None]) * ground
    picture = picture + 0.03 * torch.randn(picture.shape, generator=generator)
    return as_bytes(picture), grounds


# Distance from the outline, below 0 inside, for a figure that fills [-1, 1] x [-1, 1].


def _star(x: Tensor, y: Tensor) -> Tensor:
    turn = torch.atan2(x, -y)
    return (x**2 + y**2).sqrt() - (0.68 + 0.38 * (5 * turn).cos())


_SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": lambda x, y: (x**2 + y**2).sqrt() - 0.95,
    "square": lambda x, y: torch.maximum(x.abs(), y.abs()) - 0.85,
    "triangle": lambda x, y: torch.maximum(y - 0.75, x.abs() * math.cos(0.45) - (y + 1.05) * math.sin(0.55)),
    "cross": lambda x, y: torch.minimum(torch.maximum(x.abs() - 0.36, y.abs() - 1), torch.maximum(x.abs() - 1, y.abs() - 0.36)),
    "ring": lambda x, y: ((x**2 + y**2).sqrt() - 0.72).abs() - 0.28,
    "star": _star,
}


def _wave(along: Tensor, phase: Tensor) -> Tensor:
    """0 or 1 in turn along an axis, four of them, with soft edges."""
    return (0.5 + 4 * (2 * math.pi * (1.2 * along + phase)).sin()).clamp(0, 1)


_TEXTURES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "plain": lambda x, y, p, q: torch.zeros_like(x),
    "striped": lambda x, y, p, q: _wave(y, p),
    "barred": lambda x, y, p, q: _wave(x, p),
    "checked": lambda x, y, p, q: (_wave(x, p) - _wave(y, q)).abs(),
    "dotted": lambda x, y, p, q: (
        0.5 + 3 * ((2 * math.pi * (1.2 * x + p)).sin() * (2 * math.pi * (1.2 * y + q)).sin() - 0.35)
    ).clamp(0, 1),
    "banded": lambda x, y, p, q: _wave((x**2 + y**2).sqrt(), 0.25 * p),
}
