"""Backbones of transformers for images: how they are loaded, how long their vectors are, and which vector is meant.

Left out: texts, and models that are no `AutoModel`.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel

from sleepkit.errors import SleepkitError, first_line

__all__ = ["hidden_size", "load_backbone", "pooled"]


def load_backbone(name: str, num_channels: int, pretrained: bool = True) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model, and ``image_mean`` and ``image_std`` of the pixels (0 to 1) that it was trained on, where its folder says so.

    Args:
        name: Hub id or folder.
        num_channels: of the images.
        pretrained: False takes its architecture only, for images of any number of channels.

    Raises:
        SleepkitError: no such model, or it takes images of another number of channels.
    """
    from transformers import AutoImageProcessor

    try:
        config = AutoConfig.from_pretrained(name) if pretrained else AutoConfig.from_pretrained(name, num_channels=num_channels)
        backbone = AutoModel.from_pretrained(name) if pretrained else AutoModel.from_config(config)
    except (OSError, ValueError) as error:
        raise SleepkitError(
            f"backbone {name!r} cannot be loaded ({first_line(error)}); give 'cnn', a folder or a Hub id"
        ) from None
    if Path(name).expanduser().exists():
        backbone.config._name_or_path = ""  # it would be saved, and published, with the classifier
    takes = getattr(config, "num_channels", num_channels)
    if takes != num_channels:
        raise SleepkitError(f"backbone {name!r} takes {takes} channels, the images have {num_channels}; set channels to {takes}")
    scale: dict[str, Any] = {}
    if pretrained:
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):  # a folder without a processor's file
            processor: Any = AutoImageProcessor.from_pretrained(name)
            scale = {"image_mean": list(processor.image_mean), "image_std": list(processor.image_std)}
    return backbone, scale


def hidden_size(config: Any) -> int:
    """Length of the vectors that `pooled` gives."""
    sizes = getattr(config, "hidden_sizes", None)
    return int(sizes[-1] if sizes else config.hidden_size)


def pooled(found: Any) -> Tensor:
    """The vector of each image, ``(N, size)``, of what a backbone returns: its pooled one, or else the mean of all places."""
    if isinstance(found, Tensor):
        return found
    vector = found.get("pooler_output")
    return vector.flatten(1) if vector is not None else found.last_hidden_state.mean(1)
