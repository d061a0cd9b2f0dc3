"""Many LoRAs on one base at once: each row of a batch passes through the adapter of its own.

    y = W x + (alpha / r) B_i A_i x        i = the group that the row belongs to

A batch of ``n * q`` rows holds ``n`` groups of ``q`` consecutive rows; group i uses adapter i, so one forward and one
backward pass train ``n`` adapters, independently: the loss is a sum over groups and AdamW works element by element.  The
base is shared and untouched, which makes it an isolated trial of ``n`` edits without a copy of the model.

Source: LoRA (arXiv 2106.09685); batched adapters as in S-LoRA's serving (arXiv 2311.03285), here for training.
Left out: dropout, and adapters of different rank in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class BatchedLora(nn.Module):
    """``n`` LoRAs for each of the given linear maps, fp32, silent at the start.

    Args:
        maps: linear maps by name, as from `lora.linear_maps`.
        n: number of adapters.
        seed: of the initial ``A``, which is equal in all adapters: trials differ by their data alone.
    """

    def __init__(self, maps: Mapping[str, nn.Module], n: int, rank: int = 32, alpha: float = 64.0, seed: int = 0) -> None:
        super().__init__()
        self.maps = dict(maps)
        self.n, self.scale = n, alpha / rank
        generator = torch.Generator().manual_seed(seed)
        self.a, self.b = nn.ParameterDict(), nn.ParameterDict()
        for name, module in self.maps.items():
            weight: Any = module.weight
            fan_in, fan_out = weight.shape if isinstance(module, Conv1D) else weight.shape[::-1]
            a = torch.empty(rank, fan_in).uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
            key = name.replace(".", "/")  # a parameter's name holds no dot
            self.a[key] = nn.Parameter(a.expand(n, -1, -1).clone().to(weight.device))  # (n, rank, fan_in)
            self.b[key] = nn.Parameter(torch.zeros(n, fan_out, rank, device=weight.device))  # (n, fan_out, rank)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Run the block with the adapters on the linear maps."""
        handles = [module.register_forward_hook(self._hook(name.replace(".", "/"))) for name, module in self.maps.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, key: str) -> Any:
        def add(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = args[0]  # (n * q, time, fan_in)
            grouped = x.reshape(self.n, -1, x.shape[-1])  # (n, q * time, fan_in)
            inner = torch.bmm(grouped, self.a[key].to(x.dtype).mT)
            added = torch.bmm(inner, self.b[key].to(x.dtype).mT) * self.scale
            return output + added.view_as(output)

        return add
