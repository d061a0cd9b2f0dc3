"""Factors of variation as affine matrices, their inverse, and the normaliser.

    factors (..., 4) = scale s, orientation o in radians, position x, position y in [0, 1]

        | s cos o  -s sin o  x - 1/2 |
    M = | s sin o   s cos o  y - 1/2 |        (..., 3, 3), from the canonical image to the image
        |    0         0        1    |

Coordinates are those of `torch.nn.functional.grid_sample` with ``align_corners=False``: -1 and 1 are the outer edges of the
image, x points right, y down.  The canonical image is the one with s = 1, o = 0, x = y = 1/2.  So ``M[:2]`` is the sampling
matrix of `affine_grid` that takes an image back to its canonical form: the target of the pose regression in "Infinite dSprites
for Disentangled Continual Learning" (arXiv 2312.16731, section 4).  With M known the normaliser is exact but for interpolation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sleepkit.errors import SleepkitError

__all__ = ["factors_to_matrix", "invert", "normalize", "rotations", "sampling_grid"]


def factors_to_matrix(factors: Tensor) -> Tensor:
    """``(..., 4)`` factors as ``(..., 3, 3)`` matrices of the same dtype and device; differentiable."""
    scale, orientation, x, y = factors.unbind(-1)
    a, b = scale * orientation.cos(), scale * orientation.sin()
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    return torch.stack([a, -b, x - 0.5, b, a, y - 0.5, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def invert(matrix: Tensor) -> Tensor:
    """Inverse of affine ``(..., 2 or 3, 3)`` matrices, as ``(..., 3, 3)``; in closed form, so it does not depend on the batch.

    Raises:
        SleepkitError: a matrix with determinant 0, which maps the plane to a line.
    """
    a, b, x = matrix[..., 0, :].unbind(-1)
    c, d, y = matrix[..., 1, :].unbind(-1)
    determinant = a * d - b * c
    if bool((determinant == 0).any()):
        raise SleepkitError("an affine matrix has determinant 0 and no inverse; check that scales are above 0")
    a, b, c, d = d / determinant, -b / determinant, -c / determinant, a / determinant
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    return torch.stack([a, b, -(a * x + b * y), c, d, -(c * x + d * y), zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def rotations(angle: Tensor) -> Tensor:
    """About the centre of the image by angles ``(N,)`` in radians, ``(N, 3, 3)``."""
    half = torch.full_like(angle, 0.5)
    return factors_to_matrix(torch.stack([torch.ones_like(angle), angle, half, half], dim=1))


def sampling_grid(matrix: Tensor, image_size: int, extent: float = 1.0) -> Tensor:
    """``(N, image_size, image_size, 2)``: where the pixels of the canonical images lie in the images, for `grid_sample`.

    Of the canonical images this is the part from ``-extent`` to ``extent`` on both axes.
    """
    window = matrix.new_tensor([extent, extent, 1.0])
    return F.affine_grid(matrix[:, :2] * window, [len(matrix), 1, image_size, image_size], align_corners=False)


def normalize(
    images: Tensor, matrix: Tensor, size: int | None = None, extent: float = 1.0, background: float | None = None
) -> Tensor:
    """Images ``(N, C, S, S)`` in canonical form, given their matrices ``(N, 2 or 3, 3)``: bilinear.

    Args:
        background: what lies beyond the images; None continues their edges.
        size: height and width of the result, pixels; None is that of the images.
        extent: how much of the canonical image is wanted: its coordinates from ``-extent`` to ``extent``.
    """
    grid = sampling_grid(matrix.to(images.dtype), size or images.shape[-1], extent)
    if background is None:
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return F.grid_sample(images - background, grid, align_corners=False) + background
