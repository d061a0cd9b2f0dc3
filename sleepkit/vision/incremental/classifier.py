"""An image classifier that grows: any backbone of transformers, or a small CNN, with one output unit for each class met.

    code     = backbone((pixels / 255 - mean) / std)      (batch, size)        `encode`
    features = top(code)                                  (batch, hidden)      LayerNorm, linear, ReLU; or nothing (top_size 0)
    logits   = features W^T + b                           (batch, units)       units: output_units.py

A code may be given in place of an image: that is how a frozen backbone is run once only, or not at all for a dreamt code.

The heads of all tasks are rows of one linear layer.  What makes it multi-head or single-head is which units a softmax
runs over: those of one task (task-incremental) or of all tasks so far (class-incremental).  Growing leaves existing weights
as they are, bit for bit.  Units, their names (`id2label`) and the size of the head are in `config.json`, so `save_pretrained`,
`from_pretrained` and `push_to_hub` keep them.

The small CNN: per width one 3x3 convolution of stride 2 and a ReLU, then a linear layer and a ReLU, or the means of the four
quarters of what the last convolution finds (hidden_size 0): they say more of classes that the CNN was not trained on.
Left out: training.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from sleepkit.vision.incremental.backbones import hidden_size, load_backbone, pooled, require_takes
from sleepkit.vision.incremental.output_units import DREAM, FREE, REAL, OutputUnits

__all__ = ["ClassifierOutput", "IncrementalClassifier", "IncrementalClassifierConfig", "masked_cross_entropy"]


@strict
class IncrementalClassifierConfig(PreTrainedConfig):
    """Configuration of an `IncrementalClassifier`: shapes of images, backbone and head.

    Attributes:
        num_channels: of the images.
        image_size: height and width, pixels.
        image_mean, image_std: of the channels, for pixels from 0 to 1.
        backbone: configuration of a transformers model, with its ``model_type``; None is the small CNN.
        cnn_widths: channels of its convolutions.
        cnn_max_pool: halve images by maxima after each convolution, not by its stride: dearer.
        hidden_size: outputs of the small CNN, 0 for the means of quarters; another backbone has its own.
        code_size: size of the vectors that take the place of images, made by some other model; 0: images. There is no backbone.
        top_size: units of a hidden layer between backbone and head; 0: none.
        slots: `OutputUnits.to_dict`.
    """

    model_type = "sleepkit_incremental_classifier"

    num_channels: int = 3
    image_size: list[int] | tuple[int, ...] = (32, 32)
    image_mean: list[float] | tuple[float, ...] = (0.5,)
    image_std: list[float] | tuple[float, ...] = (0.5,)
    backbone: dict[str, Any] | None = None
    cnn_widths: list[int] | tuple[int, ...] = (32, 64)
    cnn_max_pool: bool = False
    hidden_size: int = 256
    code_size: int = 0
    top_size: int = 0
    slots: dict[str, list[Any]] | None = None


@dataclass
class ClassifierOutput(ModelOutput):
    """``loss`` (if labels were given), ``logits`` (batch, units) and ``features`` (batch, hidden)."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    features: Tensor | None = None


class SmallConvNet(nn.Module):
    """``(batch, channels, height, width)`` -> ``(batch, hidden)``."""

    def __init__(self, config: IncrementalClassifierConfig) -> None:
        super().__init__()
        widths = [config.num_channels, *config.cnn_widths]
        self.max_pool = config.cnn_max_pool
        stride = 1 if self.max_pool else 2
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=stride, padding=1) for before, after in zip(widths, widths[1:], strict=False)
        )
        height, width = (-(-side // 2 ** len(config.cnn_widths)) for side in config.image_size)
        self.size = config.hidden_size or 4 * widths[-1]
        self.linear = nn.Linear(widths[-1] * height * width, config.hidden_size) if config.hidden_size else None

    def forward(self, pixels: Tensor) -> Tensor:
        for convolution in self.convolutions:
            pixels = F.relu(convolution(pixels))
            if self.max_pool:
                pixels = F.max_pool2d(pixels, 2, ceil_mode=True)
        if self.linear is None:
            return F.adaptive_avg_pool2d(pixels, 2).flatten(1)
        return F.relu(self.linear(pixels.flatten(1)))


class IncrementalClassifier(PreTrainedModel):
    """Image classifier whose head grows: a backbone, and one output unit for each class met so far.

    Args:
        config (`IncrementalClassifierConfig`): shapes of images, backbone and head.

    Attributes:
        slots (`OutputUnits`): which unit holds which class.

    Example:

        >>> from sleepkit.vision.incremental.classifier import IncrementalClassifierConfig
        >>> model = IncrementalClassifier(IncrementalClassifierConfig(num_channels=1, image_size=(28, 28)))
        >>> model.grow([3, 7], task=0)
        [0, 1]
        >>> model(pixel_values=torch.zeros(5, 1, 28, 28)).logits.shape
        torch.Size([5, 2])
    """

    config_class = IncrementalClassifierConfig
    main_input_name = "pixel_values"
    base_model_prefix = "backbone"

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: IncrementalClassifierConfig) -> None:
        super().__init__(config)
        self.slots = OutputUnits.from_dict(config.slots) if config.slots else OutputUnits()
        self.backbone: nn.Module
        if config.code_size:
            self.backbone = nn.Identity()
            hidden = config.code_size
        elif config.backbone is None:
            self.backbone = SmallConvNet(config)
            hidden = self.backbone.size
        else:
            inner = AutoConfig.for_model(**config.backbone)
            self.backbone = AutoModel.from_config(inner)
            hidden = hidden_size(inner)
        self.code_size = hidden
        self.top = _top(hidden, config.top_size) if config.top_size else nn.Identity()
        self.head = _linear(config.top_size or hidden, len(self.slots))
        for name in ("image_mean", "image_std"):
            values = list(getattr(config, name)) * (config.num_channels if len(getattr(config, name)) == 1 else 1)
            self.register_buffer(name, torch.tensor(values).reshape(-1, 1, 1))
        self.post_init()

    @classmethod
    def on_backbone(
        cls, name: str, num_channels: int, image_size: Sequence[int], pretrained: bool = True, top_size: int = 0
    ) -> IncrementalClassifier:
        """A classifier without classes on a backbone of transformers, with the normalisation that belongs to it.

        Args:
            name: Hub id or folder.
            pretrained: False takes its architecture only, for images of any number of channels.

        Raises:
            SleepkitError: no such model, or it takes texts, or images of another size or number of channels.
        """
        backbone, scale = load_backbone(name, num_channels, pretrained)
        config = IncrementalClassifierConfig(
            num_channels=num_channels, image_size=list(image_size), backbone=backbone.config.to_dict(), top_size=top_size, **scale
        )
        model = cls(config)
        model.backbone.load_state_dict(backbone.state_dict())
        require_takes(name, model, lambda pixels: model(pixel_values=pixels).features, (num_channels, *image_size))
        return model

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own initialisation stands; a transformers backbone has initialised itself."""

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, allowed: Tensor | None = None, **kwargs: Any
    ) -> ClassifierOutput:
        """Classify images, and compute the loss where labels are given.

        Args:
            pixel_values: ``(batch, channels, height, width)``, uint8 or float from 0 to 1; or codes ``(batch, size)``.
            labels: ``(batch,)`` units.
            allowed: ``(units,)`` or ``(batch, units)`` bool: units of the softmax; None: those of real classes.
        """
        features = self.features(pixel_values)
        logits = self.head(features)
        loss = None
        if labels is not None:
            loss = masked_cross_entropy(logits, labels, self.mask(REAL) if allowed is None else allowed)
        return ClassifierOutput(loss=loss, logits=logits, features=features)

    def features(self, pixel_values: Tensor) -> Tensor:
        """``(batch, hidden)``, of images or codes."""
        code = pixel_values.to(self.dtype) if pixel_values.dim() == 2 else self.encode(pixel_values)
        features: Tensor = self.top(code)
        return features

    def encode(self, pixel_values: Tensor) -> Tensor:
        """Return the codes that the backbone makes of images, ``(batch, size)``."""
        pixels = pixel_values / 255 if pixel_values.dtype == torch.uint8 else pixel_values
        pixels = ((pixels - self.image_mean) / self.image_std).to(self.dtype)
        return pooled(self.backbone(pixels))

    def mask(self, state: str = REAL, task: int | None = None) -> Tensor:
        """``(units,)`` bool: units of a state, of one task or of all."""
        rows = zip(self.slots.states, self.slots.tasks, strict=True)
        return torch.tensor([s == state and task in (None, t) for s, t in rows], dtype=torch.bool, device=self.device)

    def units_of(self, labels: Tensor) -> Tensor:
        """Units of real classes, for ``labels`` of the data set.  Raises `SleepkitError` for one that has none."""
        units = {int(label): self.slots.unit(int(label)) for label in labels.unique()}
        table = torch.zeros(max(units, default=0) + 1, dtype=torch.int64)
        table[list(units)] = torch.tensor(list(units.values()), dtype=torch.int64)
        return table[labels]

    def grow(self, labels: Sequence[int], task: int, names: Sequence[str] | None = None, state: str = REAL) -> list[int]:
        """Give each label an output unit; new units are appended where none is free.

        A unit that was free keeps its weights; a new one starts as a new linear layer does, from torch's generator.

        Args:
            labels: of classes, each one that has no unit yet.
            task: number of the task that they come with.
            names: of the classes, in the configuration; the labels as text by default.
            state: what the units are for, `REAL` or `DREAM`.

        Returns:
            The units in the order of the labels.

        Raises:
            SleepkitError: a label has a unit already.
        """
        units = self.slots.take(labels, task, state)
        self._resize(len(self.slots))
        self.name_units(dict(zip(units, names or map(str, labels), strict=True)))
        return units

    def set_slots(self, slots: OutputUnits) -> None:
        """Take over another table of units; the head is cut or grown to its length."""
        self.slots = slots
        self._resize(len(slots))
        self.name_units({})

    @torch.no_grad()
    def _resize(self, units: int) -> None:
        old = self.head
        if units == old.out_features:
            return
        self.head = _linear(old.in_features, units).to(old.weight.device, old.weight.dtype)
        kept = min(units, old.out_features)
        self.head.weight[:kept] = old.weight[:kept]
        self.head.bias[:kept] = old.bias[:kept]

    def name_units(self, names: dict[int, str]) -> None:
        """Write the table of units into the configuration, with names of some of them; others keep theirs."""
        known = cast(dict[int, str], self.config.id2label or {})
        found = {}
        for unit, (state, label) in enumerate(zip(self.slots.states, self.slots.labels, strict=True)):
            default = {FREE: f"free {unit}", DREAM: f"dream {label}"}.get(state) or known.get(unit, str(label))
            found[unit] = names.get(unit, default)
        self.config.slots = self.slots.to_dict()
        self.config.id2label = cast(Any, found)
        self.config.label2id = {name: unit for unit, name in found.items()}


def masked_cross_entropy(logits: Tensor, labels: Tensor, allowed: Tensor) -> Tensor:
    """Mean cross-entropy of a softmax over the allowed units only.

    Args:
        logits: ``(batch, units)``.
        labels: ``(batch,)``, each allowed.
        allowed: ``(units,)`` or ``(batch, units)`` bool.
    """
    return F.cross_entropy(logits.masked_fill(~allowed, float("-inf")), labels)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a classifier without classes has no weights to initialise
        return nn.Linear(inputs, outputs)


def _top(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, outputs), nn.ReLU())


AutoConfig.register(IncrementalClassifierConfig.model_type, IncrementalClassifierConfig)
AutoModelForImageClassification.register(IncrementalClassifierConfig, IncrementalClassifier)
