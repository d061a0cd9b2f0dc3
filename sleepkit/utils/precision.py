"""Precisions of weights, which of them a processor computes in, and what those below 16 bits need.

A CPU without instructions for bfloat16 (x86 without AVX-512) emulates them: on two such cores SmolLM2 trains 4 tokens a
second, in float32 96.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal, get_args

from sleepkit.errors import SleepkitError

if TYPE_CHECKING:
    import torch

__all__ = ["DTYPES", "Dtype", "check_quantization", "close", "computes"]

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES: tuple[str, ...] = get_args(Dtype)


def computes(dtype: torch.dtype, device: torch.device | str) -> bool:
    """Whether a device has instructions for a floating point type; of a CPU it is oneDNN that knows."""
    import torch

    half = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    if torch.device(device).type != "cpu" or dtype not in half:
        return True
    return torch.backends.mkldnn.is_available() and bool(getattr(torch.ops.mkldnn, half[dtype])())


def check_quantization(load_in_8bit: bool, load_in_4bit: bool) -> None:
    """Raise `SleepkitError` if both are asked for, or bitsandbytes is not installed."""
    if load_in_8bit and load_in_4bit:
        raise SleepkitError("load_in_8bit and load_in_4bit are both given; leave one of them out")
    if (load_in_8bit or load_in_4bit) and importlib.util.find_spec("bitsandbytes") is None:
        raise SleepkitError(f"load_in_{8 if load_in_8bit else 4}bit needs bitsandbytes; install it: pip install bitsandbytes")


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two results are equal up to rounding in their dtype: mean difference against mean size."""
    import torch

    tolerance = 1e-4 if one.dtype == torch.float32 else 3e-2
    return bool((one - other).float().abs().mean() <= tolerance * other.float().abs().mean() + 1e-8)
