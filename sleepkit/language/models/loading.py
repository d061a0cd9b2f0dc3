"""How the weights of a base model are loaded: attention, code of its own, 4 or 8 bits, one device or several.

    model_options(load_in_4bit=True)    ->  what `AutoModelForCausalLM.from_pretrained` takes
    move(model, device)                     where it is not there already

Names are those of TRL's `ModelConfig`.  In 4 bits weights are NF4 (QLoRA, arXiv 2305.14314); computed is in bfloat16 where the
device does, else in float32.  Quantised weights lie on the device of this process from the start, as they do not move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sleepkit.errors import SleepkitError
from sleepkit.utils.precision import computes

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["check_plain", "let_experts_train", "model_options", "move"]


def model_options(
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    load_in_8bit: bool = False,
    load_in_4bit: bool = False,
    device_map: str | None = None,
) -> dict[str, Any]:
    """Return the keyword arguments with which ``from_pretrained`` loads a model in this way.

    Args:
        attn_implementation: "sdpa" or "eager"; None leaves it to the model.
        trust_remote_code: run Python code that comes with the model.
        load_in_8bit, load_in_4bit: quantise with bitsandbytes.
        device_map: "auto" splits the model over all devices, "cpu" keeps it there; None: one device, to which `move` takes it.
    """
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    if device_map is not None:
        options["device_map"] = device_map
    if load_in_8bit or load_in_4bit:
        import torch
        from accelerate import PartialState
        from transformers import BitsAndBytesConfig

        device = PartialState().device
        compute = torch.bfloat16 if computes(torch.bfloat16, device) else torch.float32
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=load_in_8bit, load_in_4bit=load_in_4bit, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute
        )
        options.setdefault("device_map", {"": device})
    return options


def move(model: PreTrainedModel, device: torch.device) -> None:
    """Take a model to a device, unless its weights are quantised or spread over devices, and there already."""
    if getattr(model, "hf_quantizer", None) is None and len(getattr(model, "hf_device_map", {})) < 2:
        model.to(device)  # type: ignore[arg-type]


def let_experts_train(model: PreTrainedModel) -> None:
    """Take a quantised base for what it is here, frozen: experts train beside it, and Trainer knows adapters of PEFT alone."""
    if getattr(model, "hf_quantizer", None) is not None:
        setattr(model, "is_quantized", False)  # noqa: B010  # an attribute that the library adds


def check_plain(model: PreTrainedModel) -> None:
    """Raise `SleepkitError` for a model that carries an adapter of PEFT."""
    if hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False):
        raise SleepkitError(
            "the model carries a PEFT adapter; call `merge_and_unload()` before it sleeps, give the adapter's folder in its "
            "place, or use SleepCallback"
        )
