"""Where the layers and FFN blocks are in any Hugging Face decoder."""

from __future__ import annotations

from typing import Any

from torch import nn

from sleepkit.errors import SleepkitError

FFN_NAMES = ("mlp", "feed_forward", "block_sparse_moe", "ffn")


def find_decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder's list of layers in any Hugging Face causal LM (or a PEFT model around one).

    Raises:
        SleepkitError: when no list of ``num_hidden_layers`` blocks is found.
    """
    count = getattr(text_config(model), "num_hidden_layers", None)
    decoder = getattr(model, "get_decoder", lambda: model)()  # past the vision tower of a multimodal model
    for module in decoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and find_ffn(module[0]) is not None:
            return module
    raise SleepkitError(
        f"{type(model).__name__} has no list of {count} decoder layers with an FFN block named one of "
        f"{', '.join(FFN_NAMES)}; the expert bank can only grow decoders of that form"
    )


def text_config(model: nn.Module) -> Any:
    """The configuration of the language part, None for a module without one."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else None


def find_ffn(layer: nn.Module) -> nn.Module | None:
    """The FFN block of a decoder layer, dense or MoE; None if there is none under a known name."""
    return next((getattr(layer, name) for name in FFN_NAMES if isinstance(getattr(layer, name, None), nn.Module)), None)
