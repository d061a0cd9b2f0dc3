"""What the generators of dreams have in common: their configuration, and what images and features are to them.

    encode          what is kept of an experience -> values (batch, values)
    log_likelihood  of values, given what a decoder says
    dream           what a decoder says -> a dream

Formulas and sources are in generators.py.
"""

from __future__ import annotations

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig

from sleepkit.vision.incremental.generative_classifier import bernoulli

__all__ = ["BATCH", "DreamGeneratorConfig", "Features", "Pixels", "by_class", "form_of", "size_of", "with_class"]

BATCH = 1024  # rows at once, where nothing is learned


@strict
class DreamGeneratorConfig(PreTrainedConfig):
    """Configuration of a dream generator: what it dreams, and the shapes of its networks.

    Attributes:
        kind: one of `GENERATORS`.
        labels: classes of the data set that it dreams, in the order of their places.
        num_channels, image_size: of the images.
        features: size of feature vectors, which it dreams instead of images; 0: images.
        hidden: units of a hidden layer, or channels of the widest convolution.
        latent: size of the latent vector, or directions of a Gaussian.
        components: Gaussians of a class.
    """

    model_type = "sleepkit_dream_generator"

    kind: str = "vae"
    labels: list[int] | tuple[int, ...] = (0,)
    num_channels: int = 1
    image_size: list[int] | tuple[int, ...] = (28, 28)
    features: int = 0
    hidden: int = 200
    latent: int = 10
    components: int = 1


class Pixels(nn.Module):
    """The form of images: values in [0, 1], Bernoulli distributed."""

    noise = 0  # random numbers that a dream takes besides the latents

    def fit(self, values: Tensor) -> None:
        """Do nothing: pixels need no statistics."""

    def encode(self, pixels: Tensor) -> Tensor:
        """uint8 images -> ``(batch, values)``."""
        return (pixels / 255).flatten(1)

    def log_likelihood(self, x: Tensor, decoded: Tensor) -> Tensor:
        """Return the log-likelihood of each image, ``(batch,)`` nats."""
        return bernoulli(x, decoded)

    def dream(self, decoded: Tensor, noise: Tensor, places: Tensor) -> Tensor:
        """Return the mean of each distribution."""
        return torch.sigmoid(decoded)


class Features(nn.Module):
    """Form of feature vectors: standardised by mean and deviation of the training rows; Gaussian.

    Args:
        size: of a vector.
        spreads: how many deviations of each feature there are, around what is decoded: one for each class or component.
    """

    mean: Tensor
    deviation: Tensor
    spread: Tensor

    def __init__(self, size: int, spreads: int) -> None:
        super().__init__()
        self.noise = size
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.register_buffer("spread", torch.ones(spreads, size))

    def fit(self, values: Tensor) -> None:
        """Take mean and deviation of training rows ``(n, features)``."""
        values = values.float()
        self.mean.copy_(values.mean(0))
        self.deviation.copy_(values.std(0).clamp(min=1e-3))

    def encode(self, features: Tensor) -> Tensor:
        """Return features ``(batch, features)``, standardised."""
        return (features - self.mean) / self.deviation

    def settle(self, x: Tensor, decoded: Tensor, places: Tensor) -> None:
        """Fit the deviation of each place's features from what is decoded; a place without rows keeps 1."""
        for place in places.unique():
            self.spread[place] = ((x - decoded)[places == place] ** 2).mean(0).sqrt()

    def log_likelihood(self, x: Tensor, decoded: Tensor) -> Tensor:
        """Return log-likelihoods ``(batch,)``, up to a constant."""
        squares = (x - decoded) ** 2
        variance = squares.detach().mean().clamp(min=1e-4)
        return -0.5 * (squares / variance + variance.log()).sum(1)

    def dream(self, decoded: Tensor, noise: Tensor, places: Tensor) -> Tensor:
        """Draw feature vectors ``(batch, features)`` from the Gaussian around each decoded one."""
        return (decoded + self.spread[places] * noise) * self.deviation + self.mean


def form_of(config: DreamGeneratorConfig) -> Pixels | Features:
    """Return the form of what a generator dreams."""
    return Features(config.features, len(config.labels)) if config.features else Pixels()


def size_of(config: DreamGeneratorConfig) -> int:
    """Number of values of a dream."""
    height, width = config.image_size
    return config.features or config.num_channels * height * width


def with_class(x: Tensor, places: Tensor, classes: int) -> Tensor:
    """``(n, values + classes)``, with the class as one-hot."""
    return torch.cat([x, F.one_hot(places, classes).to(x.dtype)], dim=1)


def by_class(nets: nn.ModuleList, x: Tensor, places: Tensor) -> Tensor:
    """Each row through the net of its class, in the order of the rows."""
    order = torch.argsort(places, stable=True)
    counts = torch.bincount(places, minlength=len(nets)).tolist()
    found = torch.cat([net(part) for net, part in zip(nets, x[order].split(counts), strict=True)])
    return found[torch.argsort(order)]
