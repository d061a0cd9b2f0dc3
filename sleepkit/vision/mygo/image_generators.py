"""Generators of images alone: conditional GANs and a small diffusion model.

Formulas and sources are in generators.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from sleepkit.utils.ranks import own_draws
from sleepkit.vision.incremental.denoising import velocity_loss
from sleepkit.vision.mygo.generator_forms import DreamGeneratorConfig, Pixels, size_of, with_class

__all__ = ["ClassDiffusion", "ConditionalGan", "ConvolutionalGan"]

DIFFUSION_STEPS = 10  # of a dream


class ConditionalGan(nn.Module):
    """A conditional GAN of images, ``cgan`` in generators.py."""

    def __init__(self, config: DreamGeneratorConfig) -> None:
        super().__init__()
        self.form, self.draws = Pixels(), config.latent
        self.classes, self.latent, self.shape = len(config.labels), config.latent, (config.num_channels, *config.image_size)
        self.decoder, self.discriminator = self.halves(config)

    def halves(self, config: DreamGeneratorConfig) -> tuple[nn.Module, nn.Module]:
        """Generator ``(n, latent + classes)`` -> pixels in [-1, 1]; discriminator ``(n, pixels + classes)`` -> ``(n, 1)``."""
        pixels, hidden = size_of(config), config.hidden
        generator = nn.Sequential(nn.Linear(self.latent + self.classes, hidden), nn.ReLU(), nn.Linear(hidden, pixels), nn.Tanh())
        judge = nn.Sequential(nn.Linear(pixels + self.classes, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1))
        return generator, judge

    def loss(self, x: Tensor, places: Tensor) -> Tensor:
        """Return the discriminator's cross-entropy plus the generator's."""
        noise = own_draws(lambda count: torch.randn(count, self.latent, device=x.device), len(x))
        dreams = self.decoder(with_class(noise, places, self.classes))
        seen = [with_class(images, places, self.classes) for images in (2 * x - 1, dreams.detach(), dreams)]
        real, fake = self.discriminator(torch.cat(seen[:2])).squeeze(1).chunk(2)
        fixed = {name: values.detach() for name, values in self.discriminator.named_parameters()}
        fooled: Tensor = functional_call(self.discriminator, fixed, (seen[2],)).squeeze(1)
        return F.softplus(-real).mean() + F.softplus(fake).mean() + F.softplus(-fooled).mean()

    def settle(self, x: Tensor, places: Tensor) -> None:
        """Do nothing: the noise is the latent vector."""

    def dream(self, noise: Tensor, places: Tensor) -> Tensor:
        """Return pixels in [0, 1]."""
        found: Tensor = self.decoder(with_class(noise, places, self.classes))
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
    """A small diffusion model of images, ``diffusion`` in generators.py."""

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
        """Return the loss of images at a random level of noise each."""
        images = 2 * x.unflatten(1, self.shape) - 1
        images = F.pad(images, (0, self.padded[1] - images.shape[3], 0, self.padded[0] - images.shape[2]), value=-1.0)
        return velocity_loss(self.scheduler, images, lambda noisy, times: self._predict(noisy, times, places))

    def settle(self, x: Tensor, places: Tensor) -> None:
        """Do nothing: there is nothing to estimate after training."""

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
