"""An adapter of PEFT as a model: its base, with the adapter merged into the weights.

    adapter/adapter_config.json    base_model_name_or_path, and the kind of adapter
    adapter/adapter_model.safetensors

    find_adapter(base)             the folder of the adapter that a name stands for, if it is one
    base_beneath(base, folder)     where its base is
    merged(model, folder)          the base in memory, and the adapter in it (`merge_and_unload` of PEFT)

The slept model's base is the adapter: who has its name has both.  Merged is in float32, with the factors of a LoRA in float64,
so that another machine gets the same weights and the same fingerprint, whatever the dtype they are then held in.

Left out: several adapters on each other, adapters of slept models, and merging into quantised weights, which would round them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sleepkit.errors import SleepkitError, first_line
from sleepkit.language.models.base_model import ADAPTER_CONFIG, BaseModel, fetched, find_slept
from sleepkit.utils.files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["base_beneath", "find_adapter", "merged"]


def find_adapter(base: BaseModel) -> Path | None:
    """Local folder of the adapter of PEFT that ``base`` names, fetched if it is on the Hub; None if it names a whole model.

    Raises:
        SleepkitError: the folder holds a whole model too, or the adapter cannot be fetched.
    """
    found = Path(base.name) / ADAPTER_CONFIG if base.is_folder else fetched(base, ADAPTER_CONFIG)
    if found is None or not found.is_file():
        return None
    whole = Path(base.name) / "config.json" if base.is_folder else fetched(base, "config.json")
    if whole is not None and whole.is_file():
        raise SleepkitError(
            f"{base.name} holds a whole model and an adapter of PEFT ({ADAPTER_CONFIG}); give each a place of its own"
        )
    return found.parent if base.is_folder else _whole_adapter(base.name, found.parent.name)


def _whole_adapter(name: str, commit: str) -> Path:
    """All files of an adapter on the Hub, its tokenizer too, but for pickles and what its training has left below it."""
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]
    try:
        return Path(snapshot_download(name, revision=commit, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:
        raise SleepkitError(f"the adapter {name} cannot be fetched ({first_line(error)}); check the network") from error


def base_beneath(base: BaseModel, folder: Path) -> BaseModel:
    """Return the base that the adapter in ``folder`` was trained on.

    Raises:
        SleepkitError: it names none, one that is gone, or one that has an adapter or experts itself.
    """
    config = read_json(folder / ADAPTER_CONFIG)
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    remedy = f"put the right one into base_model_name_or_path of its {ADAPTER_CONFIG}"
    if not isinstance(name, str) or not name:
        raise SleepkitError(f"the adapter {base.name} names no base model; {remedy}")
    beneath = BaseModel.named(name, config.get("revision"))
    if beneath.is_folder and not Path(beneath.name).is_dir():
        raise SleepkitError(f"cannot load {beneath.name}, the base of the adapter {base.name}: no such folder; {remedy}")
    stacked = "an adapter itself" if find_adapter(beneath) else "a slept model" if find_slept(beneath.name) else ""
    if stacked:
        raise SleepkitError(f"{beneath.name}, the base of the adapter {base.name}, is {stacked}; merge it and save the result")
    return beneath


def merged(model: PreTrainedModel, base: BaseModel, folder: Path) -> PreTrainedModel:
    """Return ``model``, in float32, with the adapter in ``folder`` merged into its weights.

    Raises:
        SleepkitError: the adapter cannot be read, does not fit, or is of a kind that is no change of weights.
    """
    from peft import PeftModel

    if getattr(model, "hf_quantizer", None) is not None:
        raise SleepkitError(
            f"{base.name} is an adapter of PEFT and its base is quantised, so merging would round it; name the base in 16 bits "
            f"in base_model_name_or_path of its {ADAPTER_CONFIG}, and leave load_in_4bit and load_in_8bit out"
        )
    try:
        adapted: Any = PeftModel.from_pretrained(model, str(folder))
        for name, parameter in adapted.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                parameter.data = parameter.data.to(torch.float64)
        plain: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    except MemoryError:
        raise
    except Exception as error:  # of PEFT: another base, a prompt in place of weights, files that are cut
        kind = read_json(folder / ADAPTER_CONFIG).get("peft_type")
        raise SleepkitError(
            f"the adapter {base.name} ({kind}) cannot be merged into its base ({first_line(error)}); give a LoRA of that base, "
            "or a whole model"
        ) from error
    if hasattr(plain, "peft_config"):
        del plain.peft_config
    return plain
