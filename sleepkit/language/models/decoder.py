"""Where the layers and FFN blocks are in any Hugging Face decoder, and what its layers keep of the tokens before.

attention                          keys and values of each token; a mask says which of them a token sees
sliding or chunked attention       the same of the last tokens alone
Mamba, linear attention, conv.     one state that runs from token to token, of which a mask knows nothing
"""

from __future__ import annotations

import inspect
import math
from typing import Any

from torch import nn

from sleepkit.errors import SleepkitError

FFN_NAMES = ("mlp", "feed_forward", "block_sparse_moe", "ffn", "shared_mlp", "mlp_block")
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")  # names in configurations
STATELESS = {"full_attention", "sliding_attention", "chunked_attention", "mlp", "moe"}


def without_adapter(model: nn.Module) -> Any:
    """The model itself, or the one that a model of PEFT is wrapped around."""
    return getattr(model, "get_base_model", lambda: model)()


def find_decoder(model: nn.Module) -> nn.Module:
    """The part of a causal LM that returns the last hidden states: all but its output head."""
    base = without_adapter(model)
    if base.base_model is not base:
        return base.base_model
    layers = find_decoder_layers(base)  # Llama 4 has its decoder under another name than it says
    return next(module for module in base.modules() if any(child is layers for child in module.children()))


def mixes_experts(model: nn.Module) -> bool:
    """Whether FFN blocks of a causal LM are mixtures of experts."""
    config = text_config(model)
    return any((getattr(config, name, None) or 0) > 1 for name in EXPERT_COUNTS)


def reach(model: nn.Module) -> float:
    """Tokens that all layers of a causal LM look back by attention alone, its own among them.

    Infinite for plain attention, the window where it slides, and 0 where more than masks and positions decides what a token sees:
    a layer carries a state from token to token, or goes by places in the row.
    """
    from transformers import DynamicCache  # not above: who only asks where a base is needs no transformers
    from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

    if not {"past_key_values", "position_ids"} <= set(inspect.signature(find_decoder(model).forward).parameters):
        return 0
    config = text_config(model)
    if "local" in (getattr(config, "attention_layers", None) or ()):  # GPT-Neo
        return float(config.window_size)
    try:
        layers = DynamicCache(config=model.config).layers  # type: ignore[arg-type]
    except KeyError:  # a kind of layer without a cache of transformers' own
        return 0
    kinds = [layer for layer in layers if not isinstance(layer, DummyLayer)]
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in kinds):
        return 0
    return min((layer.sliding_window for layer in kinds if isinstance(layer, DynamicSlidingWindowLayer)), default=math.inf)


def without_masks(model: nn.Module) -> str:
    """Say what makes `reach` 0: the kinds of layers that carry a state, or that tokens have no positions."""
    kinds = set(getattr(text_config(model), "layer_types", None) or ()) - STATELESS
    if not kinds:
        return "goes by the places of tokens in a row"
    return f"has layers ({', '.join(sorted(kinds))}) that carry a state from token to token"


def find_decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder's list of layers in any Hugging Face causal LM (or a PEFT model around one).

    Raises:
        SleepkitError: when no list of ``num_hidden_layers`` blocks is found, one of which has an FFN block.
    """
    count = getattr(text_config(model), "num_hidden_layers", None)
    decoder = getattr(model, "get_decoder", lambda: model)()  # past the vision tower of a multimodal model
    for module in decoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and any(find_ffn(layer) is not None for layer in module):
            return module
    raise SleepkitError(
        f"{type(model).__name__} has no list of {count} decoder layers with an FFN block in them ({', '.join(FFN_NAMES)}), "
        "beside which experts could stand; use a decoder of that form, such as Llama, Qwen, Gemma or Falcon-H1"
    )


def text_config(model: nn.Module) -> Any:
    """The configuration of the language part, None for a module without one."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else None


def find_ffn(layer: nn.Module) -> nn.Module | None:
    """The FFN block of a decoder layer, dense or MoE; None if there is none under a known name."""
    if getattr(layer, "block_type", None) in ("mlp", "moe"):  # Nemotron-H: attention, Mamba and FFN are layers of their own
        return layer.mixer  # type: ignore[return-value]
    return next((getattr(layer, name) for name in FFN_NAMES if isinstance(getattr(layer, name, None), nn.Module)), None)
