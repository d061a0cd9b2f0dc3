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
from torch import Tensor, nn
from transformers import PreTrainedModel

from sleepkit.errors import SleepkitError
from sleepkit.utils.ranks import of_rows
from sleepkit.vision.data.image_data import as_bytes
from sleepkit.vision.mygo.generator_forms import BATCH, DreamGeneratorConfig
from sleepkit.vision.mygo.image_generators import ClassDiffusion, ConditionalGan, ConvolutionalGan
from sleepkit.vision.mygo.latent_generators import ClassMixtures, ConditionalVae, VaePerClass

__all__ = ["GENERATORS", "OF_SPACE", "DreamGenerator", "DreamGeneratorConfig"]

TRAINING_ONLY = ("encoder", "discriminator")  # parts that no dream needs

GENERATORS: dict[str, type[VaePerClass] | type[ConditionalGan] | type[ClassDiffusion] | type[ClassMixtures]] = {
    "vae": VaePerClass,
    "cvae": ConditionalVae,
    "cgan": ConditionalGan,
    "conv_cgan": ConvolutionalGan,
    "diffusion": ClassDiffusion,
    "gaussian": ClassMixtures,
}
OF_SPACE = {"pixels": ("vae", "cvae", "cgan", "conv_cgan", "diffusion"), "features": ("gaussian", "vae", "cvae")}
"""Which generators dream images, and which dream features."""


class DreamGenerator(PreTrainedModel):
    """Generator of one experience's images, which `save_pretrained` and `from_pretrained` write and read."""

    config_class = DreamGeneratorConfig
    main_input_name = "pixel_values"

    def __init__(self, config: DreamGeneratorConfig) -> None:
        super().__init__(config)
        if config.kind not in GENERATORS:
            raise SleepkitError(f"generator kind is {config.kind!r}; use one of {', '.join(GENERATORS)}")
        self.net: Any = GENERATORS[config.kind](config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Do nothing: PyTorch's own initialisation stands."""

    @property
    def is_trained(self) -> bool:
        """Whether it has a loss; otherwise `settle` is all."""
        return any(values.requires_grad for values in self.parameters())

    def forward(self, pixel_values: Tensor, places: Tensor, **kwargs: Any) -> Tensor:
        """Return the loss of a batch."""
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
        """A dream of each place, on the CPU: ``(n, channels, height, width)`` uint8, or ``(n, features)``.

        Each process makes its share, and all get all; call it on all.
        """
        noise = torch.randn(len(places), self.net.draws, generator=generator)

        def made(rows: Tensor) -> Tensor:
            values: Tensor = self.net.dream(noise[rows].to(self.device), places[rows].to(self.device)).cpu()
            return values

        values = of_rows(made, torch.arange(len(places)), BATCH)
        if self.config.features:
            return values
        return as_bytes(values).unflatten(1, (self.config.num_channels, *self.config.image_size))

    def kept(self) -> dict[str, Tensor]:
        """Return what dreams need, in float16."""
        state = self.net.state_dict()
        return {name: values.detach().half() for name, values in state.items() if not name.startswith(TRAINING_ONLY)}

    def load_kept(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `kept` has returned, up to the rounding; the other parts stay as they are."""
        self.net.load_state_dict({**self.net.state_dict(), **state})
