"""What a dream's images are: repainted by its prompt, or what controls put in their place.

    prompt       images of the source, with noise, denoised under the dream's prompt
    relabelled   the same; the learner gives them the unit of the dream's target
    mixup        means of an image of the source and one of the target
    noise        a pattern of the dream's own, with noise
    auxiliary    real images of a class that no stream has, another one for each dream

Images depend on the dream, the gallery and a seed, and are the same however many are painted at a time.

Source: the controls ask what each part of Dream2Learn brings; all of them are ours.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sleepkit.errors import SleepkitError
from sleepkit.utils.seeds import derive_seed
from sleepkit.vision.data.image_data import ImageData, Images, as_bytes
from sleepkit.vision.data.images import load_images
from sleepkit.vision.dream2learn.painter import DreamPainter
from sleepkit.vision.dream2learn.soft_prompt import Dream

__all__ = ["KINDS", "PAINTED", "DreamImages", "Gallery", "load_others", "require_others"]

KINDS = ("prompt", "relabelled", "mixup", "noise", "auxiliary")
PAINTED = ("prompt", "relabelled")  # which have prompts, and a generator
NOISE = 40


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
    """Images of seen classes, from the replay memory: ``pixels`` (n, channels, height, width) uint8, ``labels`` (n,)."""

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
                f"the replay memory has no image of class {label}, from which dreams start; use buffer_policy class_balanced "
                "or a greater buffer_size"
            )
        order = np.random.default_rng(seed).permutation(len(own))
        return self.pixels[own[[order[place % len(own)] for place in range(count)]]]


class DreamImages:
    """See the module.

    Args:
        kind: one of `KINDS`.
        painter: None where dreams have no prompts.
        others: as `load_images` takes it, for "auxiliary".
        batch: images that are painted at a time.
    """

    def __init__(self, kind: str, painter: DreamPainter | None, others: str | None, batch: int) -> None:
        self.kind, self.painter, self.batch = kind, painter, batch
        self.others: Images | None = load_others(others).train if kind == "auxiliary" and others else None

    def __call__(self, dream: Dream, gallery: Gallery, count: int, seed: int) -> Tensor:
        """``(count, channels, height, width)`` uint8."""
        if self.others is not None:
            classes = int(self.others.labels.max()) + 1
            label = np.random.default_rng(dream.number).integers(classes)
            return Gallery(*self.others).some(int(label), count, seed)
        images = gallery.some(dream.source, count, seed)
        if self.kind == "mixup":
            return ((images.int() + gallery.some(dream.target, count, derive_seed(seed, "target")).int()) // 2).to(torch.uint8)
        if self.kind == "noise":
            own = torch.randint(256, images.shape[1:], generator=torch.Generator().manual_seed(dream.number))
            noise = torch.randint(-NOISE, NOISE + 1, images.shape, generator=torch.Generator().manual_seed(seed))
            return (own + noise).clamp(0, 255).to(torch.uint8)
        return self.painted(images, dream.vectors.expand(count, -1, -1), seed, dream.number)

    @torch.no_grad()
    def painted(self, images: Tensor, vectors: Tensor, seed: int, common: int, same_noise: bool = False) -> Tensor:
        """Images repainted, each by its own prompt ``(n, vectors, token size)``; ``common`` seeds the noise that they share."""
        assert self.painter is not None
        found = []
        for rows in torch.arange(len(images)).split(self.batch):
            latents = self.painter.encode(images[rows])
            seeds = [derive_seed(seed, "noise", 0 if same_noise else place) for place in rows.tolist()]
            own = vectors[rows].to(self.painter.device)
            found.append(self.painter.paint(latents, own, seeds, images.shape[-1], [common] * len(seeds)).cpu())
        return as_bytes(torch.cat(found))

    @torch.no_grad()
    def repainted(self, images: Tensor) -> Tensor:
        """Images as the generator's autoencoder gives them back, with no noise in between."""
        assert self.painter is not None
        painter, size = self.painter, images.shape[-1]
        return as_bytes(torch.cat([painter.decode(painter.encode(part), size).cpu() for part in images.split(self.batch)]))
