"""Runs code on the meta device, where tensors have shapes and no values, and counts what it would cost: FLOPs and peak memory.

    with counted() as cost:          what is run inside computes nothing
        loss = model(batch).sum()
        loss.backward()
    cost.flops                       of matrix products and attention, as `torch.utils.flop_counter` counts them
    cost.peak_bytes                  highest sum of what lives at one time, beyond what lived before

Memory is that of the tensors themselves: what an allocator rounds up or keeps is not in it.  Both are those of the same code on a
CPU, to the byte, but for attention of short rows, which a CPU spells out (seeding/attention.py).

Mixtures of experts: which expert sees a token does not matter here, as each token sees equally many.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Cost", "counted"]


@dataclass
class Cost:
    """What was run: ``flops``, and the ``peak_bytes`` that it held at one time."""

    flops: int = 0
    peak_bytes: int = 0


@contextmanager
def counted() -> Iterator[Cost]:
    """Count what runs inside the block, in forward and backward passes; the numbers are there when it ends."""
    cost, memory = Cost(), _Memory()
    counter = FlopCounterMode(display=False, custom_mapping=_more_products())
    with _WithoutValues(), counter, memory:
        yield cost
    cost.flops, cost.peak_bytes = int(counter.get_total_flops()), memory.peak


_READ_OUT: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda tensor: 1 if not tensor.is_floating_point() else 0.0,
    "__bool__": lambda tensor: True,
    "__contains__": lambda tensor: False,
    "__float__": lambda tensor: 0.0,
    "__int__": lambda tensor: 1,
    "cpu": lambda tensor: torch.zeros(tensor.shape, dtype=tensor.dtype),
    "tolist": lambda tensor: torch.zeros(tensor.shape, dtype=tensor.dtype).tolist(),
}


class _Memory(TorchDispatchMode):
    """Adds up the storages that operations make, until the last tensor lets go of them."""

    def __init__(self) -> None:
        super().__init__()
        self.living: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operation(*args, **(kwargs or {}))
        new = {key: storage for key, storage in _storages(made) if key not in self.living}
        if new:
            given = {key for key, _ in _storages((args, kwargs))}  # a view of weights, say, is nothing new
            for key, storage in new.items():
                if key not in given:
                    self._add(key, storage)
        return made

    def _add(self, key: int, storage: torch.UntypedStorage) -> None:
        self.living[key] = storage.nbytes()
        self.now += self.living[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self.living.pop(key, 0)


def _storages(tree: Any) -> Iterator[tuple[int, torch.UntypedStorage]]:
    """The storages of the tensors in a tree, with a number that tells them apart."""
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            storage = leaf.untyped_storage()
            yield storage._cdata, storage


class _WithoutValues(TorchFunctionMode):
    """Answers what code asks a tensor that has no values, and lets grouped products of mixtures of experts run in any dtype.

    Hybrids ask whether a mask hides anything: it does.  What is read out, such as the score of a trial, is zero.  Attention keeps
    no scores, as by the kernels of devices.  The meta kernel of grouped products, unlike those of devices, wants bfloat16.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        name = getattr(function, "__name__", "")
        if name in _READ_OUT and isinstance(args[0], Tensor) and args[0].is_meta:
            return _READ_OUT[name](args[0])
        if name == "bincount" and args[0].is_meta:  # as many as are asked for, or one for all
            return torch.ones(max(1, options.get("minlength", 1)), dtype=torch.int64, device="meta")
        if name == "scaled_dot_product_attention" and args[0].is_meta:
            return _attention(*args, **options)
        if name in ("grouped_mm", "_grouped_mm") and args[0].is_meta and args[0].dtype != torch.bfloat16:
            return torch.ops.transformers.grouped_mm_fallback(*args, offs=options["offs"])
        return function(*args, **options)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> Tensor:
    """`scaled_dot_product_attention` by a kernel."""
    mask = None if attn_mask is None else attn_mask.to(query.dtype)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    found: Tensor = kernel(query, key, value, dropout_p, is_causal, attn_mask=mask, scale=scale)[0]
    return found


def _more_products() -> dict[Any, Callable[..., int]]:
    """FLOPs of operations that PyTorch's counter does not know: grouped products, and attention on a CPU."""
    import transformers.integrations.moe  # noqa: F401  # which registers its own

    def product(rows: Any, weights: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return 2 * prod(rows) * weights[-1]

    def backwards(rows: Any, weights: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return 2 * prod(rows) * weights[-1]  # the gradient of the rows; weights are frozen

    def attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])

    def attention_backwards(gradient: Any, query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return 2 * attention(query, key, value)

    counts: dict[tuple[str, str], Callable[..., int]] = {
        ("aten", "_grouped_mm"): product,
        ("aten", "_scaled_dot_product_flash_attention_for_cpu"): attention,
        ("aten", "_scaled_dot_product_flash_attention_for_cpu_backward"): attention_backwards,
        ("transformers", "grouped_mm_fallback"): product,
        ("transformers", "grouped_mm_fallback_backward"): backwards,
    }
    known = {getattr(getattr(torch.ops, space), name, None): count for (space, name), count in counts.items()}
    return {operation: count for operation, count in known.items() if operation is not None}
