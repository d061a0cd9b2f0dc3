"""Images as the PyPI package `idsprites` draws them, bit for bit for equal vertices and factors.

    outline   1,000 points, principal axis vertical, box measured in thousandths, centred on the mean of the pixels it fills
    image     coordinates cut to whole pixels; polygon filled by OpenCV without anti-aliasing (the package asks for it on a canvas
              of 32 bits, where there is none); marker: filled pixels with x > 0 in the sprite's frame

Source: `idsprites` 1.0.1 (MIT, github.com/sbdzdz/idsprites), the generator of arXiv 2312.16731; the code is ours.
`SpriteRenderer` draws the same shapes better and faster: this is for comparing with published numbers.  Filling is OpenCV's,
the library whose pixels are to be met: it comes with the extra `vision`.  Left out: texture, noise, clutter and occluders,
which the package does not have.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sleepkit.errors import SleepkitError
from sleepkit.vision.idsprites.base_renderer import BaseRenderer
from sleepkit.vision.idsprites.factors import rgb
from sleepkit.vision.idsprites.shapes import SPAN, closed_spline, sample_vertices, vertical_axis

__all__ = ["ReferenceRenderer", "draw", "reference_outline"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ReferenceRenderer(BaseRenderer):
    """Draws the shapes of one seed as the package does; called like `SpriteRenderer`, but one image at a time on the CPU."""

    def __post_init__(self) -> None:
        _cv2()
        super().__post_init__()

    def __call__(self, classes: Tensor, factors: Tensor, colors: Tensor, ids: Tensor) -> Tensor:
        """``(N, channels, S, S)`` float32 in [0, 1]; the arguments of `SpriteRenderer`, of which ``ids`` has no effect."""
        images = np.empty((len(classes), self.channels, self.image_size, self.image_size), dtype=np.float32)
        background, marker = _levels(rgb(self.color_background)), _levels(rgb(self.color_marker))
        for place, index in enumerate(classes.tolist()):
            color = _levels(colors[place].tolist())
            points = _outline(self.seed, index, self.vertices, self.image_size)
            parts = draw(points, factors[place].tolist(), self.image_size)
            palette = np.array([background, color, marker if self.marker and color != background else color])  # (3 parts, 3)
            if self.channels == 1:
                palette = palette.mean(axis=1, keepdims=True)
            images[place] = np.take(palette.astype(np.float32).T / np.float32(255), parts, axis=1)
        return torch.from_numpy(images)


def reference_outline(vertices: Array, degree: int, image_size: int) -> Array:
    """The package's outline through ``vertices`` (n, 2), ``(2, 1000)``; it depends on the size of the image."""
    curve = closed_spline(vertices, degree)
    points = vertical_axis(curve) @ curve.T
    points = points - points.mean(axis=1, keepdims=True)
    thousandths = (points * 1000).astype(np.int32)
    points = points / (((np.ptp(thousandths, axis=1) + 1) / 1000)[:, None])
    rows, columns = np.nonzero(_filled(SPAN * image_size * points + image_size / 2, image_size))
    center = np.array([[columns.mean()], [rows.mean()]])
    return points - (center - image_size // 2) / (SPAN * image_size)


def draw(points: Array, factors: Sequence[float], image_size: int) -> npt.NDArray[np.uint8]:
    """Which part each pixel shows: 0 background, 1 sprite, 2 its half with the marker. ``(S, S)`` uint8.

    Args:
        points: outline, ``(2, 1000)``.
        factors: scale, orientation, position x and y.
    """
    scale, orientation, *position = factors
    cos, sin = np.cos(orientation), np.sin(orientation)
    center_x, center_y = (0.25 * image_size + 0.5 * image_size * place for place in position)
    turned = np.array([[cos, -sin], [sin, cos]]) @ (SPAN * image_size * scale * points)
    parts = _filled(turned + np.array([[center_x], [center_y]]), image_size)
    theta = orientation - np.pi / 2  # the marker's side, rounded as the package rounds it
    row, column = np.arange(image_size)[:, None], np.arange(image_size)
    ahead = (row - center_y) * np.cos(-theta) + (column - center_x) * np.sin(-theta) + center_y
    return parts + (parts & (ahead > center_y))


@functools.lru_cache(maxsize=2**14)
def _outline(seed: int, index: int, vertices: tuple[int, int], image_size: int) -> Array:
    return reference_outline(*sample_vertices(seed, index, vertices), image_size)


def _levels(color: Sequence[float]) -> tuple[int, ...]:
    return tuple(int(255 * value) for value in color)


def _filled(points: Array, image_size: int) -> npt.NDArray[np.uint8]:
    """1 in the pixels that OpenCV fills when coordinates ``(2, P)`` are cut to whole pixels, ``(S, S)``."""
    cv2 = _cv2()
    mask = np.zeros((image_size, image_size), dtype=np.uint8)
    cv2.fillPoly(mask, [points.T.astype(np.int32)], 1, lineType=cv2.LINE_8)
    return mask


def _cv2():  # type: ignore[no-untyped-def]
    try:
        import cv2
    except ImportError:
        raise SleepkitError("the reference mode needs OpenCV to fill polygons; pip install 'sleepkit[vision]'") from None
    return cv2
