"""Backbones of transformers for images: how they are loaded, how long their vectors are, and which vector is meant.

A backbone is tried on one image when it is loaded, so that one that takes texts, or images of another size, is refused before
any training.  So is one whose folder lacks weights; a missing pooler alone starts at random, which is printed.

Left out: texts, and models that are no `AutoModel`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel

from sleepkit.errors import SleepkitError, first_line

__all__ = ["hidden_size", "load_backbone", "pooled", "require_takes"]

PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def load_backbone(name: str, num_channels: int, pretrained: bool = True) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model, and ``image_mean`` and ``image_std`` of the pixels (0 to 1) that it was trained on, where its folder says so.

    Args:
        name: Hub id or folder.
        num_channels: of the images.
        pretrained: False takes its architecture only, for images of any number of channels.

    Raises:
        SleepkitError: no such model, damaged or missing weights, or it takes texts, or images of another number of channels.
    """
    lacks: dict[str, Any] = {}
    try:
        if pretrained:
            config = AutoConfig.from_pretrained(name)
            backbone, lacks = AutoModel.from_pretrained(name, output_loading_info=True, ignore_mismatched_sizes=True)
        else:
            config = AutoConfig.from_pretrained(name, num_channels=num_channels)
            backbone = AutoModel.from_config(config)
    except Exception as error:  # the Hub, safetensors and each architecture raise their own
        raise SleepkitError(
            f"backbone {name!r} cannot be loaded ({first_line(error)}); give 'cnn', a folder or a Hub id"
        ) from None
    if Path(name).expanduser().exists():
        backbone.config._name_or_path = ""  # it would be saved, and published, with the classifier
    _require_weights(name, lacks)
    if backbone.main_input_name != "pixel_values":
        raise SleepkitError(f"backbone {name!r} takes {backbone.main_input_name}, not images; give a vision model")
    if Path(name).expanduser().exists():
        backbone.config._name_or_path = ""  # it would be saved, and published, with the classifier
    takes = getattr(config, "num_channels", num_channels)
    if takes != num_channels:
        raise SleepkitError(f"backbone {name!r} takes {takes} channels, the images have {num_channels}; set channels to {takes}")
    return backbone, _scale(name) if pretrained else {}


def _require_weights(name: str, lacks: dict[str, Any]) -> None:
    """Raise unless all weights but those of a pooler came from the file; ``lacks`` is what transformers says of loading."""
    missing = [key for key in sorted(lacks.get("missing_keys", ())) if not key.endswith("num_batches_tracked")]
    others = [str(key[0]) if isinstance(key, tuple) else key for key in lacks.get("mismatched_keys", ())]
    others += [key for key in missing if not key.startswith("pooler.")]
    if others:
        raise SleepkitError(
            f"backbone {name!r} has no weights of {others[0]} and {len(others) - 1} more that fit its config.json; save it again"
        )
    if missing and PartialState().is_main_process:
        print(f"backbone {name} has no weights of {', '.join(missing)}, which start at random")


def _scale(name: str) -> dict[str, Any]:
    """Return mean and deviation of the model's image processor, if it has one."""
    from transformers import AutoImageProcessor

    try:
        processor: Any = AutoImageProcessor.from_pretrained(name)
        return {"image_mean": list(processor.image_mean), "image_std": list(processor.image_std)}
    except Exception as error:  # none there, or one without these numbers
        for path in (Path(name) / file for file in PROCESSORS):
            if path.is_file() and not isinstance(error, (TypeError, AttributeError)):
                raise SleepkitError(f"{path} cannot be read ({first_line(error)}); save the processor again") from None
    return {}


@torch.no_grad()
def require_takes(name: str, model: PreTrainedModel, forward: Callable[[Tensor], Tensor], shape: Sequence[int]) -> None:
    """Try a model on one grey image.

    Args:
        name: of the backbone, for messages.
        model: all of it.
        forward: of uint8 images ``(1, channels, height, width)``, to vectors ``(1, size)``.
        shape: ``(channels, height, width)``.

    Raises:
        SleepkitError: it fails, or what it gives is not finite.
    """
    training = model.training
    model.eval()
    shown = " x ".join(map(str, shape))
    try:
        vector = forward(torch.full((1, *shape), 128, dtype=torch.uint8))
    except Exception as error:  # each architecture raises its own
        raise SleepkitError(
            f"backbone {name!r} does not take images of {shown} ({first_line(error)}); set image_size to its own, or give another"
        ) from None
    finally:
        model.train(training)
    if not vector.isfinite().all():
        raise SleepkitError(f"backbone {name!r} makes numbers that are not finite of images of {shown}; its weights are damaged")


def hidden_size(config: Any) -> int:
    """Length of the vectors that `pooled` gives.  Raises `SleepkitError` where a configuration does not say it."""
    sizes = getattr(config, "hidden_sizes", None)
    size = sizes[-1] if sizes else getattr(config, "hidden_size", None)
    if size is None:
        raise SleepkitError(f"the model type {config.model_type!r} does not say its hidden_size; give another backbone")
    return int(size)


def pooled(found: Any) -> Tensor:
    """The vector of each image, ``(N, size)``, of what a backbone returns: its pooled one, or else the mean of all places."""
    if isinstance(found, Tensor):
        return found
    vector = found.get("pooler_output")
    return vector.flatten(1) if vector is not None else found.last_hidden_state.mean(1)
