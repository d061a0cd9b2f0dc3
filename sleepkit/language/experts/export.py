"""Export a slept model to the plain architecture of its base: the same family with wider FFN blocks, no code of ours.

An ungated expert is ``up act(down x)``.  Where that is exactly a few more hidden units of the FFN block:

* two-matrix blocks ``W_out act(W_in x + b_in) + b_out`` (GPT-2, GPT-NeoX, Phi, ...) with the same ``act``: append the
  rows of ``down`` to ``W_in`` with bias 0, and the columns of ``up`` to ``W_out``;
* gated-linear-unit blocks ``W_down( act(W_gate x + b_gate) * (W_up x + b_up) ) + b_down`` of families whose
  configuration has ``mlp_bias`` (Llama, and so SmolLM2; Granite, SmolLM3): switch it on, append ``down`` to ``W_gate``,
  zero rows with bias 1 to ``W_up``, so that the product is ``act(down x) * 1``, and ``up`` to ``W_down``.

All layers of a family have one width, so layers with fewer experts get zero units.  Exact in real numbers; in floating
point only the order of a sum changes.

Refused, with the reason: learned gates (a factor that depends on the token and that no unit of these blocks can
express), GLU families without ``mlp_bias`` (Qwen, Gemma, Mistral: the factor 1 cannot be expressed), mixtures of
experts, another activation than the block's.  Dropout on FFN outputs, where a configuration has it, will act on the
experts, too, if the exported model is trained further.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.models.decoder import find_decoder_layers, find_ffn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["export_plain"]


@dataclass(frozen=True)
class Block:
    """Names of an FFN block's matrices, and of its width and activation in the model's configuration."""

    inner: str
    outer: str
    width: str
    activation: str
    ones: str | None = None  # of a GLU block: the matrix whose bias is to be 1


GLU = Block("gate_proj", "down_proj", "intermediate_size", "hidden_act", ones="up_proj")
BLOCKS = {
    "gpt2": Block("c_fc", "c_proj", "n_inner", "activation_function"),
    "gpt_neo": Block("c_fc", "c_proj", "intermediate_size", "activation_function"),
    "gpt_neox": Block("dense_h_to_4h", "dense_4h_to_h", "intermediate_size", "hidden_act"),
    "gptj": Block("fc_in", "fc_out", "n_inner", "activation_function"),
    "phi": Block("fc1", "fc2", "intermediate_size", "hidden_act"),
    "starcoder2": Block("c_fc", "c_proj", "intermediate_size", "hidden_act"),
    "granite": GLU,
    "llama": GLU,
    "smollm3": GLU,
}


@torch.no_grad()
def export_plain(bank: ExpertBank) -> PreTrainedModel:
    """A new plain model, in evaluation mode, that computes what the slept one does with all its active experts.

    The slept model is left as it is.  Save the new one with ``save_pretrained``.

    Raises:
        SleepkitError: it cannot be exact; the message says why.
    """
    from transformers import AutoModelForCausalLM

    model: Any = bank.model
    block = _exact_block(bank)
    slots = bank.active
    extra = bank.config.width * len(slots)
    config = copy.deepcopy(model.config)
    if block.ones:
        config.mlp_bias = True
    experts = dict(zip(bank.layers, bank.per_layer(), strict=True))
    names = {module: name for name, module in model.named_modules()}
    state = {name: value for name, value in model.state_dict().items() if ".sleep_experts." not in name}
    for index, layer in enumerate(find_decoder_layers(model)):
        ffn: Any = find_ffn(layer)
        inner, outer = getattr(ffn, block.inner), getattr(ffn, block.outer)
        turned = isinstance(inner, Conv1D)  # GPT-2 keeps its matrices as (in, out)
        w_in, w_out = (inner.weight.T, outer.weight.T) if turned else (inner.weight, outer.weight)
        hidden_size, width = w_out.shape
        setattr(config, block.width, width + extra)
        down, up = w_in.new_zeros(extra, hidden_size), w_in.new_zeros(hidden_size, extra)
        if index in experts and slots:
            down = torch.cat([experts[index][slot].down for slot in slots]).to(w_in)
            up = torch.cat([experts[index][slot].up for slot in slots], dim=1).to(w_in)
        w_in, w_out = torch.cat([w_in, down]), torch.cat([w_out, up], dim=1)
        wider = {block.inner: (w_in, _bias(inner, width, extra, 0.0)), block.outer: (w_out, _bias(outer, hidden_size))}
        if block.ones:
            third = getattr(ffn, block.ones)
            wider[block.ones] = (torch.cat([third.weight, torch.zeros_like(down)]), _bias(third, width, extra, 1.0))
        for name, (weight, bias) in wider.items():
            state[f"{names[ffn]}.{name}.weight"] = (weight.T if turned else weight).contiguous()
            if block.ones or getattr(ffn, name).bias is not None:
                state[f"{names[ffn]}.{name}.bias"] = bias
    plain = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    plain.load_state_dict(state)
    plain.generation_config = copy.deepcopy(model.generation_config)
    return plain.to(model.device).eval()


def _bias(module: Any, width: int, extra: int = 0, value: float = 0.0) -> Tensor:
    """The module's bias, zeros if it has none, followed by ``extra`` times ``value``."""
    bias = module.bias if module.bias is not None else module.weight.new_zeros(width)
    return torch.cat([bias, bias.new_full((extra,), value)])


def _exact_block(bank: ExpertBank) -> Block:
    model: Any = bank.model
    family = model.config.model_type
    keep = "keep the slept folder, which `load_model` reads"
    if hasattr(model, "peft_config"):
        raise SleepkitError("the model carries a PEFT adapter; call `merge_and_unload()` before the export")
    if bank.config.gate:
        raise SleepkitError(
            "these experts have learned gates, a factor that depends on the token and that no hidden unit of a plain "
            f"FFN block can express; grow with `gate=False` to export, or {keep}"
        )
    if family not in BLOCKS:
        ffn = find_ffn(find_decoder_layers(model)[bank.layers[0]])
        if hasattr(ffn, "experts"):
            reason = "its FFN blocks are mixtures of experts, and a router would decide over the new units"
        elif hasattr(ffn, "gate_proj") or hasattr(ffn, "gate_up_proj"):
            reason = "its gated linear units have no bias, so the factor 1 of an expert cannot be expressed"
        else:
            reason = f"its FFN blocks ({type(ffn).__name__}) are not known here"
        raise SleepkitError(f"{family} cannot hold the experts in a wider FFN block: {reason}; {keep}")
    block = BLOCKS[family]
    activation = getattr(model.config, block.activation)
    if activation != bank.config.activation:
        raise SleepkitError(
            f"the experts use {bank.config.activation!r} and the FFN blocks {activation!r}, which one block cannot "
            f"mix; grow with `activation={activation!r}` to export, or {keep}"
        )
    return block
