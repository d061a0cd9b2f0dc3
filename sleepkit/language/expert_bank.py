"""Masked low-rank experts beside the FFN blocks of any Hugging Face decoder.

For a decoder layer with feed-forward block ``FFN`` and experts ``e = 1..slots``::

    FFN'(x) = FFN(x) + sum_{e active} g_e(x) * up_e( act(down_e x) )        x: (batch, time, d)
    g_e(x)  = hardsigmoid(w_e . x / sqrt(d) + b_e)   in [0, 1], one number per token

``down_e`` is ``(width, d)``, ``up_e`` is ``(d, width)`` and starts at zero, so activating a slot leaves the
model's function exactly as it was (Net2Net, arXiv 1511.05641; LLaMA-Pro, arXiv 2401.02415).  The slots are
allocated up front and masked until their night comes ("Language Models Need Sleep", arXiv 2606.03979:
5 blocks of dimension 64 appended to the MLPs, only the new one trains).

Ours, not the paper's: the gate that is learned with the expert (a *hard* sigmoid, so that a gate can be
exactly zero and a silent expert changes nothing at all), the choice of layers, and the merge when the pool is full.

Left out: routing between experts.  Every active expert sees every token and its own gate decides.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from sleepkit.errors import SleepkitError

CONFIG_NAME = "expert_bank.json"
WEIGHTS_NAME = "expert_bank.safetensors"
FFN_NAMES = ("mlp", "feed_forward", "block_sparse_moe", "ffn")


@dataclass
class ExpertBankConfig:
    """Size and place of the experts.  All fields are saved beside the weights."""

    slots: int = field(default=8, metadata={"help": "Experts per layer, allocated up front; one is used per night."})
    width: int = field(default=128, metadata={"help": "Hidden width of one expert (the paper: 64)."})
    layers: str | list[int] = field(
        default="last_half",
        metadata={"help": "Layers that carry experts: 'all', 'last_half', or a list of layer indices."},
    )
    activation: str = field(default="silu", metadata={"help": "Nonlinearity of an expert, a name of transformers' ACT2FN."})
    gate: bool = field(default=True, metadata={"help": "Learn one gate per expert and token; without it an expert is always on."})
    gate_bias: float = field(default=0.0, metadata={"help": "Initial gate bias: 0 starts half open, 3 fully open."})


class Expert(nn.Module):
    """One slot of one layer: ``g(x) * up(act(down x))``, fp32 parameters, computed in the dtype of ``x``."""

    def __init__(self, hidden_size: int, config: ExpertBankConfig) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(config.width, hidden_size, dtype=torch.float32))
        self.up = nn.Parameter(torch.zeros(hidden_size, config.width, dtype=torch.float32))
        self.gate_weight = nn.Parameter(torch.zeros(hidden_size, dtype=torch.float32)) if config.gate else None
        self.gate_bias = nn.Parameter(torch.zeros(1, dtype=torch.float32)) if config.gate else None
        self.act = ACT2FN[config.activation]
        self.initial_gate_bias = config.gate_bias
        self.reset()

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None = None) -> None:
        """Back to a silent expert: random ``down``, zero ``up``, untrained gate."""
        self.down.normal_(std=self.down.shape[1] ** -0.5, generator=generator)
        self.up.zero_()
        if self.gate_weight is not None and self.gate_bias is not None:
            self.gate_weight.zero_()
            self.gate_bias.fill_(self.initial_gate_bias)

    def gate(self, x: Tensor) -> Tensor:
        """Openness of the expert for each token, ``(..., d) -> (..., 1)`` in [0, 1]."""
        assert self.gate_weight is not None and self.gate_bias is not None
        weight = self.gate_weight * self.gate_weight.shape[0] ** -0.5
        return F.hardsigmoid(F.linear(x.float(), weight[None], self.gate_bias))  # (..., 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        hidden = self.act(F.linear(x, self.down.to(x.dtype)))  # (..., width)
        gate = None
        if self.gate_weight is not None:
            gate = self.gate(x)
            hidden = hidden * gate.to(x.dtype)
        return F.linear(hidden, self.up.to(x.dtype)), gate  # (..., d)
