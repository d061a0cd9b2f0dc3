"""The canonicalizer: a network that says in which pose a shape is seen, and looks again at what it has straightened.

    coarse    Theta_0 = M(f(image))
    refine    delta_i = g(image seen through Theta_i),   Theta_{i+1} = Theta_i M(delta_i)          i = 0 .. refinements - 1

    image (N, C, S, S)   ->   Theta (N, 3, 3), the matrix of affine.py: `normalize(image, Theta)` is the canonical image

M makes a matrix of what a network finds: of a similarity (a, b, x, y) in ``similarity4``, or of all six entries in ``affine6``;
0 stands for the identity.  f is the small CNN or a backbone of transformers.  g is a small CNN on the window [-extent, extent]
of the canonical frame.  A prediction does not depend on the other images of a batch.

Training (`forward` with `matrix`) minimises

    |Theta_0 - Theta|^2   +   mean |g(image seen through Theta M(e)^-1) - e|^2 / spread^2,       e = spread x normal noise

so g learns to undo errors of each size alike, in an image that it sees near its canonical form (in any orientation, with `turn`)
in whatever pose it is.

Source: the regression of six entries by a ResNet-18 with the squared error is that of "Infinite dSprites for Disentangled
Continual Learning" (arXiv 2312.16731, section 4): ``affine6``, backbone `RESNET_18`, no refinements.  Ours: the similarity, whose
scale is learned apart from its angle (`_squared_error`), pretrained backbones, and the refinements.  Left out: the reference's
crop, whose size depends on the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from sleepkit.errors import SleepkitError
from sleepkit.vision.idsprites.affine import invert, normalize
from sleepkit.vision.incremental.backbones import hidden_size, load_backbone, pooled, require_takes

__all__ = ["OUTPUTS", "RESNET_18", "Canonicalizer", "CanonicalizerConfig", "CanonicalizerOutput", "parameters", "to_matrix"]

OUTPUTS = {"similarity4": 4, "affine6": 6}  # what a network says of a matrix -> how many numbers
RESNET_18: dict[str, Any] = {"model_type": "resnet", "layer_type": "basic", "depths": [2, 2, 2, 2]}
RESNET_18 |= {"hidden_sizes": [64, 128, 256, 512], "embedding_size": 64}


def to_matrix(values: Tensor) -> Tensor:
    """``(..., 4 or 6)`` as matrices ``(..., 3, 3)``; zeros are the identity.

    Four are a, b, x, y of ``[[1 + a, -b, x], [b, 1 + a, y]]``; six are what is added to the identity, row by row.
    """
    zero, one = torch.zeros_like(values[..., 0]), torch.ones_like(values[..., 0])
    if values.shape[-1] == 4:
        a, b, x, y = values.unbind(-1)
        rows = [one + a, -b, x, b, one + a, y]
    else:
        a, b, x, c, d, y = values.unbind(-1)
        rows = [one + a, b, x, c, one + d, y]
    return torch.stack([*rows, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def parameters(matrix: Tensor, output: str) -> Tensor:
    """Return parameters of matrices ``(..., 2 or 3, 3)``, as `to_matrix` takes them; four are those of the nearest similarity."""
    a, b, x, c, d, y = matrix[..., :2, :].flatten(-2).unbind(-1)
    if output == "affine6":
        return torch.stack([a - 1, b, x, c, d - 1, y], dim=-1)
    return torch.stack([(a + d) / 2 - 1, (c - b) / 2, x, y], dim=-1)


@strict
class CanonicalizerConfig(PreTrainedConfig):
    """Configuration of a `Canonicalizer`: shapes of its networks and of its images.

    Attributes:
        num_channels, image_size: of the images; height and width are equal.
        output: one of `OUTPUTS`.
        backbone: configuration of a transformers model with its ``model_type``; None is the small CNN.
        widths, hidden_size: channels of the small CNN's convolutions of stride 2, and units of its hidden layer.
        refinements: how often g looks, once it is trained.
        refine_widths, refine_hidden_size, refine_size, refine_extent: of g, and of what it sees.
        image_mean, image_std: of pixels from 0 to 1; the first is best the background, which is
            taken to go on beyond the image.
        backbone_mean, backbone_std: of each channel of the pixels that a pretrained backbone knows; empty: as the two above.
    """

    model_type = "sleepkit_canonicalizer"

    num_channels: int = 1
    image_size: int = 64
    output: str = "similarity4"
    backbone: dict[str, Any] | None = None
    widths: list[int] | tuple[int, ...] = (16, 32, 64, 128)
    hidden_size: int = 256
    refinements: int = 5
    refine_widths: list[int] | tuple[int, ...] = (16, 32, 64)
    refine_hidden_size: int = 256
    refine_size: int = 40
    refine_extent: float = 0.75
    image_mean: float = 0.66
    image_std: float = 0.33
    backbone_mean: list[float] | tuple[float, ...] = ()
    backbone_std: list[float] | tuple[float, ...] = ()


@dataclass
class CanonicalizerOutput(ModelOutput):
    """``loss`` in training; else ``matrix`` (N, 3, 3)."""

    loss: Tensor | None = None
    matrix: Tensor | None = None


class Canonicalizer(PreTrainedModel):
    """Network that finds in which pose a shape is seen, and refines it by looking again at the straightened image.

    Args:
        config: shapes of the networks and of the images.

    Raises:
        SleepkitError: an unknown ``config.output``.
    """

    config_class = CanonicalizerConfig
    main_input_name = "pixel_values"
    base_model_prefix = "canonicalizer"

    def __init__(self, config: CanonicalizerConfig) -> None:
        super().__init__(config)
        if config.output not in OUTPUTS:
            raise SleepkitError(f"output is {config.output!r}; use one of {', '.join(OUTPUTS)}")
        size = OUTPUTS[config.output]
        if config.backbone is None:
            self.estimator: nn.Module = _cnn(config.num_channels, config.image_size, config.widths, config.hidden_size, size)
        else:
            inner = AutoConfig.for_model(**{**config.backbone, "num_channels": config.num_channels})
            self.estimator = _Backbone(AutoModel.from_config(inner), size, config)
        refines = config.refinements > 0
        self.refiner = (
            _cnn(config.num_channels, config.refine_size, config.refine_widths, config.refine_hidden_size, size)
            if refines
            else None
        )
        self.post_init()

    @classmethod
    def on_backbone(cls, name: str, config: CanonicalizerConfig) -> Canonicalizer:
        """Build one whose first look is a pretrained model (Hub id or folder).  Raises what `load_backbone` raises."""
        backbone, scale = load_backbone(name, config.num_channels)
        config.backbone = backbone.config.to_dict()
        config.backbone_mean, config.backbone_std = scale.get("image_mean", ()), scale.get("image_std", ())
        model = cls(config)
        assert isinstance(model.estimator, _Backbone)
        model.estimator.backbone.load_state_dict(backbone.state_dict())
        shape = (config.num_channels, config.image_size, config.image_size)
        require_takes(name, model, lambda pixels: model.estimator(model.scaled(pixels)), shape)
        return model

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own initialisation stands; a transformers backbone has initialised itself."""

    def forward(
        self,
        pixel_values: Tensor,
        matrix: Tensor | None = None,
        noise: Tensor | None = None,
        spread: Tensor | None = None,
        turn: Tensor | None = None,
        **kwargs: Any,
    ) -> CanonicalizerOutput:
        """Find the pose of each image, and in training the loss of the poses found.

        Args:
            pixel_values: ``(N, C, S, S)``, uint8 or float from 0 to 1.
            matrix: ``(N, 2 or 3, 3)`` true matrices, in training.
            noise, spread: ``(N, 4 or 6)`` normal numbers and ``(N, 1)`` sizes above 0 of the errors that g undoes.
            turn: ``(N, 3, 3)`` rotations through which g sees images besides, so that it does not count on their orientation.
        """
        images = self.scaled(pixel_values)
        coarse = to_matrix(self.estimator(images))
        if matrix is None:
            return CanonicalizerOutput(matrix=self.refined(images, coarse))
        loss = _squared_error(coarse[:, :2], matrix[:, :2], self.config.output)
        if self.refiner is not None and noise is not None and spread is not None:
            error = spread * noise
            seen_through = invert(to_matrix(error)) if turn is None else turn @ invert(to_matrix(error))
            found = self.correction(images, matrix_product(matrix, seen_through))
            loss = loss + (((found - error) / spread) ** 2).mean()
        return CanonicalizerOutput(loss=loss)

    def scaled(self, pixel_values: Tensor) -> Tensor:
        """Images as the networks take them."""
        pixels = pixel_values / 255 if pixel_values.dtype == torch.uint8 else pixel_values
        return ((pixels - self.config.image_mean) / self.config.image_std).to(self.dtype)

    def refined(self, images: Tensor, matrix: Tensor) -> Tensor:
        """`refinements` steps of g from ``matrix`` (N, 3, 3), for `scaled` images."""
        for _ in range(self.config.refinements):
            matrix = matrix @ to_matrix(self.correction(images, matrix))
        return matrix

    def correction(self, images: Tensor, matrix: Tensor) -> Tensor:
        """Return the correction that g finds in `scaled` images seen through matrices, ``(N, 4 or 6)``."""
        assert self.refiner is not None
        found: Tensor = self.refiner(normalize(images, matrix, self.config.refine_size, self.config.refine_extent, 0.0))
        return found


class _Backbone(nn.Module):
    """A pooled transformers backbone and a linear layer, for `scaled` images."""

    factor: Tensor
    offset: Tensor

    def __init__(self, backbone: nn.Module, outputs: int, config: CanonicalizerConfig) -> None:
        super().__init__()
        self.backbone, self.head = backbone, _near_zero(nn.Linear(hidden_size(backbone.config), outputs))
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (config.backbone_mean, config.backbone_std))
        known = len(config.backbone_mean) > 0  # else it takes images as they are scaled
        self.register_buffer("factor", config.image_std / std if known else torch.ones(1), persistent=False)
        self.register_buffer("offset", (config.image_mean - mean) / std if known else torch.zeros(1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.head(pooled(self.backbone(images * self.factor + self.offset)))
        return found


def matrix_product(matrix: Tensor, other: Tensor) -> Tensor:
    """``matrix`` (N, 2 or 3, 3) times ``other`` (N, 3, 3)."""
    return matrix.to(other.dtype) @ other


def _cnn(channels: int, size: int, widths: list[int] | tuple[int, ...], hidden: int, outputs: int) -> nn.Sequential:
    """3x3 convolutions of stride 2 with ReLU, a hidden layer on all that they find, and a linear layer near zero."""
    layers: list[nn.Module] = []
    for before, after in zip([channels, *widths], widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        size = -(-size // 2)
    inputs = widths[-1] * size**2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), _near_zero(nn.Linear(hidden, outputs)))


def _squared_error(found: Tensor, matrix: Tensor, output: str) -> Tensor:
    """Mean of the squared errors of ``(N, 2, 3)``; of a similarity's scale r and angle t: (r - R)^2 + 2 r R (1 - cos (t - T)).

    There the r before the cosine gets no gradient: it would pull the scale of what may be any way up towards 0.
    """
    error = F.mse_loss(found, matrix)
    if output != "similarity4":
        return error
    (a, b), (c, d) = found[:, :, 0].unbind(1), matrix[:, :, 0].unbind(1)
    scale = torch.hypot(a, b).clamp(min=1e-6)
    apart = torch.hypot(c, d) - (a * c + b * d) / scale  # R (1 - cos (t - T))
    return error + (2 * (scale.detach() - scale) * apart).mean() * 2 / 6  # two columns of six entries


@torch.no_grad()
def _near_zero(layer: nn.Linear) -> nn.Linear:
    layer.weight.mul_(0.1)
    layer.bias.zero_()
    return layer


AutoConfig.register(CanonicalizerConfig.model_type, CanonicalizerConfig)
AutoModel.register(CanonicalizerConfig, Canonicalizer)
