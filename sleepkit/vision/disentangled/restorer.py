"""What a straightened picture would look like without texture, clutter and noise: a small U-Net.

    picture (N, C, P, P) as it is seen   ->   (N, C, P, P) as the plain canonical picture of its class        P divisible by 4

Two levels of stride 2, two residual convolutions at the bottom, and back up with the pictures beside (Ronneberger et al., MICCAI
2015, in small).  It is trained on what a night's images show beside the exemplar of their class.  Pixels are from 0 to 1, and the
background is 0 inside.  No recipe uses it yet: with a few dozen steps a night it serves all shapes, but with the hundreds that a
pose needs it learns the night's ten shapes by heart, and earlier ones are known worse than without it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Restorer"]


class Restorer(nn.Module):
    """See the module.

    Args:
        channels: of the pictures.
        width: channels of the first level; twice as many below.
        background: of the pictures.
    """

    def __init__(self, channels: int, width: int, background: float) -> None:
        super().__init__()
        self.background = background
        self.down = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.further_down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.near = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.far = nn.Conv2d(2 * width, 2 * width, 3, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)
        self.further_up = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)
        self.last = nn.Conv2d(width + channels, channels, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        pictures = pictures - self.background
        half = self.down(pictures).relu()
        quarter = self.further_down(half).relu()
        quarter = quarter + self.near(quarter).relu()
        quarter = quarter + self.far(quarter).relu()
        found = self.further_up(torch.cat([self.up(quarter).relu(), half], dim=1)).relu()
        restored: Tensor = self.last(torch.cat([found, pictures], dim=1)) + self.background
        return restored
