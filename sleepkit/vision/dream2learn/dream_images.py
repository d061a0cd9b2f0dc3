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
from sleepkit.utils.ranks import of_rows
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

    def __call__(self, dreams: Sequence[Dream], gallery: Gallery, count: int, seeds: Sequence[int]) -> list[Tensor]:
        """Return ``count`` images of each dream, ``(count, channels, height, width)`` uint8; each dream has a seed."""
        images = [gallery.some(dream.source, count, seed) for dream, seed in zip(dreams, seeds, strict=True)]
        vectors = [dream.vectors.expand(count, -1, -1) for dream in dreams]
        noise = [derive_seed(seed, "noise", place) for seed in seeds for place in range(count)]
        common = [dream.number for dream in dreams for _ in range(count)]
        return list(self.painted(torch.cat(images), torch.cat(vectors), noise, common).split(count))

    @torch.no_grad()
    def painted(self, images: Tensor, vectors: Tensor, seeds: Sequence[int], common: Sequence[int]) -> Tensor:
        """Regenerate images, each process its share, so that all have all; call it on all.

        Args:
            images: ``(n, channels, height, width)``.
            vectors: the prompt of each, ``(n, vectors, token size)``.
            seeds: of the noise of each.
            common: of the noise that those share which have the same one.
        """
        painter = self.painter
        assert painter is not None

        def paint(rows: Tensor) -> Tensor:
            places = rows.tolist()
            own, shared = [seeds[place] for place in places], [common[place] for place in places]
            latents = painter.encode(images[rows])
            return painter.paint(latents, vectors[rows].to(painter.device), own, images.shape[-1], shared).cpu()

        return as_bytes(of_rows(paint, torch.arange(len(images)), self.batch))

    @torch.no_grad()
    def regenerated(self, images: Tensor) -> Tensor:
        """Images as the generator's autoencoder gives them back, with no noise in between; call it on all processes."""
        assert self.painter is not None
        painter, size = self.painter, images.shape[-1]
        return as_bytes(of_rows(lambda part: painter.decode(painter.encode(part), size).cpu(), images, self.batch))
