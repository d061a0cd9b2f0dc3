"""Masked low-rank experts beside the FFN blocks of a decoder: the modules.  Their handle is `bank.ExpertBank`.

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

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

# Names for layers: the last of them, as a share of all.  Late experts keep to their own night: experts in the layers about the
# middle open for other nights' words, where nothing tells yet whom a sentence is about.
LAYER_SHARES = {"all": 1.0, "last_half": 1 / 2, "last_quarter": 1 / 4}


@dataclass
class ExpertBankConfig:
    """Size and place of the experts.  All fields are saved beside the weights.

    Args:
        slots (`int`, defaults to 8): experts in a layer, allocated up front; one is used a night.
        width (`int`, defaults to 192): hidden units of an expert.
        layers (`str` or list of `int`, defaults to `"last_quarter"`): "all", "last_half", "last_quarter", or layer indices.
        activation (`str`, defaults to `"silu"`): a name of transformers' `ACT2FN`.
        gate (`bool`, defaults to `True`): learn how far each token opens an expert, from 0 to 1.
        gate_bias (`float`, defaults to 0): where gates start; 0 is half open, 3 fully.

    Example:

        >>> ExpertBankConfig(slots=5, width=64, layers=[20, 21, 22])
    """

    slots: int = field(default=8, metadata={"help": "Experts per layer, allocated up front; one is used per night."})
    width: int = field(default=192, metadata={"help": "Hidden width of one expert (the paper: 64)."})
    layers: str | list[int] = field(
        default="last_quarter",
        metadata={"help": "Layers that carry experts: 'all', 'last_half', 'last_quarter', or a list of layer indices."},
    )
    activation: str = field(default="silu", metadata={"help": "Nonlinearity of an expert, a name of transformers' ACT2FN."})
    gate: bool = field(default=True, metadata={"help": "Learn one gate per expert and token; without it an expert is always on."})
    gate_bias: float = field(default=0.0, metadata={"help": "Initial gate bias: 0 starts half open, 3 fully open."})


class Expert(nn.Module):
    """One slot of one layer: ``g(x) * up(act(down x))``, fp32 parameters, computed in the dtype of ``x``."""

    def __init__(self, hidden_size: int, config: ExpertBankConfig) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.zeros(config.width, hidden_size, dtype=torch.float32))
        self.up = nn.Parameter(torch.zeros(hidden_size, config.width, dtype=torch.float32))
        self.gate_weight = nn.Parameter(torch.zeros(hidden_size, dtype=torch.float32)) if config.gate else None
        self.gate_bias = nn.Parameter(torch.zeros(1, dtype=torch.float32)) if config.gate else None
        self.act = ACT2FN[config.activation]
        self.initial_gate_bias = config.gate_bias

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Make the expert silent again: random ``down`` (drawn on the CPU: equal everywhere), zero ``up``, fresh gate."""
        self.down.copy_(torch.empty(self.down.shape).normal_(std=self.down.shape[1] ** -0.5, generator=generator))
        self.up.zero_()
        if self.gate_weight is not None and self.gate_bias is not None:
            self.gate_weight.zero_()
            self.gate_bias.fill_(self.initial_gate_bias)

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


class LayerExperts(nn.Module):
    """The slots of one layer.  ``visible`` names those that take part in the forward pass."""

    def __init__(self, hidden_size: int, config: ExpertBankConfig) -> None:
        super().__init__()
        self.slots = nn.ModuleList(Expert(hidden_size, config) for _ in range(config.slots))
        self.visible: tuple[int, ...] = ()
        self.bank: Any = None  # the way from the model to its bank, through any wrapper and deepcopy
        self.forced_open: dict[int, float] = {}  # slots whose gates are at least so far open, 0 to 1
        self.keep_gates_of: int | None = None  # a slot whose gates the loss wants to see
        self.gates: Tensor | None = None

    def __getitem__(self, slot: int) -> Expert:
        return cast(Expert, self.slots[slot])

    def forward(self, x: Tensor) -> Tensor | None:
        total = None
        for index in self.visible:
            y, gate = self[index](x, self.forced_open.get(index, 0.0))
            if index == self.keep_gates_of:
                self.gates = gate
            total = y if total is None else total + y
        return total


def add_experts(ffn: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Forward hook of an FFN block: output + experts(input).  Some MoE blocks return a tuple that starts with it."""
    x = args[0] if args else kwargs["hidden_states"]
    extra = ffn.sleep_experts(x)  # type: ignore[operator]
    if extra is None:
        return output
    if isinstance(output, tuple):
        return (output[0] + extra.view_as(output[0]), *output[1:])
    return output + extra
