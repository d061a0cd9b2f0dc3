"""A dream's images: images of its source, with noise, denoised under its prompt.

They depend on the dream, the gallery and a seed, and are the same however many are painted at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sleepkit.errors import SleepkitError
from sleepkit.utils.seeds import derive_seed
from sleepkit.vision.data.image_data import ImageData, as_bytes
from sleepkit.vision.data.images import load_images
from sleepkit.vision.dream2learn.painter import DreamPainter
from sleepkit.vision.dream2learn.soft_prompt import Dream

__all__ = ["DreamImages", "Gallery", "load_others", "require_others"]


@functools.lru_cache(maxsize=1)
def load_others(dataset: str) -> ImageData:
    """Images of classes that no stream has, read once for dreams and judge."""
    return load_images(dataset)


def require_others(dataset: str, shape: Sequence[int]) -> None:
    """Raise `SleepkitError` unless a data set can be read and its images are ``(channels, height, width)``."""
    found = load_others(dataset).train.pixels.shape[1:]
    if tuple(found) != tuple(shape):
        forms = " and those of the stream ".join(" x ".join(map(str, one)) for one in (found, shape))
        raise SleepkitError(
            f"images of others_dataset {dataset} are {forms} (channels, height, width); give ones of the same form"
        )


class Gallery:
    """Images of seen classes, from the replay buffer: ``pixels`` (n, channels, height, width) uint8, ``labels`` (n,)."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels = pixels.cpu(), labels.cpu()

    def some(self, label: int, count: int, seed: int) -> Tensor:
        """``count`` images of a class, in an order of the seed, again and again if there are fewer.

        Raises:
            SleepkitError: there is none.
        """
        own = (self.labels == label).nonzero().flatten()
        if not len(own):
            raise SleepkitError(
                f"the replay buffer has no image of class {label}, from which dreams start; use buffer_policy class_balanced "
                "or a greater buffer_size"
            )
        order = np.random.default_rng(seed).permutation(len(own))
        return self.pixels[own[[order[place % len(own)] for place in range(count)]]]


class DreamImages:
    """Paint a dream's images: images of its source, with noise, denoised under its prompt.

    Args:
        painter: of the generator; None where there are no dreams.
        batch: images that are painted at a time.
    """

    def __init__(self, painter: DreamPainter | None, batch: int) -> None:
        self.painter, self.batch = painter, batch

    def __call__(self, dream: Dream, gallery: Gallery, count: int, seed: int) -> Tensor:
        """Return ``count`` images of a dream, ``(count, channels, height, width)`` uint8."""
        images = gallery.some(dream.source, count, seed)
        return self.painted(images, dream.vectors.expand(count, -1, -1), seed, dream.number)

    @torch.no_grad()
    def painted(self, images: Tensor, vectors: Tensor, seed: int, common: int, same_noise: bool = False) -> Tensor:
        """Regenerate images, each under its prompt ``(n, vectors, token size)``; ``common`` seeds the noise that they share."""
        assert self.painter is not None
        found = []
        for rows in torch.arange(len(images)).split(self.batch):
            latents = self.painter.encode(images[rows])
            seeds = [derive_seed(seed, "noise", 0 if same_noise else place) for place in rows.tolist()]
            own = vectors[rows].to(self.painter.device)
            found.append(self.painter.paint(latents, own, seeds, images.shape[-1], [common] * len(seeds)).cpu())
        return as_bytes(torch.cat(found))

    @torch.no_grad()
    def regenerated(self, images: Tensor) -> Tensor:
        """Images as the generator's autoencoder gives them back, with no noise in between."""
        assert self.painter is not None
        painter, size = self.painter, images.shape[-1]
        return as_bytes(torch.cat([painter.decode(painter.encode(part), size).cpu() for part in images.split(self.batch)]))
