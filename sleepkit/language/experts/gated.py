"""Experts with a gate of their own: masked low-rank blocks, beside FFN blocks that cannot be made wider (mixtures of experts).

For a decoder layer with feed-forward block ``FFN`` and experts ``e = 1..slots``::

    FFN'(x) = FFN(x) + sum_{e active} g_e(x) * up_e( act(down_e x) )        x: (batch, time, d)
    g_e(x)  = hardsigmoid(w_e . x / sqrt(d) + b_e)   in [0, 1], one number per token

``down_e`` is ``(width, d)``, ``up_e`` is ``(d, width)`` and starts at zero, so activating a slot leaves the
model's function exactly as it was (Net2Net, arXiv 1511.05641; LLaMA-Pro, arXiv 2401.02415).

Ours, not the paper's: the gate that is learned with the expert (a *hard* sigmoid, so that a gate can be exactly zero
and a silent expert changes nothing at all, with a sigmoid's gradient, so that it can open again).

Left out: routing between experts.  Every active expert sees every token and its own gate decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

__all__ = ["GatedExpert"]


class GatedExpert(nn.Module):
    """One slot of one layer: ``g(x) * up(act(down x))``, fp32 parameters, computed in the dtype of ``x``.

    Args:
        hidden_size, width: of the model, and of the expert.
        gated: whether it has a gate; without one it is always open.
    """

    paced: ClassVar[dict[str, str]] = {}  # as of `FFNExpert`
    fast: ClassVar[tuple[str, ...]] = ("gate_weight", "gate_bias")  # parameters that learn at the rate of gates
    penalty: ClassVar[float] = 1.0  # of openness

    def __init__(self, hidden_size: int, width: int, gated: bool = True) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.zeros(width, hidden_size, dtype=torch.float32))
        self.up = nn.Parameter(torch.zeros(hidden_size, width, dtype=torch.float32))
        self.gate_weight = nn.Parameter(torch.zeros(hidden_size, dtype=torch.float32)) if gated else None
        self.gate_bias = nn.Parameter(torch.zeros(1, dtype=torch.float32)) if gated else None
        self.act = ACT2FN["silu"]

    @torch.no_grad()
    def reset(self, generator: torch.Generator, pace: float = 1.0) -> None:
        """Make the expert silent again: random ``down`` (drawn on the CPU: equal everywhere), zero ``up``, fresh gate."""
        self.down.copy_(torch.empty(self.down.shape).normal_(std=self.down.shape[1] ** -0.5, generator=generator))
        self.up.zero_()
        if self.gate_weight is not None and self.gate_bias is not None:
            self.gate_weight.zero_()
            self.gate_bias.zero_()

    def gate(self, x: Tensor) -> Tensor:
        """Openness of the expert for each token, ``(..., d) -> (..., 1)`` in [0, 1]."""
        assert self.gate_weight is not None and self.gate_bias is not None
        weight = self.gate_weight.float() * self.gate_weight.shape[0] ** -0.5
        logit = F.linear(x.float(), weight[None], self.gate_bias.float())  # (..., 1)
        soft = torch.sigmoid(logit * (2 / 3))  # same slope at 0; its gradient lets a closed gate open again
        return F.hardsigmoid(logit).detach() + (soft - soft.detach())

    def hidden(self, x: Tensor, forced_open: float = 0.0) -> tuple[Tensor, Tensor | None]:
        """Gated hidden units and the gate, ``(..., d) -> (..., width), (..., 1)``; the gate is at least ``forced_open`` open."""
        hidden = self.act(F.linear(x, self.down.to(x.dtype)))
        if self.gate_weight is None:
            return hidden, None
        gate = self.gate(x)
        gate = gate.clamp(min=forced_open) if forced_open else gate
        return hidden * gate.to(x.dtype), gate

    def forward(self, x: Tensor, forced_open: float = 0.0) -> tuple[Tensor, Tensor | None]:
        if self.gate_weight is not None and not forced_open and not self.down.requires_grad and x.device.type == "cpu":
            return self._where_open(x)
        hidden, gate = self.hidden(x, forced_open)
        return F.linear(hidden, self.up.to(x.dtype)), gate  # (..., d), (..., 1)

    def _where_open(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute `forward` of a frozen expert for the few tokens that open its gate: old nights cost almost nothing.

        Not on a GPU, which would wait for the number of tokens, and where the product is cheap.
        """
        gate = self.gate(x)
        opened = gate[..., 0] > 0
        hidden = self.act(F.linear(x[opened], self.down.to(x.dtype))) * gate[opened].to(x.dtype)
        made = F.linear(hidden, self.up.to(x.dtype))  # under autocast of another type than x
        return torch.zeros_like(x, dtype=made.dtype).masked_scatter(opened[..., None], made), gate

    def openness(self, gate: Tensor | None) -> Tensor | None:
        """How far the expert is open for each token, ``(..., 1)``: what `forward` returned beside its output."""
        return gate

    def seen_by_units(self, x: Tensor) -> Tensor:
        """Return its hidden units, ``(..., d) -> (..., width)``."""
        return self.hidden(x)[0]

    def strengths(self) -> Tensor:
        """Return the squared norm of what each hidden unit writes, ``(width,)``."""
        return self.up.square().sum(0)

    @torch.no_grad()
    def take(self, old: Sequence[GatedExpert], best: Tensor) -> None:
        """Begin as the hidden units ``best`` of all ``old`` experts, one after another, and with the mean of their gates."""
        self.down.copy_(torch.cat([expert.down for expert in old])[best])
        self.up.copy_(torch.cat([expert.up for expert in old], dim=1)[:, best])
        for name in self.fast:
            if getattr(self, name) is not None:
                getattr(self, name).copy_(torch.stack([getattr(expert, name) for expert in old]).mean(0))
