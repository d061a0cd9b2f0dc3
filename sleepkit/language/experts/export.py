"""Export a slept model to the plain architecture of its base: the same family with wider FFN blocks, no code of ours.

Experts of kind "ffn" are hidden units of the block's own kind (ffn.py), so their matrices are appended to the block's.  All
layers of a family have one width: layers without experts get units of zeros, and so do all layers up to a width that has the
same power of two in it as that of the base, which quantisation and tensor parallelism want.  Exact in real numbers: in floating
point the order of a sum changes, and experts are rounded to the dtype of the base.  The result is compared with the slept model
before it is returned.

Refused, with the reason: experts of other kinds (the gate is a factor that no hidden unit can express), a base that is held in
four or eight bits, and families whose configuration cannot say the new width.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.ffn import Matrices, joined, matrices_of
from sleepkit.language.models.decoder import find_decoder_layers, find_ffn, text_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["NoPlainFormError", "added_units", "check_kind", "export_plain"]

WIDTHS = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim")  # names of a block's width in configurations
LARGEST_MULTIPLE = 256
PROBED = 24  # tokens that both models read
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}  # of logits, relative to the largest
KEEP = "keep the slept folder, which `load_model` reads"


class NoPlainFormError(SleepkitError):
    """A slept model cannot be written as a plain one, for a reason that its owner cannot take away."""


@torch.no_grad()
def export_plain(bank: ExpertBank) -> PreTrainedModel:
    """A plain model, in evaluation mode, that computes what the slept one does with all its active experts.

    The slept model is left as it is, and all weights beside those of the FFN blocks are shared with it.  Save the new one with
    ``save_pretrained``.

    Raises:
        NoPlainFormError: it cannot be exact; the message says why.
        SleepkitError: it carries an adapter, or its base is loaded in few bits.

    Example:

        >>> model, tokenizer, bank = load_slept("runs/notes")
        >>> export_plain(bank).save_pretrained("plain")
        >>> tokenizer.save_pretrained("plain")
    """
    _check(bank)
    model: Any = bank.model
    blocks = {index: find_ffn(layer) for index, layer in enumerate(find_decoder_layers(model))}
    hidden_size = text_config(model).hidden_size
    known = {index: matrices_of(ffn, hidden_size) for index, ffn in blocks.items() if ffn is not None}
    width = known[bank.layers[0]].width  # type: ignore[union-attr]
    added = added_units(width, (bank.config.width or 0) * len(bank.active))
    experts = dict(zip(bank.layers, bank.per_layer(), strict=True))
    names = {module: name for name, module in model.named_modules()}
    state = {name: value for name, value in model.state_dict().items() if ".sleep_experts." not in name}
    for index, matrices in known.items():
        if matrices is not None:
            made = [experts[index][slot] for slot in bank.active] if index in experts else []
            ffn = blocks[index]
            state |= {f"{names[ffn]}.{name}": value for name, value in _wider(ffn, matrices, made, added).items()}
    plain = _empty(model, width, width + added)
    _load(plain, state)
    _compare(plain, model)
    return plain


def _check(bank: ExpertBank) -> None:
    model: Any = bank.model
    if hasattr(model, "peft_config"):
        raise SleepkitError("the model carries a PEFT adapter; call `merge_and_unload()` before the export")
    check_kind(bank.config.kind, model.config.model_type)
    if getattr(model, "is_quantized", False):
        raise SleepkitError("the base is held in few bits; load it without load_in_4bit and load_in_8bit to export")


def check_kind(kind: str, family: str) -> None:
    """Raise `NoPlainFormError` for experts of a kind that no block of a family of models can hold."""
    if kind != "ffn":
        raise NoPlainFormError(
            f"these experts are of kind {kind!r}, which no FFN block of {family} can hold; "
            f"{KEEP}, or sleep with expert_kind ffn where the model allows it"
        )


def added_units(width: int, units: int) -> int:
    """Return how many hidden units are added to a width: at least ``units``, and so many that it keeps its power of two."""
    multiple = math.gcd(width, LARGEST_MULTIPLE)
    return math.ceil(units / multiple) * multiple


def _wider(ffn: Any, matrices: Matrices, experts: list[Any], added: int) -> dict[str, Tensor]:
    """The matrices and biases of a block with ``added`` more units, as its state holds them."""
    own = {name: value for name, value in ffn.state_dict().items() if "sleep_experts" not in name}
    turned = type(getattr(ffn, matrices.outer)).__name__ == "Conv1D"  # GPT-2 keeps its matrices as (in, out)
    filled = added - sum(expert.width for expert in experts)
    groups = [{name: value.to(own[name]) for name, value in expert.units().items()} for expert in experts]
    made = {}
    for name, count in ((f"{n}.{kind}", c) for n, c in matrices.inner.items() for kind in ("weight", "bias")):
        if name in own:
            block = own[name].T if turned and own[name].ndim == 2 else own[name]
            zeros = block.new_zeros(count * filled, *block.shape[1:])
            value = joined([block, *(group[name] for group in groups), zeros], count, 0)
            made[name] = (value.T if turned and value.ndim == 2 else value).contiguous()
    name = f"{matrices.outer}.weight"
    block = own[name].T if turned else own[name]
    value = torch.cat([block, *(group[name] for group in groups), block.new_zeros(len(block), filled)], 1)
    return {**made, name: (value.T if turned else value).contiguous()}


def _empty(model: Any, width: int, new: int) -> Any:
    """A model of the same family with wider blocks and no weights yet."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    name = next((name for name in WIDTHS if hasattr(text, name)), None)
    if name is None:
        raise NoPlainFormError(f"the configuration of {config.model_type} does not say how wide its FFN blocks are; {KEEP}")
    stated = getattr(text, name) or width
    setattr(text, name, stated * new // width if isinstance(stated, int) else [size * new // width for size in stated])
    if getattr(text, "block_auto_adjust_ff_dim", False):  # LFM2, which derives the width from what is stated
        text.block_auto_adjust_ff_dim = False
        setattr(text, name, new)
    with init_empty_weights(include_buffers=False):
        plain = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    plain.generation_config = copy.deepcopy(model.generation_config)
    return plain.eval()


def _load(plain: Any, state: dict[str, Tensor]) -> None:
    try:
        plain.load_state_dict(state, assign=True)
    except RuntimeError as error:
        reason = str(error).split("\n")[1:2] or [str(error)]
        raise NoPlainFormError(
            f"{plain.config.model_type} has no plain form with wider FFN blocks ({reason[0].strip()}); {KEEP}"
        ) from None
    plain.tie_weights()


def _compare(plain: Any, slept: nn.Module) -> None:
    """Raise `NoPlainFormError` unless both models compute the same of a few tokens."""
    device = next(slept.parameters()).device
    vocabulary = plain.config.get_text_config().vocab_size
    ids = torch.randint(vocabulary, (1, PROBED), generator=torch.Generator().manual_seed(0)).to(device)
    training = slept.training
    slept.eval()
    expected, found = (model(input_ids=ids, use_cache=False).logits.float() for model in (slept, plain))
    slept.train(training)
    difference = ((found - expected).abs().max() / expected.abs().max()).item()
    if not difference <= TOLERANCE[plain.dtype]:
        raise NoPlainFormError(
            f"the plain form of {plain.config.model_type} does not compute what the slept model does "
            f"(logits differ by {difference:.2g} of the largest); {KEEP}"
        )
