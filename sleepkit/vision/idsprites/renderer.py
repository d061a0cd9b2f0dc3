"""Images of sprites from classes and factors: batched, anti-aliased, at sub-pixel positions, on CPU or GPU.

    point p of the canonical outline, in pixels     0.45 S s R(o) p + S (1/4 + 1/2 (x, y))       S: side of the image

    image = background, clutter, sprite, occluders, each laid over the one before by its coverage; then noise
            sprite: half with x < 0 in its colour, half with x > 0 in the marker's (or in its colour: no marker)

    classes (N,), factors (N, 4), colors (N, 3), ids (N,)   ->   images (N, channels, S, S) float32 in [0, 1]

The map, the colours and the marker are those of the generator of "Infinite dSprites" (arXiv 2312.16731; PyPI `idsprites`).
Ours: exact coverage instead of three grey levels at whole pixels (reference.py draws those), and the harder variants:

    texture    the colour is darkened by up to this share, by three plane waves that move with the sprite
    clutter    so many other shapes of random colour and pose behind the sprite, none of any class
    occluders  so many in front of it
    noise      standard deviation of Gaussian noise on each pixel and channel

Nuisances are drawn from (seed, id) alone.  An image does not depend on the others in its batch.  With numba (extra `vision`)
images on the CPU are drawn by raster_kernel.py, equal to 3e-6 and three times as fast; textured ones, those with gradients and
those on GPUs by raster.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sleepkit.errors import SleepkitError
from sleepkit.utils.options import require
from sleepkit.vision.idsprites.affine import factors_to_matrix, invert, sampling_grid
from sleepkit.vision.idsprites.base_renderer import BaseRenderer
from sleepkit.vision.idsprites.counter_random import CLUTTER, NOISE, OCCLUDERS, TEXTURE, uniform
from sleepkit.vision.idsprites.factors import canonical, rgb
from sleepkit.vision.idsprites.raster import coverage
from sleepkit.vision.idsprites.shapes import SPAN, segments

__all__ = ["SpriteRenderer"]

_CHUNK = 2**20  # pixels drawn at a time, so that they stay in the cache
_DISTRACTORS = 2**40  # shapes from here on are nobody's class


@dataclass(frozen=True)
class SpriteRenderer(BaseRenderer):
    """Renderer of the shapes of one seed.

    Attributes besides those of any renderer:
        max_scale: the largest scale that will be drawn; outlines are made so fine that it is exact up to there.
        texture, noise, clutter, occluders: the harder variants, see the module.
        device: where images are made.
    """

    max_scale: float = 1.0
    texture: float = 0.0
    noise: float = 0.0
    clutter: int = 0
    occluders: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.texture <= 1:
            raise SleepkitError(f"texture is {self.texture:g}; give a share from 0 to 1")
        require(self, ("noise", "clutter", "occluders"), lambda value: 0 <= value < math.inf, "a number of at least 0")
        if self.image_size > 2048:
            raise SleepkitError(f"image_size is {self.image_size}; give at most 2048")
        if not self.max_scale > 0:
            raise SleepkitError(f"max_scale is {self.max_scale:g}; give a scale above 0")

    def __call__(self, classes: Tensor, factors: Tensor, colors: Tensor, ids: Tensor) -> Tensor:
        """Draw images, ``(N, channels, S, S)`` float32 in [0, 1] on `device`.

        Args (on the CPU, whatever the device):
            classes: ``(N,)`` int64, which shapes.
            factors: ``(N, 4)`` scale, orientation in radians, position x and y in [0, 1]; differentiable.
            colors: ``(N, 3)`` RGB in [0, 1].
            ids: ``(N,)`` int64 from 0, different for each image: nuisances are drawn from it.

        Raises `SleepkitError` for scales at or below 0 or above `max_scale`.
        """
        background = self._paint(rgb(self.color_background))  # (1, channels, 1, 1)
        images = background.expand(len(classes), -1, self.image_size, self.image_size).contiguous()
        if len(classes) == 0:
            return images
        low, high = factors[:, 0].aminmax()
        if not 0 < low <= high <= self.max_scale:
            raise SleepkitError(
                f"scales run from {low:g} to {high:g}; draw them above 0 and up to max_scale = {self.max_scale:g}"
            )
        size = max(1, _CHUNK // (2 * self.image_size**2))
        for start in range(0, len(classes), size):
            part = slice(start, start + size)
            self._draw(images[part], background, classes[part], factors[part], colors[part], ids[part])
        return images

    def exemplars(self, classes: Tensor, color: str = "white") -> Tensor:
        """Canonical images of ``classes``, without texture, noise, clutter and occluders: ``(N, channels, S, S)``."""
        plain = replace(self, texture=0.0, noise=0.0, clutter=0, occluders=0, max_scale=1.0)
        return plain(classes, *canonical(len(classes), color), classes)

    def _draw(self, image: Tensor, below: Tensor, classes: Tensor, factors: Tensor, colors: Tensor, ids: Tensor) -> None:
        """Draw onto images that are ``below`` so far."""
        for layer in range(self.clutter):
            self._distract(image, ids, CLUTTER, layer)
            below = image
        matrix = factors_to_matrix(factors)
        paint = self._paint(colors)
        if self.texture:
            paint = paint * (1 - self.texture * self._waves(matrix, ids))
        marker = self._paint(rgb(self.color_marker)) if self.marker else paint
        self._lay(image, below, classes, matrix, self.max_scale, (paint, marker))
        for layer in range(self.occluders):
            self._distract(image, ids, OCCLUDERS, layer)
        if self.noise:
            drawn = torch.from_numpy(uniform(self.seed, NOISE, ids.numpy(), image[0].numel()).astype(np.float32))
            normal = torch.special.ndtri(drawn.clamp(2**-24, 1 - 2**-24)).view(image.shape)
            image.add_(normal.to(image.device), alpha=self.noise).clamp_(0, 1)

    def _paint(self, color: Tensor | tuple[float, float, float]) -> Tensor:
        """``(N or 1, channels, 1, 1)`` float32 on the device."""
        paint = torch.as_tensor(color, dtype=torch.float64).reshape(-1, 3, 1, 1)
        paint = paint if self.channels == 3 else paint.mean(1, keepdim=True)
        return paint.to(self.device, torch.float32)

    def _lay(
        self, image: Tensor, below: Tensor, classes: Tensor, matrix: Tensor, max_scale: float, paints: tuple[Tensor, Tensor]
    ) -> None:
        """Lay the two halves of each sprite over images in place; see `_over`."""
        found, which = classes.unique(return_inverse=True)
        spacing = 1 / (SPAN * self.image_size * max_scale)
        shapes = [segments(self.seed, index, self.vertices, spacing) for index in found.tolist()]
        counts = np.array([(left, ends.shape[-1]) for ends, left in shapes])
        store = np.zeros((2, 2, len(shapes), counts.max()), dtype=np.float32)  # filled up with segments of length 0
        for place, (ends, _) in enumerate(shapes):
            store[:, :, place, : ends.shape[-1]] = ends
        scaled = (matrix[:, :2, :2] * (SPAN * self.image_size)).to(self.device, torch.float32)
        shift = ((matrix[:, :2, 2] + 1) * (self.image_size / 2)).to(self.device, torch.float32)
        kernel = _kernel() if self.device == "cpu" and not matrix.requires_grad and paints[0].shape[-1] == 1 else None
        if kernel is None:
            _over(image, below, self._halves(store, counts, which.to(self.device), scaled, shift), paints)
        else:
            first, second = (paint[:, :, 0, 0].expand(image.shape[:2]).numpy() for paint in paints)
            kernel(image.numpy(), store, counts, which.numpy(), scaled.numpy(), shift.numpy(), first, second)

    def _halves(
        self, store: npt.NDArray[np.float32], counts: npt.NDArray[np.int64], which: Tensor, scaled: Tensor, shift: Tensor
    ) -> Tensor:
        """Coverage of the two halves of each sprite, ``(N, 2, S, S)``; the arguments are those of raster_kernel.py."""
        half = torch.from_numpy(np.arange(store.shape[-1]) >= counts[:, :1]).to(self.device, torch.float32)
        x, y = torch.from_numpy(store).to(self.device)[:, :, which].unbind(1)  # (2 ends, N, P)
        scaled, shift = scaled[..., None], shift[..., None]
        axes = [scaled[:, i, 0] * x + scaled[:, i, 1] * y + shift[:, i] for i in range(2)]
        pixels = torch.stack(axes, dim=1)  # (2 ends, 2 axes, N, P)
        polygon = half[which] + 2 * torch.arange(len(which), device=self.device)[:, None]
        return coverage(pixels, polygon, 2 * len(which), self.image_size).unflatten(0, (-1, 2))

    def _waves(self, matrix: Tensor, ids: Tensor) -> Tensor:
        """Three plane waves in the frame of each sprite, as a number in [0, 1] per pixel: ``(N, 1, S, S)``."""
        drawn = torch.from_numpy(uniform(self.seed, TEXTURE, ids.numpy(), 9)).float().view(-1, 3, 3, 1, 1).to(self.device)
        direction, phase = 2 * math.pi * drawn[:, :, 0], 2 * math.pi * drawn[:, :, 1]
        frequency = 2 * math.pi * (1 + 3 * drawn[:, :, 2])  # one to four waves over half the image
        x, y = sampling_grid(invert(matrix).to(self.device, torch.float32), self.image_size)[:, None].unbind(-1)
        waves = (frequency * (direction.cos() * x + direction.sin() * y) + phase).cos()  # (N, 3, S, S)
        return (waves.mean(1, keepdim=True) + 1) / 2

    def _distract(self, image: Tensor, ids: Tensor, purpose: int, layer: int) -> None:
        """Lay one small random shape over each image."""
        drawn = torch.from_numpy(uniform(self.seed, purpose, ids.numpy(), 8 * (layer + 1)))[:, 8 * layer :]
        factors = torch.stack([0.2 + 0.3 * drawn[:, 0], 2 * math.pi * drawn[:, 1], drawn[:, 2], drawn[:, 3]], dim=1)
        classes = _DISTRACTORS + (drawn[:, 4] * 256).long()
        paint = self._paint(drawn[:, 5:8])
        self._lay(image, image, classes, factors_to_matrix(factors), 0.5, (paint, paint))


def _over(image: Tensor, below: Tensor, halves: Tensor, paints: tuple[Tensor, Tensor]) -> None:
    """Lay two halves, ``(N, 2, S, S)`` coverage, over images in place: add the sum of coverage (paint - below).

    ``below`` ``(N, C, S, S)`` or ``(1, C, 1, 1)`` equals the images: if one colour is all they are yet, there is less to compute.
    """
    first, second = (paint - below for paint in paints)
    image.addcmul_(halves[:, :1], first).addcmul_(halves[:, 1:], second)


@functools.cache
def _kernel() -> Callable[..., None] | None:
    """The compiled form of all this, where numba is installed."""
    try:
        from sleepkit.vision.idsprites.raster_kernel import lay
    except ImportError:
        return None
    return lay
