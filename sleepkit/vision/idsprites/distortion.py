"""Changes of images that no affine matrix undoes: the measured limit of a learner whose poses are affine.

    perspective   pixel (x, y) shows what was at  (x, y) / (1 + p x + q y)                 p, q from -perspective to perspective
    elastic       pixel (x, y) shows what was at  (x, y) + d(x, y)                         d from -elastic to elastic on each of
                  4 x 4 points of the image, bicubic between them

Coordinates are those of affine.py, so 1 is half the width of the image.  The numbers of an image are drawn from (seed, id) alone.
`DistortedRenderer` stands where the renderer stands whose images it changes; canonical images are not changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from sleepkit.utils.options import require
from sleepkit.vision.idsprites.affine import sampling_grid
from sleepkit.vision.idsprites.base_renderer import BaseRenderer
from sleepkit.vision.idsprites.counter_random import DISTORTION, uniform

__all__ = ["DistortedRenderer", "distorted"]

_POINTS = 4


@dataclass(frozen=True)
class DistortedRenderer(BaseRenderer):
    """Draws the images of another renderer, distorted.

    Attributes besides those of any renderer:
        inner: the other renderer.
        perspective: below 1/2, as the image must not reach the horizon.
        elastic: at least 0.
    """

    inner: BaseRenderer | None = None
    perspective: float = 0.0
    elastic: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, ("perspective",), lambda value: 0 <= value < 0.5, "at least 0 and below 0.5")
        require(self, ("elastic",), lambda value: 0 <= value < math.inf, "at least 0")

    def __call__(self, classes: Tensor, factors: Tensor, colors: Tensor, ids: Tensor) -> Tensor:
        """Draw images as the other renderer does, then distort them."""
        assert self.inner is not None
        images = self.inner(classes, factors, colors, ids)
        count = 2 + 2 * _POINTS**2
        drawn = torch.from_numpy(2 * uniform(self.seed, DISTORTION, ids.numpy(), count) - 1).float().to(images.device)
        vanishing, points = self.perspective * drawn[:, :2], self.elastic * drawn[:, 2:].view(-1, 2, _POINTS, _POINTS)
        grid = sampling_grid(torch.eye(3, device=images.device).expand(len(images), 3, 3), self.image_size)
        grid = grid / (1 + torch.einsum("nhwc,nc->nhw", grid, vanishing)[..., None])
        shift = F.interpolate(points, grid.shape[1:3], mode="bicubic", align_corners=True)
        return F.grid_sample(images, grid + shift.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)

    def exemplars(self, classes: Tensor, color: str = "white") -> Tensor:
        """Return the exemplars of the other renderer, which are not distorted."""
        assert self.inner is not None
        return self.inner.exemplars(classes, color)


def distorted(inner: BaseRenderer, perspective: float, elastic: float) -> BaseRenderer:
    """A renderer of distorted images, or ``inner`` itself where both strengths are 0.

    Raises `SleepkitError` for a strength out of range.
    """
    if perspective == elastic == 0:
        return inner
    shared = {one.name: getattr(inner, one.name) for one in fields(BaseRenderer)}
    return DistortedRenderer(**shared, inner=inner, perspective=perspective, elastic=elastic)
