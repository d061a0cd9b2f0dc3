"""Generators of images or features from latents: variational autoencoders, and Gaussians that are fitted in closed form.

Formulas and sources are in generators.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sleepkit.vision.incremental.generative_classifier import ClassVae, divergence_from_normal, drawn
from sleepkit.vision.mygo.generator_forms import BATCH, DreamGeneratorConfig, Features, by_class, form_of, size_of, with_class

__all__ = ["ClassMixtures", "ConditionalVae", "VaePerClass"]


class VaePerClass(nn.Module):
    """A VAE for each class, ``vae`` in generators.py."""

    def __init__(self, config: DreamGeneratorConfig) -> None:
        super().__init__()
        self.form = form_of(config)
        sizes = (size_of(config), config.hidden, config.latent)
        vaes = [ClassVae(*sizes) for _ in config.labels]
        self.encoder = nn.ModuleList(vae.encoder for vae in vaes)
        self.decoder = nn.ModuleList(vae.decoder for vae in vaes)
        self.latents = ClassGaussians(len(config.labels), config.latent)

    @property
    def draws(self) -> int:
        """Random numbers that a dream takes."""
        return self.latents.mean.shape[1] + self.form.noise

    def encode(self, x: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, ``(batch, latent)`` each."""
        mean, log_variance = by_class(self.encoder, x, places).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: Tensor, places: Tensor) -> Tensor:
        """Logits of pixels, or means of features, ``(batch, values)``."""
        return by_class(self.decoder, z, places)

    def loss(self, x: Tensor, places: Tensor) -> Tensor:
        """Minus the evidence lower bound, nats per image."""
        mean, log_variance = self.encode(x, places)
        decoded = self.decode(drawn(mean, log_variance), places)
        return (divergence_from_normal(mean, log_variance) - self.form.log_likelihood(x, decoded)).mean()

    def settle(self, x: Tensor, places: Tensor) -> None:
        """Fit the Gaussians of each class."""
        parts = [self.encode(*batch) for batch in zip(x.split(BATCH), places.split(BATCH), strict=True)]
        means, log_variances = (torch.cat(part) for part in zip(*parts, strict=True))
        self.latents.fit(means, log_variances, places)
        if isinstance(self.form, Features):
            latents = means + (0.5 * log_variances).exp() * torch.randn_like(means)  # all processes settle the same rows
            self.form.settle(x, self.decode(latents, places), places)

    def dream(self, noise: Tensor, places: Tensor) -> Tensor:
        """Pixels in [0, 1], or features; ``noise`` is (n, draws)."""
        for_latents, noise = noise.split([noise.shape[1] - self.form.noise, self.form.noise], dim=1)
        return self.form.dream(self.decode(self.latents(for_latents, places), places), noise, places)


class ConditionalVae(VaePerClass):
    """Conditional variational autoencoder: one that is told the class, ``cvae`` in generators.py."""

    def __init__(self, config: DreamGeneratorConfig) -> None:
        nn.Module.__init__(self)
        self.form = form_of(config)
        self.classes, size = len(config.labels), size_of(config)
        vae = ClassVae(size, config.hidden, config.latent)
        vae.encoder[0] = nn.Linear(size + self.classes, config.hidden)
        vae.decoder[0] = nn.Linear(config.latent + self.classes, config.hidden)
        self.encoder, self.decoder = vae.encoder, vae.decoder  # type: ignore[assignment]
        self.latents = ClassGaussians(self.classes, config.latent)

    def encode(self, x: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(with_class(x, places, self.classes)).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: Tensor, places: Tensor) -> Tensor:
        found: Tensor = self.decoder(with_class(z, places, self.classes))
        return found


class ClassGaussians(nn.Module):
    """``z = mean + factor noise`` for each class; the factor is a Cholesky factor of the covariance."""

    mean: Tensor
    factor: Tensor

    def __init__(self, classes: int, latent: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(classes, latent))
        self.register_buffer("factor", torch.eye(latent).repeat(classes, 1, 1))

    def forward(self, noise: Tensor, places: Tensor) -> Tensor:
        """Return latent vectors ``(n, latent)``."""
        return _gaussian(self.mean, self.factor, noise, places)

    def fit(self, means: Tensor, log_variances: Tensor, places: Tensor) -> None:
        """Fit the Gaussians to posteriors ``(images, latent)``; a class of fewer than two images keeps N(0, I)."""
        for place in range(len(self.mean)):
            own, variances = means[places == place].double(), log_variances[places == place].double().exp()
            if len(own) > 1:
                self.mean[place] = own.mean(0)
                self.factor[place] = torch.linalg.cholesky(torch.cov(own.T) + torch.diag(variances.mean(0)))


def _gaussian(mean: Tensor, factor: Tensor, noise: Tensor, places: Tensor) -> Tensor:
    """``mean + factor noise`` at ``places``: ``(n, size)``, of ``noise`` (n, directions)."""
    return mean[places] + (factor[places] @ noise[:, :, None]).squeeze(2)


class ClassMixtures(nn.Module):
    """A Gaussian mixture for each class, ``gaussian`` in generators.py."""

    def __init__(self, config: DreamGeneratorConfig) -> None:
        super().__init__()
        classes, self.components, self.latent = len(config.labels), config.components, config.latent
        count, size = classes * config.components, config.features
        self.form = Features(size, count)
        self.draws = 1 + config.latent + self.form.noise
        self.share = _fitted(torch.full((classes, config.components), 1 / config.components))
        self.mean = _fitted(torch.zeros(count, size))
        self.factor = _fitted(torch.zeros(count, size, config.latent))

    def settle(self, x: Tensor, places: Tensor) -> None:
        """Fit the mixture of each class; a class without rows stays as it is, a component without rows is never drawn."""
        own = torch.zeros_like(places)
        for place in places.unique():
            rows = (places == place).nonzero().flatten()
            which = _clusters(x[rows], self.components)
            self.share[place] = which.bincount(minlength=self.components) / len(rows)
            own[rows] = place * self.components + which
        decoded = torch.empty_like(x)
        for one in own.unique():
            rows = (own == one).nonzero().flatten()
            mean = x[rows].mean(0)
            _, sizes, directions = torch.pca_lowrank(x[rows], min(self.latent, len(rows), x.shape[1]))
            largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
            directions = directions * largest.sign()  # which of two signs an SVD gives hangs on the last bit
            self.mean[one] = mean
            self.factor[one, :, : len(sizes)] = directions * sizes / max(1, len(rows) - 1) ** 0.5
            decoded[rows] = mean + (x[rows] - mean) @ directions @ directions.T
        self.form.settle(x, decoded, own)

    def dream(self, noise: Tensor, places: Tensor) -> Tensor:
        """Features; ``noise`` is (n, draws): for the choice of a component, for its directions, for each feature."""
        for_component, for_factor, noise = noise.split([1, self.latent, self.form.noise], dim=1)
        below = self.share.cumsum(1)[places] < torch.special.ndtr(for_component)
        component = below.sum(1).clamp(max=self.components - 1)
        own = places * self.components + component
        return self.form.dream(_gaussian(self.mean, self.factor, for_factor, own), noise, own)


def _fitted(values: Tensor) -> nn.Parameter:
    """What no gradient changes; not a buffer, as a `PreTrainedModel` finds its device by its parameters."""
    return nn.Parameter(values, requires_grad=False)


def _clusters(rows: Tensor, count: int, rounds: int = 10) -> Tensor:
    """Which of ``count`` clusters each row ``(n, features)`` is in, ``(n,)``: k-means from rows that torch draws."""
    centres = rows[torch.randperm(len(rows))[:count]]
    for _ in range(rounds):
        which = torch.cdist(rows, centres).argmin(1)
        for one in which.unique():
            centres[one] = rows[which == one].mean(0)
    return which
