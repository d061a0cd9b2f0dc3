"""Generative classifier: one variational autoencoder per class, and the class under which an image is most likely.

    log p(x | y) ~ log 1/S sum_s p(x | z_s) p(z_s) / q(z_s | x),   z_s ~ q(z | x),   all of the VAE of class y

A class' VAE sees its images only, so nothing is forgotten and no two classes compete in training.  Source: van de Ven, Li &
Tolias 2021 (arXiv 2104.10093).  One hidden layer each way, Gaussian latent, Bernoulli pixels; sizes are ours.  The classifier's
own backbone and head stay as they are and are not used; the VAEs are in the learner's `extras`, and their bytes are counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sleepkit.errors import SleepkitError
from sleepkit.utils.ranks import own_draws
from sleepkit.vision.data.streams import ImageExperience
from sleepkit.vision.incremental.classifier import IncrementalClassifier
from sleepkit.vision.incremental.config import IncrementalTrainingConfig
from sleepkit.vision.incremental.learner import ImageLearner
from sleepkit.vision.incremental.trainer import IncrementalTrainer

__all__ = ["ClassVae", "GenerativeClassifier", "bernoulli", "divergence_from_normal", "drawn"]


class ClassVae(nn.Module):
    """A variational autoencoder of one class, of rows ``(batch, pixels)`` in [0, 1]."""

    def __init__(self, pixels: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, pixels))

    def loss(self, x: Tensor) -> Tensor:
        """Return minus the evidence lower bound of each row, ``(batch,)``, nats."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return divergence_from_normal(mean, log_variance) - bernoulli(x, self.decoder(drawn(mean, log_variance)))

    def log_likelihood(self, x: Tensor, samples: int, noise: Tensor) -> Tensor:
        """``(batch,)``: importance-sampled log p(x); ``noise`` is ``(samples, 1, latent)``, the same for all images."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + (0.5 * log_variance).exp() * noise  # (samples, batch, latent)
        ratio = 0.5 * (noise**2 + log_variance - z**2).sum(2)  # log p(z) - log q(z | x)
        return torch.logsumexp(bernoulli(x, self.decoder(z)) + ratio, dim=0) - math.log(samples)


class ClassVaes(nn.Module):
    """The VAEs of tonight's classes, by unit."""

    def __init__(self, vaes: dict[int, ClassVae]) -> None:
        super().__init__()
        self.of_unit = nn.ModuleDict({str(unit): vae for unit, vae in vaes.items()})

    def forward(self, pixel_values: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over the images, each under its own class."""
        x = (pixel_values / 255).flatten(1)
        losses = [vae.loss(x[labels == int(unit)]) for unit, vae in self.of_unit.items()]  # type: ignore[operator]
        return torch.cat(losses).mean()


class GenerativeClassifier(ImageLearner):
    """Classify an image by the class whose variational autoencoder finds it most likely; each class has one of its own.

    Raises:
        SleepkitError: the stream has features in place of images.
    """

    def __init__(
        self, model: IncrementalClassifier, config: IncrementalTrainingConfig, stream: Sequence[ImageExperience]
    ) -> None:
        super().__init__(model, config, stream)
        if self.today.train.source.pixels.dim() == 2:
            raise SleepkitError("method 'generative' has VAEs of images and the data are features; use another one")

    def train(self, folder: Path) -> dict[str, Any]:
        """Train a VAE for each class of today; in a domain stream the old ones go on."""
        rows = self.training_rows()
        units = rows.labels.unique().tolist()
        known = self.vaes()
        vaes = ClassVaes({unit: known.get(unit) or self.new_vae() for unit in units}).to(self.model.device)
        trainer = IncrementalTrainer(vaes, self.loss, self.config, rows, self.night_seed, folder, what=f"night {self.night}")
        log = trainer.run()
        for name, values in vaes.of_unit.state_dict().items():
            self.extras[name] = values.detach()
        return log

    def loss(self, model: nn.Module, pixels: Tensor, units: Tensor, step: int) -> Tensor:
        """Return minus the evidence lower bound, the mean over the images."""
        self.images_passed += len(pixels)
        return model(pixels, units)

    def new_vae(self) -> ClassVae:
        """Return a VAE with random weights."""
        image = self.today.train.source.pixels[0]
        return ClassVae(image.numel(), self.config.vae_hidden, self.config.vae_latent)

    def vaes(self) -> dict[int, ClassVae]:
        """Return the VAEs of all classes so far by unit, from `extras`."""
        found = {}
        for unit in self.numbered():
            found[unit] = self.new_vae().to(self.model.device)
            found[unit].load_state_dict(self.extras_of(unit))
        return found

    def logits(self, pixels: Tensor) -> Tensor:
        """Log-likelihood under each class; minus infinity where there is no VAE."""
        x = (pixels / 255).flatten(1)
        samples = self.config.vae_samples
        noise = torch.randn(samples, 1, self.config.vae_latent, generator=torch.Generator().manual_seed(0)).to(x.device)
        found = torch.full((len(x), len(self.model.slots)), float("-inf"), device=x.device)
        for unit, vae in self.vaes().items():
            found[:, unit] = vae.log_likelihood(x, samples, noise)
        return found

    def flops_per_image(self) -> int:
        """Floating point operations of one image in one VAE, forward."""
        return 2 * sum(parameter.numel() for parameter in self.new_vae().parameters() if parameter.dim() == 2)


def drawn(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Latents of Gaussian posteriors of this process's items in a step, ``(batch, latent)``."""
    noise = own_draws(lambda count: torch.randn(count, *mean.shape[1:], dtype=mean.dtype, device=mean.device), len(mean))
    return mean + (0.5 * log_variance).exp() * noise


def divergence_from_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """``KL(N(mean, variance) || N(0, I))``, ``(batch,)`` in nats."""
    return 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(1)


def bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """Log-likelihood of pixels in [0, 1], summed over the last axis; ``logits`` may have further axes in front."""
    return -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
