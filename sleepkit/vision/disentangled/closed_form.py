"""Pose without learning: the baseline that knows how Infinite dSprites are made.

    coverage    w = (I - g) / (1 - g) above the background g, b = (g - I) / g below it: of the white and of the marked half
    position    c = centroid of w + b                                   the origin of every shape, by its definition
    orientation max over angles of  sum (b - w) clamp(n . (x - c))      n: the direction from the white half to the marked one
    scale       extent of w + b along the shape's own two axes, over that of the canonical shape, which is square

It needs the marker, white shapes, a known grey behind them and nothing in front: where one of them is missing it is wrong.
So any learner has to be compared with it, and on the harder variants too.  Ours; the published code has no such baseline.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sleepkit.vision.idsprites.affine import factors_to_matrix, normalize
from sleepkit.vision.idsprites.shapes import SPAN

__all__ = ["closed_form_pose"]

_ANGLES = 64
_ROUNDS = 4  # each with 9 angles, four times as close as in the one before


@torch.no_grad()
def closed_form_pose(images: Tensor, background: float = 169 / 255) -> Tensor:
    """Matrices ``(N, 3, 3)`` of images ``(N, C, S, S)`` from 0 to 1; the mean of channels is taken for the intensity."""
    grey = images.mean(1)
    white, marked = ((grey - background) / (1 - background)).clamp(0, 1), ((background - grey) / background).clamp(0, 1)
    size = images.shape[-1]
    axis = (torch.arange(size, dtype=images.dtype) + 0.5) * 2 / size - 1
    mass = (white + marked).clamp(max=1)
    total = mass.sum((1, 2)).clamp(min=1e-6)
    x, y = (mass.sum(1) * axis).sum(1) / total, (mass.sum(2) * axis).sum(1) / total
    angle = _direction((marked - white).flatten(1), axis, x, y)
    factors = torch.stack([torch.ones_like(x), angle, x + 0.5, y + 0.5], dim=1)
    upright = normalize(mass[:, None], factors_to_matrix(factors), extent=1.5, size=2 * size)[:, 0]
    extents = [upright.amax(side).sum(1) * 1.5 * 2 / (2 * size) for side in (1, 2)]  # of the shape, where the image is 2 wide
    factors[:, 0] = ((extents[0] + extents[1]) / (4 * SPAN)).clamp(min=0.05)
    return factors_to_matrix(factors)


def _direction(signed: Tensor, axis: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """``(N,)`` angles of the line's normal, from ``signed`` (N, pixels): 1 in the marked half, -1 in the white one."""
    down, right = torch.meshgrid(axis, axis, indexing="ij")
    right, down = right.flatten() - x[:, None], down.flatten() - y[:, None]  # (N, pixels)
    pixel = 2 / len(axis)

    def score(angles: Tensor) -> Tensor:  # (N, a) -> (N, a)
        along = angles.cos()[..., None] * right[:, None] + angles.sin()[..., None] * down[:, None]
        return torch.einsum("np,nap->na", signed, (along / pixel).clamp_(-1, 1))

    step = 2 * math.pi / _ANGLES
    tried = (torch.arange(_ANGLES, dtype=x.dtype) * step).expand(len(x), -1)
    found = score(tried).argmax(1) * step
    for _ in range(_ROUNDS):
        tried = found[:, None] + torch.linspace(-step, step, 9, dtype=x.dtype)
        found = tried.gather(1, score(tried).argmax(1, keepdim=True))[:, 0]
        step = step / 4
    return found
