"""Labelled images in memory, and the splits of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ImageData", "Images", "as_bytes"]


class Images(NamedTuple):
    """``pixels`` uint8 (N, channels, height, width) or float (N, size), ``labels`` int64 (N,), ids that count from 0."""

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ImageData:
    """Three splits with the same classes, channels and size; ``names[label]`` is the name of a class."""

    train: Images
    validation: Images
    test: Images
    names: list[str]


def as_bytes(images: Tensor) -> Tensor:
    """Images from 0 to 1 as uint8, rounded."""
    return (images.clamp(0, 1) * 255).round_().to(torch.uint8)
