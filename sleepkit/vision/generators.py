"""Generators of dreams: what is kept of an experience instead of its images.

    of images or features
    vae        one variational autoencoder per class                       -E_q log p(x | z, y) + KL(q(z | x, y) || N(0, I))
    cvae       one for all classes of the experience, the class given to encoder and decoder           the same loss
    of images
    cgan       one hidden layer each way, the class given to both (the published MyGO)             non-saturating, with logits
    conv_cgan  the same with convolutions, and spectral normalisation in the discriminator (Miyato et al. 2018)
    diffusion  a small UNet of diffusers, the class given to it; dreams by DDIM                         squared error of v
    of features
    gaussian   a mixture of Gaussians per class, each of few directions and a variance of each feature     fitted, not trained

    loss    pixels (batch, channels, height, width) uint8, places (batch,) of classes      -> a number
    dream   places (n,)                                                                    -> pixels (n, ...) uint8

Features (batch, features) are those of a frozen backbone.  There the VAEs' p(x | z, y) is not Bernoulli but Gaussian: in training
with the variance that is best for the batch (Rybkin et al. 2021), for dreams with one for each class and feature, which `settle`
fits.  A dream is a draw from it, not its mean: means would make a classifier too sure.

A class' latents are drawn from a Gaussian of its own, fitted by `settle` to the encoder's posteriors over the training images
(mean of means, covariance of means + mean variance): the prior N(0, I) would also be drawn where no image ever was.

A GAN is one module with one loss, so that one optimizer and one backward pass do for both halves: the discriminator
sees dreams without their graph, and the generator sees the discriminator's weights without theirs.

Sources: Kingma & Welling 2014; Goodfellow et al. 2014; Cotix-AI/MyGO for the sizes of `cgan`; Tipping & Bishop 1999 for the
mixture, here of clusters (k-means) and their principal directions; Song et al. 2021 (DDIM), Salimans & Ho 2022 (v).  Ours: the
fitted Gaussians, and keeping in float16 only what dreams need (`kept`); VAEs of features.  Left out: GANs of features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from transformers import PreTrainedConfig, PreTrainedModel

from sleepkit.vision.denoising import velocity_loss
from sleepkit.vision.generative_classifier import ClassVae, bernoulli, divergence_from_normal, drawn
from sleepkit.vision.images import as_bytes

__all__ = ["GENERATORS", "OF_SPACE", "DreamGenerator", "DreamGeneratorConfig"]

TRAINING_ONLY = ("encoder", "discriminator")  # parts that no dream needs
BATCH = 1024  # images at once, where nothing is learned
DIFFUSION_STEPS = 10  # of a dream


@strict
class DreamGeneratorConfig(PreTrainedConfig):
    """Shape of a generator.

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
    """Of images: values in [0, 1], Bernoulli."""

    noise = 0  # random numbers that a dream takes besides the latents

    def fit(self, values: Tensor) -> None:
        """Nothing."""

    def encode(self, pixels: Tensor) -> Tensor:
        """uint8 images -> ``(batch, values)``."""
        return (pixels / 255).flatten(1)

    def log_likelihood(self, x: Tensor, decoded: Tensor) -> Tensor:
        """``(batch,)``."""
        return bernoulli(x, decoded)

    def dream(self, decoded: Tensor, noise: Tensor, places: Tensor) -> Tensor:
        """The mean."""
        return torch.sigmoid(decoded)


class Features(nn.Module):
    """Of feature vectors: standardised by mean and deviation of the training rows; Gaussian.

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
        """To training rows ``(n, features)``."""
        values = values.float()
        self.mean.copy_(values.mean(0))
        self.deviation.copy_(values.std(0).clamp(min=1e-3))

    def encode(self, features: Tensor) -> Tensor:
        """``(batch, features)``, standardised."""
        return (features - self.mean) / self.deviation

    def settle(self, x: Tensor, decoded: Tensor, places: Tensor) -> None:
        """Fit the deviation of each place's features from what is decoded; a place without rows keeps 1."""
        for place in places.unique():
            self.spread[place] = ((x - decoded)[places == place] ** 2).mean(0).sqrt()

    def log_likelihood(self, x: Tensor, decoded: Tensor) -> Tensor:
        """``(batch,)``, but for a constant."""
        squares = (x - decoded) ** 2
        variance = squares.detach().mean().clamp(min=1e-4)
        return -0.5 * (squares / variance + variance.log()).sum(1)

    def dream(self, decoded: Tensor, noise: Tensor, places: Tensor) -> Tensor:
        """A draw."""
        return (decoded + self.spread[places] * noise) * self.deviation + self.mean


class ClassVaes(nn.Module):
    """``vae``: see the module."""

    def __init__(self, config: DreamGeneratorConfig) -> None:
        super().__init__()
        self.form = _form(config)
        sizes = (_size(config), config.hidden, config.latent)
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
        mean, log_variance = _by_class(self.encoder, x, places).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: Tensor, places: Tensor) -> Tensor:
        """Logits of pixels, or means of features, ``(batch, values)``."""
        return _by_class(self.decoder, z, places)

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
            self.form.settle(x, self.decode(drawn(means, log_variances), places), places)

    def dream(self, noise: Tensor, places: Tensor) -> Tensor:
        """Pixels in [0, 1], or features; ``noise`` is (n, draws)."""
        for_latents, noise = noise.split([noise.shape[1] - self.form.noise, self.form.noise], dim=1)
        return self.form.dream(self.decode(self.latents(for_latents, places), places), noise, places)


class ConditionalVae(ClassVaes):
    """``cvae``: see the module."""

    def __init__(self, config: DreamGeneratorConfig) -> None:
        nn.Module.__init__(self)
        self.form = _form(config)
        self.classes, size = len(config.labels), _size(config)
        vae = ClassVae(size, config.hidden, config.latent)
        vae.encoder[0] = nn.Linear(size + self.classes, config.hidden)
        vae.decoder[0] = nn.Linear(config.latent + self.classes, config.hidden)
        self.encoder, self.decoder = vae.encoder, vae.decoder  # type: ignore[assignment]
        self.latents = ClassGaussians(self.classes, config.latent)

    def encode(self, x: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(_with_class(x, places, self.classes)).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: Tensor, places: Tensor) -> Tensor:
        found: Tensor = self.decoder(_with_class(z, places, self.classes))
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
        """``(n, latent)``."""
        return _gaussian(self.mean, self.factor, noise, places)

    def fit(self, means: Tensor, log_variances: Tensor, places: Tensor) -> None:
        """To posteriors ``(images, latent)``; a class of fewer than two images keeps N(0, I)."""
        for place in range(len(self.mean)):
            own, variances = means[places == place].double(), log_variances[places == place].double().exp()
            if len(own) > 1:
                self.mean[place] = own.mean(0)
                self.factor[place] = torch.linalg.cholesky(torch.cov(own.T) + torch.diag(variances.mean(0)))


def _gaussian(mean: Tensor, factor: Tensor, noise: Tensor, places: Tensor) -> Tensor:
    """``mean + factor noise`` at ``places``: ``(n, size)``, of ``noise`` (n, directions)."""
    return mean[places] + (factor[places] @ noise[:, :, None]).squeeze(2)


class ClassMixtures(nn.Module):
    """``gaussian``: see the module."""

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


class ConditionalGan(nn.Module):
    """``cgan``: see the module."""

    def __init__(self, config: DreamGeneratorConfig) -> None:
        super().__init__()
        self.form, self.draws = Pixels(), config.latent
        self.classes, self.latent, self.shape = len(config.labels), config.latent, (config.num_channels, *config.image_size)
        self.decoder, self.discriminator = self.halves(config)

    def halves(self, config: DreamGeneratorConfig) -> tuple[nn.Module, nn.Module]:
        """Generator ``(n, latent + classes)`` -> pixels in [-1, 1]; discriminator ``(n, pixels + classes)`` -> ``(n, 1)``."""
        pixels, hidden = _size(config), config.hidden
        generator = nn.Sequential(nn.Linear(self.latent + self.classes, hidden), nn.ReLU(), nn.Linear(hidden, pixels), nn.Tanh())
        judge = nn.Sequential(nn.Linear(pixels + self.classes, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1))
        return generator, judge

    def loss(self, x: Tensor, places: Tensor) -> Tensor:
        """The discriminator's cross-entropy plus the generator's."""
        noise = torch.randn(len(x), self.latent, device=x.device)
        dreams = self.decoder(_with_class(noise, places, self.classes))
        seen = [_with_class(images, places, self.classes) for images in (2 * x - 1, dreams.detach(), dreams)]
        real, fake = self.discriminator(torch.cat(seen[:2])).squeeze(1).chunk(2)
        fixed = {name: values.detach() for name, values in self.discriminator.named_parameters()}
        fooled: Tensor = functional_call(self.discriminator, fixed, (seen[2],)).squeeze(1)
        return F.softplus(-real).mean() + F.softplus(fake).mean() + F.softplus(-fooled).mean()

    def settle(self, x: Tensor, places: Tensor) -> None:
        """Nothing: the noise is the latent."""

    def dream(self, noise: Tensor, places: Tensor) -> Tensor:
        """Pixels in [0, 1]."""
        found: Tensor = self.decoder(_with_class(noise, places, self.classes))
        return (found + 1) / 2


class ConvolutionalGan(ConditionalGan):
    """``conv_cgan``: see the module; two steps of stride 2 each way."""

    def halves(self, config: DreamGeneratorConfig) -> tuple[nn.Module, nn.Module]:
        channels, height, width = self.shape
        small, wide = (-(-height // 4), -(-width // 4)), config.hidden
        generator = nn.Sequential(
            nn.Linear(self.latent + self.classes, wide * small[0] * small[1], bias=False),
            nn.Unflatten(1, (wide, *small)),
            nn.GroupNorm(4, wide),
            nn.ReLU(),
            nn.ConvTranspose2d(wide, wide // 2, 4, stride=2, padding=1, bias=False),
            nn.GroupNorm(4, wide // 2),
            nn.ReLU(),
            nn.ConvTranspose2d(wide // 2, channels, 4, stride=2, padding=1),
            Crop(height, width),
            nn.Flatten(1),
            nn.Tanh(),
        )
        return generator, ProjectionDiscriminator(self.shape, wide, self.classes)


class ProjectionDiscriminator(nn.Module):
    """``v(phi(x)) + <embedding(y), phi(x)>`` (Miyato & Koyama 2018)."""

    def __init__(self, shape: tuple[int, ...], wide: int, classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.shape, self.classes = shape, classes
        self.features = nn.Sequential(
            spectral_norm(nn.Conv2d(channels, wide // 2, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(wide // 2, wide, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            nn.Flatten(1),
        )
        size = wide * (height // 2 // 2) * (width // 2 // 2)
        self.score = spectral_norm(nn.Linear(size, 1))
        self.of_class = spectral_norm(nn.Linear(classes, size, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, pixels + classes)`` -> ``(n, 1)``."""
        images, classes = x.split([x.shape[1] - self.classes, self.classes], dim=1)
        features = self.features(images.unflatten(1, self.shape))
        found: Tensor = self.score(features) + (self.of_class(classes) * features).sum(1, keepdim=True)
        return found


class Crop(nn.Module):
    """The upper left corner, for sizes that 4 does not divide."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, images: Tensor) -> Tensor:
        return images[..., : self.height, : self.width]


class ClassDiffusion(nn.Module):
    """``diffusion``: see the module."""

    def __init__(self, config: DreamGeneratorConfig) -> None:
        from diffusers import DDIMScheduler, UNet2DModel

        super().__init__()
        self.form = Pixels()
        self.shape = (config.num_channels, *config.image_size)
        self.padded = [-(-side // 4) * 4 for side in config.image_size]  # the UNet halves it
        self.draws = config.num_channels * self.padded[0] * self.padded[1]
        self.unet: Any = UNet2DModel(
            sample_size=tuple(self.padded),
            in_channels=config.num_channels,
            out_channels=config.num_channels,
            layers_per_block=1,
            block_out_channels=(config.hidden // 2, config.hidden),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
            add_attention=False,
            num_class_embeds=len(config.labels),
        )
        self.scheduler: Any = DDIMScheduler(
            beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing"
        )

    def loss(self, x: Tensor, places: Tensor) -> Tensor:
        """Of images at a random level of noise each."""
        images = 2 * x.unflatten(1, self.shape) - 1
        images = F.pad(images, (0, self.padded[1] - images.shape[3], 0, self.padded[0] - images.shape[2]), value=-1.0)
        return velocity_loss(self.scheduler, images, lambda noisy, times: self._predict(noisy, times, places))

    def settle(self, x: Tensor, places: Tensor) -> None:
        """Nothing."""

    def dream(self, noise: Tensor, places: Tensor) -> Tensor:
        """Pixels in [0, 1]; ``noise`` is the image to begin with, so that equal noise gives equal dreams."""
        images = noise.unflatten(1, (self.shape[0], *self.padded))
        self.scheduler.set_timesteps(DIFFUSION_STEPS, device=noise.device)
        for time in self.scheduler.timesteps:
            images = self.scheduler.step(self._predict(images, time, places), time, images).prev_sample
        return (images[..., : self.shape[1], : self.shape[2]].flatten(1).clamp(-1, 1) + 1) / 2

    def _predict(self, noisy: Tensor, times: Tensor, places: Tensor) -> Tensor:
        found: Tensor = self.unet(noisy, times, class_labels=places).sample
        return found


GENERATORS: dict[str, type[ClassVaes] | type[ConditionalGan] | type[ClassDiffusion] | type[ClassMixtures]] = {
    "vae": ClassVaes,
    "cvae": ConditionalVae,
    "cgan": ConditionalGan,
    "conv_cgan": ConvolutionalGan,
    "diffusion": ClassDiffusion,
    "gaussian": ClassMixtures,
}
OF_SPACE = {"pixels": ("vae", "cvae", "cgan", "conv_cgan", "diffusion"), "features": ("gaussian", "vae", "cvae")}
"""Which generators dream images, and which dream features."""


class DreamGenerator(PreTrainedModel):
    """A generator of one experience, with `save_pretrained` and `from_pretrained`; see the module."""

    config_class = DreamGeneratorConfig
    main_input_name = "pixel_values"

    def __init__(self, config: DreamGeneratorConfig) -> None:
        super().__init__(config)
        self.net: Any = GENERATORS[config.kind](config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own initialisation stands."""

    @property
    def is_trained(self) -> bool:
        """Whether it has a loss; otherwise `settle` is all."""
        return any(values.requires_grad for values in self.parameters())

    def forward(self, pixel_values: Tensor, places: Tensor, **kwargs: Any) -> Tensor:
        """The loss."""
        loss: Tensor = self.net.loss(self.net.form.encode(pixel_values), places)
        return loss

    @torch.no_grad()
    def prepare(self, pixel_values: Tensor) -> None:
        """Before training: take the scale of features from the training rows."""
        self.net.form.fit(pixel_values.to(self.device))

    @torch.no_grad()
    def settle(self, pixel_values: Tensor, places: Tensor) -> None:
        """Finish training: fit what is fitted in closed form."""
        self.net.settle(self.net.form.encode(pixel_values.to(self.device)), places.to(self.device))

    @torch.no_grad()
    def dream(self, places: Tensor, generator: torch.Generator) -> Tensor:
        """A dream of each place, on the CPU: ``(n, channels, height, width)`` uint8, or ``(n, features)``."""
        noise = torch.randn(len(places), self.net.draws, generator=generator)
        batches = zip(noise.split(BATCH), places.split(BATCH), strict=True)
        values = torch.cat([self.net.dream(z.to(self.device), own.to(self.device)).cpu() for z, own in batches])
        if self.config.features:
            return values
        return as_bytes(values).unflatten(1, (self.config.num_channels, *self.config.image_size))

    def kept(self) -> dict[str, Tensor]:
        """What dreams need, in float16."""
        state = self.net.state_dict()
        return {name: values.detach().half() for name, values in state.items() if not name.startswith(TRAINING_ONLY)}

    def load_kept(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `kept`, up to the rounding; the other parts stay as they are."""
        self.net.load_state_dict({**self.net.state_dict(), **state})


def _form(config: DreamGeneratorConfig) -> Pixels | Features:
    return Features(config.features, len(config.labels)) if config.features else Pixels()


def _size(config: DreamGeneratorConfig) -> int:
    height, width = config.image_size
    return config.features or config.num_channels * height * width


def _with_class(x: Tensor, places: Tensor, classes: int) -> Tensor:
    return torch.cat([x, F.one_hot(places, classes).to(x.dtype)], dim=1)


def _by_class(nets: nn.ModuleList, x: Tensor, places: Tensor) -> Tensor:
    """Each row through the net of its class, in the order of the rows."""
    order = torch.argsort(places, stable=True)
    counts = torch.bincount(places, minlength=len(nets)).tolist()
    found = torch.cat([net(part) for net, part in zip(nets, x[order].split(counts), strict=True)])
    return found[torch.argsort(order)]
