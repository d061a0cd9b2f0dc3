"""Masked low-rank experts beside the FFN blocks of any Hugging Face decoder.

For a decoder layer with feed-forward block ``FFN`` and experts ``e = 1..slots``::

    FFN'(x) = FFN(x) + sum_{e active} g_e(x) * up_e( act(down_e x) )        x: (batch, time, d)
    g_e(x)  = hardsigmoid(w_e . x / sqrt(d) + b_e)   in [0, 1], one number per token

``down_e`` is ``(width, d)``, ``up_e`` is ``(d, width)`` and starts at zero, so activating a slot leaves the
model's function exactly as it was (Net2Net, arXiv 1511.05641; LLaMA-Pro, arXiv 2401.02415).  The slots are
allocated up front and masked until their night comes ("Language Models Need Sleep", arXiv 2606.03979:
5 blocks of dimension 64 appended to the MLPs, only the new one trains).

Ours, not the paper's: the gate that is learned with the expert (a *hard* sigmoid, so that a gate can be exactly zero
and a silent expert changes nothing at all, with a sigmoid's gradient, so that it can open again), the choice of layers,
and the merge when the pool is full.

Left out: routing between experts.  Every active expert sees every token and its own gate decides.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from sleepkit.errors import SleepkitError
from sleepkit.results import write_json

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
        self.down = nn.Parameter(torch.zeros(config.width, hidden_size, dtype=torch.float32))
        self.up = nn.Parameter(torch.zeros(hidden_size, config.width, dtype=torch.float32))
        self.gate_weight = nn.Parameter(torch.zeros(hidden_size, dtype=torch.float32)) if config.gate else None
        self.gate_bias = nn.Parameter(torch.zeros(1, dtype=torch.float32)) if config.gate else None
        self.act = ACT2FN[config.activation]
        self.initial_gate_bias = config.gate_bias

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Back to a silent expert: random ``down`` (drawn on the CPU: equal everywhere), zero ``up``, fresh gate."""
        self.down.copy_(torch.empty(self.down.shape).normal_(std=self.down.shape[1] ** -0.5, generator=generator))
        self.up.zero_()
        if self.gate_weight is not None and self.gate_bias is not None:
            self.gate_weight.zero_()
            self.gate_bias.fill_(self.initial_gate_bias)

    def gate(self, x: Tensor) -> Tensor:
        """Openness of the expert for each token, ``(..., d) -> (..., 1)`` in [0, 1]."""
        assert self.gate_weight is not None and self.gate_bias is not None
        weight = self.gate_weight * self.gate_weight.shape[0] ** -0.5
        logit = F.linear(x.float(), weight[None], self.gate_bias)  # (..., 1)
        soft = torch.sigmoid(logit * (2 / 3))  # same slope at 0; its gradient lets a closed gate open again
        return F.hardsigmoid(logit).detach() + (soft - soft.detach())

    def hidden(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gated hidden units and the gate, ``(..., d) -> (..., width), (..., 1)``."""
        hidden = self.act(F.linear(x, self.down.to(x.dtype)))
        if self.gate_weight is None:
            return hidden, None
        gate = self.gate(x)
        return hidden * gate.to(x.dtype), gate

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        hidden, gate = self.hidden(x)
        return F.linear(hidden, self.up.to(x.dtype)), gate  # (..., d), (..., 1)


class LayerExperts(nn.Module):
    """The slots of one layer.  ``visible`` names those that take part in the forward pass."""

    def __init__(self, hidden_size: int, config: ExpertBankConfig) -> None:
        super().__init__()
        self.slots = nn.ModuleList(Expert(hidden_size, config) for _ in range(config.slots))
        self.visible: tuple[int, ...] = ()
        self.bank: ExpertBank | None = None  # the way from the model to its bank, through any wrapper and deepcopy
        self.keep_gates_of: int | None = None  # a slot whose gates the loss wants to see
        self.gates: Tensor | None = None

    def __getitem__(self, slot: int) -> Expert:
        return cast(Expert, self.slots[slot])

    def forward(self, x: Tensor) -> Tensor | None:
        total = None
        for index in self.visible:
            y, gate = self[index](x)
            if index == self.keep_gates_of:
                self.gates = gate
            total = y if total is None else total + y
        return total


def _add_experts(ffn: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Forward hook of an FFN block: output + experts(input).  Some MoE blocks return a tuple that starts with it."""
    x = args[0] if args else kwargs["hidden_states"]
    extra = ffn.sleep_experts(x)  # type: ignore[operator]
    if extra is None:
        return output
    if isinstance(output, tuple):
        return (output[0] + extra.view_as(output[0]), *output[1:])
    return output + extra


@contextmanager
def whole(parameters: Iterable[nn.Parameter], write: bool = False) -> Iterator[None]:
    """Inside, parameters that ZeRO-3 has split over the ranks are whole; with ``write``, rank 0's changes are kept."""
    split = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not split:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(split, modifier_rank=0 if write else None):
        yield


def unsplit(model: nn.Module) -> None:
    """Undo ZeRO-3's split for good: every rank holds plain, whole parameters again.  Nothing to do for other models."""
    split = [parameter for parameter in model.parameters() if hasattr(parameter, "ds_id")]
    with whole(split):
        plain = {id(p): nn.Parameter(p.detach().clone(), requires_grad=p.requires_grad) for p in split}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if id(parameter) in plain:
                module._parameters[name] = plain[id(parameter)]


def find_decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder's list of layers in any Hugging Face causal LM (or a PEFT model around one).

    Raises:
        SleepkitError: when no list of ``num_hidden_layers`` blocks is found.
    """
    count = getattr(_text_config(model), "num_hidden_layers", None)
    decoder = getattr(model, "get_decoder", lambda: model)()  # past the vision tower of a multimodal model
    for module in decoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and find_ffn(module[0]) is not None:
            return module
    raise SleepkitError(
        f"{type(model).__name__} has no list of {count} decoder layers with an FFN block named one of "
        f"{', '.join(FFN_NAMES)}; the expert bank can only grow decoders of that form"
    )


def _text_config(model: nn.Module) -> Any:
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else None


def find_ffn(layer: nn.Module) -> nn.Module | None:
    return next((getattr(layer, name) for name in FFN_NAMES if isinstance(getattr(layer, name, None), nn.Module)), None)


class ExpertBank:
    """Handle on the experts of a grown model: activate, view, reset, merge, save, load.

    The experts live in the model itself (``layer.mlp.sleep_experts``), so ``model.parameters()``, DDP, DeepSpeed and
    gradient checkpointing see them; the bank only switches them.  Use :meth:`grow` or :meth:`load`.

    Attributes:
        active: indices of the slots in use, in the order of their nights.
        layers: indices of the decoder layers that carry experts.
    """

    def __init__(self, model: nn.Module, config: ExpertBankConfig, layers: list[int], active: Iterable[int] = ()) -> None:
        self.model = model
        self.config = config
        self.layers = layers
        self.active: list[int] = list(active)
        for experts in self.per_layer():
            experts.bank = self
        self._show(self.active)

    # -- growing ------------------------------------------------------------------------------------------------
    @classmethod
    def grow(cls, model: nn.Module, config: ExpertBankConfig | None = None) -> ExpertBank:
        """Add masked experts to ``model`` in place; its function does not change (difference exactly 0).

        Raises:
            SleepkitError: no FFN blocks found, already grown, or a layer index out of range.
        """
        config = config or ExpertBankConfig()
        model = getattr(model, "get_base_model", lambda: model)()  # of PEFT: it outlives its wrapper
        if any(isinstance(module, LayerExperts) for module in model.modules()):
            raise SleepkitError("this model has an expert bank already; use `ExpertBank.of(model)`")
        if config.activation not in ACT2FN:
            raise SleepkitError(f"activation {config.activation!r} is unknown; use one of transformers' ACT2FN, such as 'silu'")
        for name in ("slots", "width"):
            if getattr(config, name) < 1:
                raise SleepkitError(f"expert {name} must be at least 1, got {getattr(config, name)}")
        decoder = find_decoder_layers(model)
        indices = _layer_indices(config.layers, len(decoder))
        hidden_size = _text_config(model).hidden_size
        for index in indices:
            ffn = find_ffn(decoder[index])
            if ffn is None:
                raise SleepkitError(f"decoder layer {index} has no FFN block; choose `layers` that have one")
            experts = LayerExperts(hidden_size, config)
            experts.to(next(decoder[index].parameters()).device)
            experts.requires_grad_(False)
            ffn.sleep_experts = experts
            ffn.register_forward_hook(_add_experts, with_kwargs=True)
        return cls(model, config, indices)

    @staticmethod
    def of(model: nn.Module) -> ExpertBank:
        """The bank of a grown model (also through PEFT, DDP or DeepSpeed wrappers)."""
        for module in model.modules():
            if isinstance(module, LayerExperts) and module.bank is not None:
                return module.bank
        raise SleepkitError(f"{type(model).__name__} has no expert bank; grow one with `ExpertBank.grow(model)`")

    # -- using --------------------------------------------------------------------------------------------------
    def per_layer(self) -> Iterator[LayerExperts]:
        """The experts of each grown layer, lowest layer first."""
        decoder = find_decoder_layers(self.model)
        for index in self.layers:
            yield find_ffn(decoder[index]).sleep_experts  # type: ignore[union-attr,misc]

    def parameters(self, slot: int) -> list[nn.Parameter]:
        """All parameters of one slot, over all layers."""
        return [parameter for experts in self.per_layer() for parameter in experts[slot].parameters()]

    def named_parameters(self, slot: int) -> dict[str, nn.Parameter]:
        """Parameters of one slot by name, ``layer.<index>.<name>``."""
        return {
            f"layer.{index}.{name}": parameter
            for index, experts in zip(self.layers, self.per_layer(), strict=True)
            for name, parameter in experts[slot].named_parameters()
        }

    def activate(self, seed: int = 0) -> int:
        """Take the next free slot into use, freshly initialised and the only trainable one; returns its index.

        Raises:
            SleepkitError: the pool is full.
        """
        free = [slot for slot in range(self.config.slots) if slot not in self.active]
        if not free:
            raise SleepkitError(
                f"all {self.config.slots} experts are in use; grow with more `slots`, or merge the two oldest with "
                "`sleepkit.language.merge.merge_oldest`"
            )
        slot = free[0]
        self.reset(slot, seed)
        self.active.append(slot)
        self._show(self.active)
        self.train_only(slot)
        return slot

    def train_only(self, slot: int | None) -> None:
        """Let gradients reach one slot (or none) and nothing else of the model."""
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        if slot is not None:
            for parameter in self.parameters(slot):
                parameter.requires_grad_(True)

    def reset(self, slot: int, seed: int = 0) -> None:
        """Put a slot back to the silent expert that it was before its night; it stays in use."""
        generator = torch.Generator().manual_seed(seed * 1009 + slot)
        for experts in self.per_layer():
            with whole(experts[slot].parameters(), write=True):
                experts[slot].reset(generator)

    def deactivate(self, slot: int) -> None:
        """Reset a slot and mask it again ("synaptic pruning").

        Raises:
            SleepkitError: the slot is not in use.
        """
        if slot not in self.active:
            raise SleepkitError(f"expert {slot} is not in use, so it cannot be deactivated; in use: {self.active}")
        self.reset(slot)
        for parameter in self.parameters(slot):
            parameter.requires_grad_(False)
        self.active.remove(slot)
        self._show(self.active)

    @contextmanager
    def view(self, active: Iterable[int]) -> Iterator[None]:
        """The same weights with only these slots visible: the teacher is ``view(those before tonight)``."""
        before = [experts.visible for experts in self.per_layer()]
        self._show(active)
        try:
            yield
        finally:
            for experts, visible in zip(self.per_layer(), before, strict=True):
                experts.visible = visible

    @contextmanager
    def watch_gates(self, slot: int) -> Iterator[list[LayerExperts]]:
        """Keep the gates of ``slot`` from each forward pass inside; read them from ``.gates`` of each layer."""
        layers = list(self.per_layer())
        for experts in layers:
            experts.keep_gates_of = slot
        try:
            yield layers
        finally:
            for experts in layers:
                experts.keep_gates_of, experts.gates = None, None

    def _show(self, active: Iterable[int]) -> None:
        visible = tuple(active)
        for experts in self.per_layer():
            experts.visible = visible

    # -- keeping ------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the active slots' parameters on the CPU, ``slot.<slot>.layer.<index>.<name>``."""
        state: dict[str, Tensor] = {}
        for slot in self.active:
            named = self.named_parameters(slot)
            with whole(named.values()):
                state |= {f"slot.{slot}.{name}": parameter.detach().cpu().clone() for name, parameter in named.items()}
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor], active: Iterable[int]) -> None:
        """Put saved slots back, bit for bit, and mask all others.

        Raises:
            SleepkitError: a slot does not exist, or a tensor is missing or has another shape; nothing is changed then.
        """
        active = list(active)
        if any(slot not in range(self.config.slots) for slot in active):
            raise SleepkitError(f"saved experts {active} do not fit in {self.config.slots} slots; grow with more `slots`")
        targets = {f"slot.{slot}.{name}": parameter for slot in active for name, parameter in self.named_parameters(slot).items()}
        with whole(targets.values(), write=True):
            for key, parameter in targets.items():
                if key not in state or state[key].shape != parameter.shape:
                    found = tuple(state[key].shape) if key in state else "missing"
                    raise SleepkitError(
                        f"saved experts do not fit: {key} should be {tuple(parameter.shape)}, is {found}; "
                        "load them into the model they were grown on"
                    )
            for key, parameter in targets.items():
                parameter.copy_(state[key])
        self.active = active
        self._show(active)

    def save(self, folder: str | Path, base_model: str | None = None) -> None:
        """Write ``expert_bank.safetensors`` and ``expert_bank.json`` (adapter-like: without the base weights).

        Args:
            base_model: Hub id or folder of the base, for a folder that is to hold nothing but the experts.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{WEIGHTS_NAME}.{os.getpid()}.tmp"  # renamed when whole: a killed run leaves no half file
        try:
            save_file(self.state_dict(), draft, metadata={"format": "pt"})
            os.replace(draft, folder / WEIGHTS_NAME)
        finally:
            draft.unlink(missing_ok=True)
        document = {
            "config": asdict(self.config),
            "layers": self.layers,
            "active": self.active,
            "base_shape": _base_shape(self.model),
            "base_model": base_model,
        }
        write_json(folder / CONFIG_NAME, document)

    @classmethod
    def load(cls, model: nn.Module, folder: str | Path) -> ExpertBank:
        """Grow ``model`` as the saved bank was and load its experts.

        Raises:
            SleepkitError: files missing, cut short, or made for a model of another shape.
        """
        document = read_bank_config(folder)
        if document["base_shape"] != _base_shape(model):
            raise SleepkitError(
                f"{folder} holds experts of a model with {document['base_shape']}, this one has {_base_shape(model)}; "
                "load them into the model they were grown on"
            )
        try:
            state = load_file(Path(folder) / WEIGHTS_NAME)
        except Exception as error:
            raise SleepkitError(f"{Path(folder) / WEIGHTS_NAME} cannot be read ({error}); copy it again") from error
        bank = cls.grow(model, ExpertBankConfig(**{**document["config"], "layers": document["layers"]}))
        bank.load_state_dict(state, document["active"])
        return bank


def read_bank_config(folder: str | Path) -> dict[str, Any]:
    """``expert_bank.json`` of a folder.

    Raises:
        SleepkitError: not there or not valid.
    """
    path = Path(folder) / CONFIG_NAME
    if not path.is_file():
        raise SleepkitError(f"{folder} has no {CONFIG_NAME}; give a folder written by sleepkit")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        ExpertBankConfig(**document["config"])
        missing = {"layers", "active", "base_shape"} - set(document)
    except (ValueError, TypeError, KeyError) as error:
        raise SleepkitError(f"{path} is not a valid expert bank configuration ({error}); copy it again") from error
    if missing:
        raise SleepkitError(f"{path} lacks {', '.join(sorted(missing))}; copy it again")
    return document


def _base_shape(model: nn.Module) -> dict[str, Any]:
    """What tells a model from one that the experts were not made for."""
    config = _text_config(model)
    return {name: getattr(config, name, None) for name in ("model_type", "hidden_size", "num_hidden_layers")}


def _layer_indices(layers: str | list[int], count: int) -> list[int]:
    if layers == "all":
        return list(range(count))
    if layers == "last_half":
        return list(range(count // 2, count))
    if isinstance(layers, str) or not layers or any(not 0 <= index < count for index in layers):
        raise SleepkitError(f"layers {layers!r} is neither 'all', 'last_half' nor a list of indices from 0 to {count - 1}")
    return sorted(set(layers))
