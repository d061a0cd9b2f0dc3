"""What all renderers of sprites have: the shapes' seed, the size and colours of images, and images of canonical poses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from sleepkit.utils.options import require
from sleepkit.vision.idsprites.factors import canonical, rgb
from sleepkit.vision.idsprites.shapes import check_vertex_range

__all__ = ["BaseRenderer"]


@dataclass(frozen=True)
class BaseRenderer(ABC):
    """Draws shapes of one seed.

    Attributes:
        image_size: height and width, pixels.
        seed: of shapes and nuisances.
        vertices: fewest and most vertices of a shape.
        channels: 3 (RGB) or 1 (grey: the mean of the three).
        marker: paint the half that shows the orientation.
        color_background, color_marker: names that matplotlib knows.
        max_scale: the largest scale that will be drawn.
    """

    image_size: int = 64
    seed: int = 0
    vertices: tuple[int, int] = (5, 8)
    channels: int = 3
    marker: bool = True
    color_background: str = "darkgray"
    color_marker: str = "black"
    max_scale: float = float("inf")

    def __post_init__(self) -> None:
        check_vertex_range(self.vertices)
        rgb(self.color_background), rgb(self.color_marker)
        require(self, ("channels",), lambda channels: channels in (1, 3), "1 (grey) or 3 (RGB)")
        require(self, ("image_size",), lambda size: size >= 8, "at least 8")
        require(self, ("seed",), lambda seed: 0 <= seed < 2**63, "a whole number from 0 to 2**63 - 1")

    @abstractmethod
    def __call__(self, classes: Tensor, factors: Tensor, colors: Tensor, ids: Tensor) -> Tensor:
        """Images ``(N, channels, S, S)`` float32 in [0, 1]; see renderer.py for the arguments."""

    def exemplars(self, classes: Tensor, color: str = "white") -> Tensor:
        """Canonical images of ``classes``, ``(N, channels, S, S)``."""
        return self(classes, *canonical(len(classes), color), classes)
