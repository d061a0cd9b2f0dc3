"""The experts beside the FFN blocks of a decoder: the modules of one layer, and what a bank of them is (bank.py).

ffn      hidden units of the block's own kind (ffn.py): a slept model is a plain one with wider blocks
gated    low-rank blocks with a gate of their own (gated.py), for blocks that cannot be made wider
ungated  the same without a gate, as in the paper ("Language Models Need Sleep", arXiv 2606.03979)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from sleepkit.errors import SleepkitError
from sleepkit.language.config import ExpertKind
from sleepkit.language.experts.ffn import FFNExpert, Matrices, matrices_of
from sleepkit.language.experts.gated import GatedExpert

Expert = FFNExpert | GatedExpert
OUTPUT_NORMS = ("post_feedforward_layernorm", "post_mlp_layernorm")  # names in layers, of a norm behind the FFN block
WIDTHS = {"ffn": 128, "gated": 192, "ungated": 192}  # hidden units; a unit of a block has three vectors, others two

# Names for layers: the last of them, as a share of all.  Late experts keep to their own night: experts in the layers about the
# middle open for other nights' words, where nothing tells yet whom a sentence is about.
LAYER_SHARES = {"all": 1.0, "last_half": 1 / 2, "last_quarter": 1 / 4}


@dataclass
class ExpertBankConfig:
    """Size and place of the experts.  All fields are saved beside the weights.

    Args:
        slots (`int`, defaults to 8): experts in a layer, allocated up front; one is used a night.
        width (`int`, *optional*): hidden units of an expert; as many parameters by default with either kind, see `WIDTHS`.
        layers (`str` or list of `int`, defaults to `"last_quarter"`): "all", "last_half", "last_quarter", or layer indices.
        kind (`str`, defaults to `"auto"`): "ffn", "gated" or "ungated" as above; "auto": "ffn" where the FFN blocks suit it,
            "gated" elsewhere.

    Example:

        >>> ExpertBankConfig(slots=5, width=64, layers=[20, 21, 22])
    """

    slots: int = field(default=8, metadata={"help": "Experts per layer, allocated up front; one is used per night."})
    width: int | None = field(default=None, metadata={"help": "Hidden units of one expert (the paper: 64)."})
    layers: str | list[int] = field(
        default="last_quarter",
        metadata={"help": "Layers that carry experts: 'all', 'last_half', 'last_quarter', or a list of layer indices."},
    )
    kind: str = field(
        default="auto",
        metadata={"help": "'ffn': units of the model's own FFN blocks; 'gated', 'ungated': low-rank blocks; 'auto': what fits."},
    )

    @classmethod
    def read(cls, saved: dict[str, Any]) -> ExpertBankConfig:
        """Make it from what was saved; experts of the first versions have no kind, and say whether they are gated."""
        saved = {name: value for name, value in saved.items() if name not in ("activation", "gate_bias")}
        if "gate" in saved:
            saved["kind"] = "gated" if saved.pop("gate") else "ungated"
        return cls(**saved)


def widened(kind: str, ffns: Sequence[nn.Module], hidden_size: int) -> list[Matrices] | list[None]:
    """Find the matrices of FFN blocks to which experts add units; None for each where experts are low-rank blocks.

    Args:
        kind: as of `ExpertBankConfig`.
        ffns: the blocks of the layers that get experts.
        hidden_size: of the model.

    Raises:
        SleepkitError: units are asked for that one of the blocks cannot take, or an unknown kind.
    """
    if kind not in get_args(ExpertKind):
        raise SleepkitError(f"expert kind is {kind!r}; use one of {', '.join(get_args(ExpertKind))}")
    if kind not in ("auto", "ffn"):
        return [None] * len(ffns)
    found = []
    for ffn in ffns:
        matrices = matrices_of(ffn, hidden_size)
        if matrices is None and kind == "ffn":
            raise SleepkitError(
                f"{type(ffn).__name__} cannot be made wider by units of its own, as a mixture of experts cannot; "
                "use experts of kind 'gated'"
            )
        if matrices is None:
            return [None] * len(ffns)
        found.append(matrices)
    return found


def has_output_norm(layer: nn.Module) -> bool:
    """Whether a layer normalises what its FFN block puts out, as Gemma and OLMo 2 do."""
    return any(hasattr(layer, name) for name in OUTPUT_NORMS)


@dataclass(frozen=True)
class Pace:
    """How fast the weights of an expert learn, as a factor of the learning rate.

    Attributes:
        inner: of the matrices of the block's inputs, which also begin so large.
        outer: of the matrix that writes the block's output.
    """

    inner: float = 1.0
    outer: float = 1.0


class LayerExperts(nn.Module):
    """The slots of one layer.  ``visible`` names those that take part in the forward pass."""

    def __init__(self, ffn: nn.Module, matrices: Matrices | None, hidden_size: int, config: ExpertBankConfig) -> None:
        super().__init__()
        width = config.width or WIDTHS[config.kind]
        self.slots = nn.ModuleList(
            FFNExpert(ffn, matrices, hidden_size, width) if matrices else GatedExpert(hidden_size, width, config.kind == "gated")
            for _ in range(config.slots)
        )
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
            y, seen = self[index](x, self.forced_open.get(index, 0.0))
            if index == self.keep_gates_of or torch.is_grad_enabled() and next(self[index].parameters()).requires_grad:
                gates = self[index].openness(seen)  # also where activations are recomputed, when nobody keeps them
                self.gates = gates if index == self.keep_gates_of else None
            total = y if total is None else total + y
        return total


@torch.no_grad()
def block_inputs(
    model: nn.Module, layers: Sequence[LayerExperts], batches: Iterable[Mapping[str, Any]]
) -> Iterator[list[Tensor]]:
    """Read ``batches`` in evaluation, and yield of each what the blocks beside ``layers`` saw, ``(batch * time, d)``."""
    seen: dict[nn.Module, Tensor] = {}
    hooks = [experts.register_forward_pre_hook(lambda module, args: seen.update({module: args[0]})) for experts in layers]
    training = model.training
    model.eval()
    try:
        for batch in batches:
            model(**batch)
            yield [seen[experts].flatten(0, -2) for experts in layers]
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()


def add_experts(ffn: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Forward hook of an FFN block: output + experts(input).  Some MoE blocks return a tuple that starts with it."""
    x = args[0] if args else kwargs["hidden_states"]
    extra = ffn.sleep_experts(x)  # type: ignore[operator]
    if extra is None:
        return output
    if isinstance(output, tuple):
        return (output[0] + extra.view_as(output[0]), *output[1:])
    return output + extra
