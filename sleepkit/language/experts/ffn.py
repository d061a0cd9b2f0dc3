"""Experts made of the block's own kind of units: a narrow copy of the FFN block beside it.

    Llama, Qwen, Gemma, ...    FFN(x) = W_down( act(W_gate x) * (W_up x) )
    an expert of width k       E(x)   = V_down( act((V_gate + s) x) * (V_up x) )       V_gate, V_up: (k, d)   V_down: (d, k)
    with experts               FFN(x) + sum_e E_e(x)  =  the same block with k more hidden units for each expert

so a slept model is a checkpoint of the same architecture with a wider block, which every engine serves (export.py).  ``V_down``
starts at zero: the model's function does not change.  ``s`` (d) is one direction that all units of an expert share, and learns
faster: the unit's own activation is the gate, and ``s`` shuts an expert on general text, where the mean of its hidden units is
held down.  Blocks of two matrices (GPT-2, GPT-NeoX, Falcon, Phi) likewise, with a bias
where theirs have one.

The block's own code computes an expert, with narrow matrices in the places of its own, so that activations and factors are
those of the family.  Where its units do not add up, as in mixtures of experts, there is no such expert (`matrices_of`), and a
gated one is taken (gated.py).  Wider blocks of zero change are those of Net2Net (arXiv 1511.05641) and Locas (arXiv 2602.05085);
the shared direction and the penalty are ours.
"""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["FFNExpert", "Matrices", "joined", "matrices_of"]

INPUT_SIZE, OUTPUT_SIZE = 0.2, 4.8  # of blocks, root mean square, for which learning rates were found (SmolLM2, last quarter)
SHARED_SCALE = 4.0  # of the shared direction, beside the rows of its own that each unit has
PROBED = 2  # units, in the check that units add up
CALLS = ("forward", "_hf_hook", "_old_forward")  # of accelerate, in the block's own dictionary: they move its weights about


@dataclass(frozen=True)
class Matrices:
    """Names of a block's matrices.

    Attributes:
        inner: those that take the block's input, each with the number of hidden units for one of the block: 1, or 2 where one
            matrix holds gate and up projection, one after the other.
        outer: the one whose input are the hidden units.
        gate: the one of ``inner`` whose output, or the first half of it, is activated.
        biased: those of ``inner`` that have a bias.
        width: hidden units of the block.
    """

    inner: dict[str, int]
    outer: str
    gate: str
    biased: frozenset[str]
    width: int


def matrices_of(ffn: nn.Module, hidden_size: int) -> Matrices | None:
    """The matrices of a block that can be made wider; None for one that cannot, such as a mixture of experts."""
    sizes = {name: _sizes(module) for name, module in ffn.named_children() if name != "sleep_experts"}
    known = {name: size for name, size in sizes.items() if size is not None}
    others = [module for name, module in ffn.named_children() if sizes.get(name) is None and name != "sleep_experts"]
    if len(known) < 2 or any(True for module in others for _ in module.parameters()) or any(ffn.parameters(recurse=False)):
        return None
    *inner, outer = known  # in the order in which they were made
    width, out = known[outer]
    units = {name: rows // width for name, (_, rows) in ((name, known[name]) for name in inner)}
    fits = all(known[name] == (hidden_size, count * width) and count in (1, 2) for name, count in units.items())
    if out != hidden_size or not fits:
        return None
    gate = next((name for name in inner if "gate" in name), inner[0])
    biased = frozenset(name for name in inner if getattr(ffn, name).bias is not None)
    found = Matrices(units, outer, gate, biased, width)
    return found if _adds_up(ffn, found, hidden_size) else None


def joined(parts: Sequence[Tensor], count: int, dim: int) -> Tensor:
    """Matrices, or biases, of several groups of units as one; ``count`` as in `Matrices.inner`."""
    halves = zip(*(part.chunk(count, dim) for part in parts), strict=True)
    return torch.cat([torch.cat(half, dim) for half in halves], dim)


class FFNExpert(nn.Module):
    """One slot of one layer: hidden units as those of ``ffn``, with float32 parameters, computed in the dtype of ``x``.

    Its parameters are named as the block's matrices, and ``shared``; biases end in ``_bias``.
    """

    fast: ClassVar[tuple[str, ...]] = ("shared",)  # parameters that learn at the rate of gates
    penalty: ClassVar[float] = 0.7  # of openness, for each 1 of that of a gate, which is never wider open than 1

    def __init__(self, ffn: nn.Module, matrices: Matrices, hidden_size: int, width: int) -> None:
        super().__init__()
        self.matrices, self.width = matrices, width
        self.block = [_narrow(ffn, matrices, hidden_size, width)]  # in a list: it has no weights of its own
        for name, count in matrices.inner.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(count * width, hidden_size)))
            if name in matrices.biased:
                self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(count * width)))
        self.register_parameter(matrices.outer, nn.Parameter(torch.zeros(hidden_size, width)))
        self.shared = nn.Parameter(torch.zeros(hidden_size))

    @property
    def paced(self) -> dict[str, str]:
        """The field of a `Pace` that each parameter learns at, by name; others learn at 1, see `ExpertBank.paces`."""
        return {name: "inner" for name in (*self.matrices.inner, "shared")} | {self.matrices.outer: "outer"}

    @torch.no_grad()
    def reset(self, generator: torch.Generator, pace: float = 1.0) -> None:
        """Make the expert silent again: random inner matrices (drawn on the CPU: equal everywhere), all else zero.

        Args:
            generator: draws the matrices.
            pace: factor of their size, the inner one of `ExpertBank.paces`.
        """
        for name, parameter in self.named_parameters():
            if name in self.matrices.inner:
                spread = pace * parameter.shape[1] ** -0.5
                parameter.copy_(torch.empty(parameter.shape).normal_(std=spread, generator=generator))
            else:
                parameter.zero_()

    def units(self) -> dict[str, Tensor]:
        """Its matrices and biases as those of a plain block, by the names that the block gives them."""
        made = {f"{name}.weight": getattr(self, name) for name in (*self.matrices.inner, self.matrices.outer)}
        made |= {f"{name}.bias": getattr(self, f"{name}_bias") for name in self.matrices.biased}
        gate = f"{self.matrices.gate}.weight"
        shared = SHARED_SCALE * self.shared.shape[0] ** -0.5 * self.shared.expand(self.width, -1)
        made[gate] = made[gate] + (shared if len(made[gate]) == self.width else nn.functional.pad(shared, (0, 0, 0, self.width)))
        return made

    def forward(self, x: Tensor, forced_open: float = 0.0) -> tuple[Tensor, Tensor]:
        """Output and hidden units, ``(..., d) -> (..., d), (..., width)``.

        With ``forced_open`` no unit is activated by less than that: an expert that is shut by its shared direction opens.
        """
        block: Any = self.block[0]
        outer, gate = getattr(block, self.matrices.outer), getattr(block, self.matrices.gate)
        gate.at_least = forced_open
        y = functional_call(block, {name: values.to(x.dtype) for name, values in self.units().items()}, (x,))
        hidden, outer.seen = outer.seen, None
        return y, hidden

    def openness(self, hidden: Tensor) -> Tensor:
        """How far the expert is open for each token, ``(..., width) -> (..., 1)``: the mean absolute value of its units.

        A new expert has about .01, whatever the model, as its inner matrices are drawn at the pace of its inputs.
        """
        return hidden.float().abs().mean(-1, keepdim=True)

    def seen_by_units(self, x: Tensor) -> Tensor:
        """Return its hidden units, ``(..., d) -> (..., width)``."""
        return self(x)[1]

    def strengths(self) -> Tensor:
        """Return the squared norm of what each hidden unit writes, ``(width,)``."""
        return getattr(self, self.matrices.outer).square().sum(0)

    @torch.no_grad()
    def take(self, old: Sequence[FFNExpert], best: Tensor) -> None:
        """Begin as the hidden units ``best`` of all ``old`` experts, one after another."""
        units = [expert.units() for expert in old]
        for name, count in self.matrices.inner.items():
            for full in (f"{name}.weight", *([f"{name}.bias"] if name in self.matrices.biased else [])):
                halves = joined([part[full] for part in units], count, 0).chunk(count)
                self.get_parameter(full.replace(".weight", "").replace(".bias", "_bias")).copy_(
                    torch.cat([h[best] for h in halves])
                )
        outer = torch.cat([part[f"{self.matrices.outer}.weight"] for part in units], 1)
        self.get_parameter(self.matrices.outer).copy_(outer[:, best])
        self.shared.zero_()


class _Inner(nn.Linear):
    """A narrow matrix of the block's input, of which the first ``width`` outputs are at least ``at_least``."""

    width, at_least = 0, 0.0

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return torch.cat([y[..., : self.width].clamp(min=self.at_least), y[..., self.width :]], -1) if self.at_least else y


class _Outer(nn.Linear):
    """The narrow matrix of the hidden units, which remembers them."""

    seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return super().forward(x)


def _narrow(ffn: nn.Module, matrices: Matrices, hidden_size: int, width: int) -> nn.Module:
    """The block's own code over narrow matrices without values, for `functional_call`."""
    block = copy.copy(ffn)
    for name in CALLS:
        block.__dict__.pop(name, None)
    for name, value in vars(ffn).items():
        if name.endswith("_hooks") or name.endswith("_hooks_with_kwargs"):
            block.__dict__[name] = OrderedDict() if isinstance(value, OrderedDict) else type(value)()
    block._modules = {name: module for name, module in ffn._modules.items() if name != "sleep_experts"}
    for name, module in block._modules.items():
        if isinstance(module, nn.Dropout):
            block._modules[name] = nn.Identity()
    for name, count in matrices.inner.items():
        inner = _Inner(hidden_size, count * width, bias=name in matrices.biased, device="meta")
        inner.width = width
        block._modules[name] = inner
    block._modules[matrices.outer] = _Outer(width, hidden_size, bias=False, device="meta")
    return block


def _sizes(module: nn.Module) -> tuple[int, int] | None:
    """Inputs and outputs of a matrix; None for any other module."""
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]
    if type(module).__name__ == "Conv1D":  # GPT-2
        return int(module.nx), int(module.nf)  # type: ignore[arg-type]
    return None


@torch.no_grad()
def _adds_up(ffn: nn.Module, matrices: Matrices, hidden_size: int) -> bool:
    """Whether a block with the units of two experts computes the sum of both: then, and only then, is a wider block exact."""
    needed = [p for p in inspect.signature(type(ffn).forward).parameters.values() if p.default is p.empty and p.kind < 2]
    if len(needed) != 2:  # itself, and its input
        return False
    generator = torch.Generator().manual_seed(0)
    one, two = (FFNExpert(ffn, matrices, hidden_size, PROBED) for _ in range(2))
    both = FFNExpert(ffn, matrices, hidden_size, 2 * PROBED)
    for expert in (one, two):
        for parameter in expert.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
    for name, parameter in both.named_parameters():
        parts = [getattr(expert, name) for expert in (one, two)]
        if name == "shared":
            one.shared.zero_()
            two.shared.zero_()
        elif name == matrices.outer:
            parameter.copy_(torch.cat(parts, 1))
        else:
            parameter.copy_(joined(parts, matrices.inner[name.removesuffix("_bias")], 0))
    x = torch.randn(3, hidden_size, generator=generator)[None]
    try:
        return torch.allclose(both(x)[0], one(x)[0] + two(x)[0], rtol=1e-4, atol=1e-4)
    except (RuntimeError, TypeError, ValueError, AttributeError):  # it computes with more than its matrices
        return False
