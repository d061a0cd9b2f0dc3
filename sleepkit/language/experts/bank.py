"""The expert bank: grow any Hugging Face decoder by masked experts, take one into use per night, undo, save, load.

The slots are allocated up front and masked until their night comes ("Language Models Need Sleep", arXiv 2606.03979:
5 blocks of dimension 64 appended to the MLPs, only the new one trains).  What an expert computes is in units.py.

Ours, not the paper's: the choice of layers, and the merge when the pool is full (merge.py).
"""

from __future__ import annotations

import inspect
import json
import math
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sleepkit.errors import SleepkitError
from sleepkit.language.experts.ffn import INPUT_SIZE, OUTPUT_SIZE
from sleepkit.language.experts.units import (
    LAYER_SHARES,
    WIDTHS,
    ExpertBankConfig,
    LayerExperts,
    Pace,
    add_experts,
    block_inputs,
    has_output_norm,
    widened,
)
from sleepkit.language.models.base_model import (
    CONFIG_NAME,
    INSIDE,
    WEIGHTS_NAME,
    BaseModel,
    base_of,
    check_fingerprint,
    fingerprint,
    prompts_of,
    remember_prompts,
)
from sleepkit.language.models.decoder import find_decoder, find_decoder_layers, find_ffn, text_config, without_adapter
from sleepkit.language.models.zero3 import whole
from sleepkit.utils.files import replacing, write_json
from sleepkit.utils.seeds import derive_seed

PROBED = 64  # drawn tokens, by which inputs are measured


class ExpertBank:
    """Handle on the experts of a grown model: activate, view, reset, merge, save, load.

    The experts live in the model itself (``layer.mlp.sleep_experts``), so ``model.parameters()``, DDP, DeepSpeed and
    gradient checkpointing see them; the bank only switches them.  Use :meth:`grow` or :meth:`load`.

    Args:
        model (`nn.Module`): the grown model.
        config (`ExpertBankConfig`): size and place of the experts.
        layers (list of `int`): indices of the decoder layers that carry experts.
        active (list of `int`): indices of the slots in use, in the order of their nights.

    Raises:
        SleepkitError: by its methods, for a model without FFN blocks, a full pool, or saved experts of another model.

    Example:

        >>> bank = ExpertBank.grow(model, ExpertBankConfig(slots=4, width=64, layers="last_half"))
        >>> slot = bank.activate(seed=1)  # the one that trains now
        >>> with bank.view(()):  # the model before any night
        ...     model(input_ids)
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
        model = without_adapter(model)  # of PEFT: it outlives its wrapper
        if any(isinstance(module, LayerExperts) for module in model.modules()):
            raise SleepkitError("this model has an expert bank already; use `ExpertBank.of(model)`")
        for name, number in (("slots", config.slots), ("width", config.width)):
            if number is not None and number < 1:
                raise SleepkitError(f"expert {name} must be at least 1, got {number}")
        decoder = find_decoder_layers(model)
        _check_grows(model)
        able = [index for index, layer in enumerate(decoder) if find_ffn(layer) is not None]
        indices = _layer_indices(config.layers, able, len(decoder))
        hidden_size = text_config(model).hidden_size
        ffns: list[Any] = [find_ffn(decoder[index]) for index in indices]
        if None in ffns:
            raise SleepkitError(f"decoder layer {indices[ffns.index(None)]} has no FFN block; choose `layers` that have one")
        found = widened(config.kind, ffns, hidden_size)
        kind = config.kind if config.kind != "auto" else "gated" if None in found else "ffn"
        config = replace(config, kind=kind, width=config.width or WIDTHS[kind])
        for index, ffn, matrices in zip(indices, ffns, found, strict=True):
            experts = LayerExperts(ffn, matrices, hidden_size, config)
            experts.to(next(decoder[index].parameters()).device)
            experts.requires_grad_(False)
            ffn.sleep_experts = experts
            ffn.register_forward_hook(add_experts, with_kwargs=True)
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

    def fast_parameters(self, slot: int) -> set[str]:
        """Names of those that learn faster than the others, as they decide where the expert is open."""
        fast = next(iter(self.per_layer()))[slot].fast
        return {name for name in self.named_parameters(slot) if name.rpartition(".")[2] in fast}

    def rates(self, slot: int, fast: float) -> dict[str, float]:
        """Learning rate of each parameter, by name, relative to that of an expert; ``fast`` is that of `fast_parameters`."""
        pace_of, expert = dict(zip(self.layers, self.paces, strict=True)), next(iter(self.per_layer()))[slot]
        rates = {}
        for name in self.named_parameters(slot):
            _, layer, own = name.split(".")
            pace = getattr(pace_of[int(layer)], expert.paced[own]) if own in expert.paced else 1.0
            rates[name] = (fast if own in expert.fast else 1.0) * pace
        return rates

    @cached_property
    def paces(self) -> list[Pace]:
        """Measure, for each grown layer, how fast the weights of an expert learn, and how large they begin.

        The steps of an optimizer are equally large everywhere, while what a step does is not: that of an inner weight is as large
        as the inputs of the block, which families scale very differently, and where a norm stands behind the block, that of an
        outer weight counts as much as the block's outputs are small.  Both are 1 for a block as SmolLM2's, and for gated experts.
        They are measured on a few drawn tokens.
        """
        layers = list(self.per_layer())
        if not layers[0][0].paced:
            return [Pace()] * len(layers)
        vocabulary = text_config(self.model).vocab_size
        ids = torch.randint(vocabulary, (1, PROBED), generator=torch.Generator().manual_seed(0))
        batch = {"input_ids": ids.to(next(self.model.parameters()).device), "use_cache": False}
        decoder, paces = find_decoder_layers(self.model), []
        with self.view(()), torch.no_grad(), whole(self.model.parameters()):
            (inputs,) = block_inputs(find_decoder(self.model), layers, [batch])
            for layer, x in zip((decoder[index] for index in self.layers), inputs, strict=True):
                outer = _size(find_ffn(layer)(x[None])) / OUTPUT_SIZE if has_output_norm(layer) else 1.0  # type: ignore[misc]
                paces.append(Pace(INPUT_SIZE / _size(x), outer))
        return paces

    @property
    def penalty(self) -> float:
        """What the openness of its kind of experts weighs in a loss, beside that of gates."""
        return next(iter(self.per_layer()))[0].penalty

    def activate(self, seed: int = 0) -> int:
        """Take the next free slot into use, freshly initialised and the only trainable one; returns its index.

        Raises:
            SleepkitError: the pool is full.
        """
        free = [slot for slot in range(self.config.slots) if slot not in self.active]
        if not free:
            raise SleepkitError(
                f"all {self.config.slots} experts are in use; grow with more `slots`, or merge the two oldest with "
                "`sleepkit.language.experts.merge.merge_oldest`"
            )
        slot = free[0]
        self.reset(slot, seed)
        self.active.append(slot)
        self._show(self.active)
        self.train_only(slot)
        return slot

    def train_only(self, slots: int | Iterable[int] | None) -> None:
        """Let gradients reach one slot, several or none (None), and nothing else of the model."""
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for slot in (slots,) if isinstance(slots, int) else slots or ():
            for parameter in self.parameters(slot):
                parameter.requires_grad_(True)

    def reset(self, slot: int, seed: int = 0) -> None:
        """Put a slot back to the silent expert that it was before its night; it stays in use."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "expert", slot))
        for experts, pace in zip(self.per_layer(), self.paces, strict=True):
            with whole(experts[slot].parameters(), write=True):
                experts[slot].reset(generator, pace.inner)

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
        """Show only these slots inside the block; weights do not change.  The teacher is ``view(those before tonight)``."""
        before = [experts.visible for experts in self.per_layer()]
        self._show(active)
        try:
            yield
        finally:
            for experts, visible in zip(self.per_layer(), before, strict=True):
                experts.visible = visible

    @contextmanager
    def one_forced_open(self, seed: int, gate: float) -> Iterator[None]:
        """Force one random slot of each layer open inside the block: its gate, or what each of its units is activated by, is at
        least ``gate``, 0 to 1 (as the paper dreams).

        Also one that is out of view.  OutputUnits without an expert count too and change nothing: with few experts in use few
        layers are disturbed.
        """
        rng = random.Random(seed)
        layers = list(self.per_layer())
        before = [experts.visible for experts in layers]
        for experts in layers:
            slot = rng.randrange(self.config.slots)
            experts.forced_open = {slot: gate}
            if slot in self.active and slot not in experts.visible:
                experts.visible = (*experts.visible, slot)
        try:
            yield
        finally:
            for experts, visible in zip(layers, before, strict=True):
                experts.forced_open, experts.visible = {}, visible

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

    def save(self, folder: str | Path, base_model: str | None = None, *, publish: bool = False) -> None:
        """Write ``expert_bank.safetensors`` and ``expert_bank.json`` (adapter-like: without the base weights).

        Args:
            base_model: Hub id or folder of the base, or ``base`` for the subfolder of that name; None takes where
                `load_model` or transformers loaded it from.
            publish: name no folder of this machine.
        """
        folder = Path(folder)
        state = self.state_dict()
        with replacing(folder / WEIGHTS_NAME) as draft:
            save_file(state, draft, metadata={"format": "pt"})
        document = {
            "config": asdict(self.config),
            "layers": self.layers,
            "active": self.active,
            "base_shape": _base_shape(self.model),
            "base_fingerprint": fingerprint(self.model),
            "prompts": prompts_of(self.model),
        }
        write_json(folder / CONFIG_NAME, document | self._base_fields(base_model, publish))

    def _base_fields(self, base_model: str | None, publish: bool) -> dict[str, Any]:
        """Return the fields of ``expert_bank.json`` that name the base."""
        if base_model == INSIDE:
            return {"base_model": INSIDE}
        base = base_of(self.model) if base_model is None else BaseModel.named(base_model)
        return {"base_model": None} if base is None else base.to_dict(hide_folder=publish)

    @classmethod
    def load(cls, model: nn.Module, folder: str | Path) -> ExpertBank:
        """Grow ``model`` as the saved bank was and load its experts.

        Raises:
            SleepkitError: files missing, cut short, or made for a model of another shape or with other weights.
        """
        document, state = _read_bank(folder, model)
        check_fingerprint(model, document, folder)
        remember_prompts(model, document.get("prompts") or {})
        bank = cls.grow(model, ExpertBankConfig.read({**document["config"], "layers": document["layers"]}))
        bank.load_state_dict(state, document["active"])
        return bank

    def load_experts(self, folder: str | Path) -> None:
        """Put the experts of a saved bank in place of this one's.

        Raises:
            SleepkitError: files missing, cut short, or made for another model or bank; nothing is changed then.
        """
        document, state = _read_bank(folder, self.model)
        self.load_state_dict(state, document["active"])


def _read_bank(folder: str | Path, model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of a saved bank that fits the base of ``model``."""
    document = read_bank_config(folder)
    if document["base_shape"] != _base_shape(model):
        raise SleepkitError(
            f"{folder} holds experts of a model with {document['base_shape']}, this one has {_base_shape(model)}; "
            "load them into the model they were grown on"
        )
    path = Path(folder) / WEIGHTS_NAME
    try:
        return document, load_file(path)
    except Exception as error:
        raise SleepkitError(f"{path} cannot be read ({error}); copy it again") from error


def read_bank_config(folder: str | Path) -> dict[str, Any]:
    """Read ``expert_bank.json`` of a folder, and check it.

    Raises:
        SleepkitError: not there or not valid.
    """
    path = Path(folder) / CONFIG_NAME
    if not path.is_file():
        raise SleepkitError(f"{folder} has no {CONFIG_NAME}; give a folder written by sleepkit")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        ExpertBankConfig.read(document["config"])
        missing = {"layers", "active", "base_shape"} - set(document)
    except (ValueError, TypeError, KeyError) as error:
        raise SleepkitError(f"{path} is not a valid expert bank configuration ({error}); copy it again") from error
    if missing:
        raise SleepkitError(f"{path} lacks {', '.join(sorted(missing))}; copy it again")
    return document


def _size(x: Tensor) -> float:
    """Root mean square of the rows, the median of all; never 0."""
    return max(x.float().square().mean(-1).sqrt().median().item(), torch.finfo(torch.float16).tiny)


def _base_shape(model: nn.Module) -> dict[str, Any]:
    """Return what tells a model from one that the experts were not made for."""
    config = text_config(model)
    return {name: getattr(config, name, None) for name in ("model_type", "hidden_size", "num_hidden_layers")}


def _check_grows(model: nn.Module) -> None:
    """Raise `SleepkitError` for a model that has layers to grow in and cannot be talked to as others are."""
    if "past_key_values" not in inspect.signature(find_decoder(model).forward).parameters:
        raise SleepkitError(
            f"{type(model).__name__} keeps states of its own in place of a key-value cache, so batches of prompts would mix; "
            "use a transformer, or a hybrid such as Qwen3.5 or Falcon-H1"
        )


def _layer_indices(layers: str | list[int], able: list[int], count: int) -> list[int]:
    """Indices of the layers that get experts: as given, or by a name the last of those that are ``able``, as they have an FFN."""
    if isinstance(layers, str) and layers in LAYER_SHARES:
        return able[math.floor(len(able) * (1 - LAYER_SHARES[layers])) :]
    if isinstance(layers, str) or not layers or any(not 0 <= index < count for index in layers):
        names = ", ".join(map(repr, LAYER_SHARES))
        raise SleepkitError(f"layers {layers!r} is neither one of {names} nor a list of indices from 0 to {count - 1}")
    return sorted(set(layers))
