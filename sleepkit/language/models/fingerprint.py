"""What tells one model from another by its content: the same path may hold other weights tomorrow.

    weights_fingerprint(model)            SHA-256 over all weights of the base, rounded to bfloat16
    model_identity(model, tokenizer)      digests of weights, configuration, vocabulary and chat template

Each weight is hashed in full, tensors in the order of their names.  The fingerprint that travels with published experts is of
weights rounded to bfloat16, so that a checkpoint in bfloat16 and one that was loaded as float32 from it agree; the identity of
a run takes every bit.  Experts, and adapters of PEFT, are no part of the base.

Left out: weights that are not in memory (``device_map`` with offloading to the disk), of which only names and shapes count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sleepkit.language.models.decoder import without_adapter
from sleepkit.language.models.zero3 import whole

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["model_identity", "weights_fingerprint"]

# Fields of a configuration that say where a model came from or how it is run, not what it computes.
_NOT_CONTENT = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache")


def weights_fingerprint(model: nn.Module) -> str:
    """SHA-256 of the base weights, as 64 hexadecimal digits; call it on all ranks, as ZeRO-3 gathers.

    Equal for a bfloat16 checkpoint and its float32 copy; other for any other weights that bfloat16 can tell apart.
    """
    return _digest_weights(model, torch.bfloat16)


def model_identity(model: nn.Module, tokenizer: PreTrainedTokenizerBase | None = None) -> dict[str, str]:
    """What decides, besides the run's settings, what a model computes and how it is talked to.

    Returns:
        ``weights``, every bit of them, and ``config``; with a tokenizer also ``vocabulary`` and ``chat_template``; each as 16
        hexadecimal digits.
    """
    found = {"weights": _digest_weights(model, torch.float32)[:16], "config": _digest_json(_settings(model))}
    if tokenizer is not None:
        found |= {"vocabulary": _digest_json(_vocabulary(tokenizer)), "chat_template": _digest_json(tokenizer.chat_template)}
    return found


def _digest_weights(model: nn.Module, rounding: torch.dtype) -> str:
    total = hashlib.sha256()
    for name, parameter in _base_parameters(model):
        with whole([parameter]):
            values = parameter.detach()
            total.update(f"{name} {tuple(values.shape)}\n".encode())
            if not values.is_meta:
                total.update(_bytes(values.to(rounding) if values.is_floating_point() else values))
    return total.hexdigest()


def _base_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Return the base's parameters by the names that they have without PEFT, in their order; a tied weight comes once."""
    inner: nn.Module = without_adapter(model)
    named = {name.replace(".base_layer.", "."): parameter for name, parameter in inner.named_parameters()}
    return ((name, named[name]) for name in sorted(named) if ".sleep_experts." not in name and ".lora_" not in name)


def _bytes(values: Tensor) -> Any:
    """The memory of a tensor, without a copy where it is on the CPU."""
    array: Any = values.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


def _settings(model: nn.Module) -> dict[str, Any]:
    """Configuration and generation settings, without what changes nothing."""
    configs = [getattr(model, name, None) for name in ("config", "generation_config")]
    plain: list[Mapping[str, Any]] = [config.to_dict() if config is not None else {} for config in configs]
    return {str(k): _without(one) for k, one in enumerate(plain)}


def _without(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without(item) for key, item in value.items() if key not in _NOT_CONTENT}
    return value


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Tokens, merges and marks; of a fast tokenizer all that it does but how it pads and cuts, which each call sets."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else tokenizer.get_vocab()
    kept = {key: value for key, value in rules.items() if key not in ("padding", "truncation")}
    return {"rules": kept, "marks": {name: str(token) for name, token in tokenizer.special_tokens_map.items()}}


def _digest_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
