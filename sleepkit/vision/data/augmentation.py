"""Random changes of training images, on whole batches, by kornia.

    none           images as they are
    crop           4 pixels of black around, then a random crop of the old size
    crop_flip      the same, and half of the images mirrored
    affine         turned by up to 15 degrees, moved by up to 10 %, scaled by 0.9 to 1.1

Each image of a batch draws its own numbers from torch's generator, which the trainer seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sleepkit.errors import SleepkitError

__all__ = ["AUGMENTATIONS", "augmentation"]

AUGMENTATIONS = ("none", "crop", "crop_flip", "affine")


def augmentation(name: str, height: int, width: int) -> Callable[[Tensor], Tensor] | None:
    """uint8 or float images ``(batch, channels, height, width)`` -> float in [0, 1]; None for "none".

    Raises:
        SleepkitError: unknown name, or kornia is not installed.
    """
    if name not in AUGMENTATIONS:
        raise SleepkitError(f"augmentation is {name!r}; use one of {', '.join(AUGMENTATIONS)}")
    if name == "none":
        return None
    try:
        from kornia import augmentation as kornia
    except ImportError:
        raise SleepkitError(f"augmentation is {name!r}, which needs kornia; install sleepkit[vision] or use 'none'") from None
    if name == "affine":
        steps: list[Any] = [kornia.RandomAffine(15.0, (0.1, 0.1), (0.9, 1.1), p=1.0)]
    else:
        steps = [kornia.RandomCrop((height, width), padding=4)]
    if name == "crop_flip":
        steps.append(kornia.RandomHorizontalFlip())
    changes = kornia.AugmentationSequential(*steps, data_keys=["input"])

    def apply(pixels: Tensor) -> Tensor:
        return changes(pixels / 255 if not pixels.is_floating_point() else pixels)

    return apply
