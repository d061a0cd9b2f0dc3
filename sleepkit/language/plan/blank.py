"""A model of which only the shape is known: config.json and tokenizer are read, and no weight is downloaded, read or made.

    blank = BlankModel.of("Qwen/Qwen2.5-7B", config)
    blank.model, blank.tokenizer       weights on the meta device, grown by the experts of a night
    blank.sizes                        bytes of weights and experts

Left out: experts that a slept model has already; a life that goes on with them is planned as one that begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate import init_empty_weights
from torch import nn

from sleepkit.errors import SleepkitError, first_line
from sleepkit.language.config import LearnerConfig, LoadingConfig
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.levels import experts_of
from sleepkit.language.model_io import SMOLLM2, fit_tokenizer, smollm2_folder
from sleepkit.language.models.adapters import base_beneath, find_adapter
from sleepkit.language.models.base_model import resolve_base
from sleepkit.language.models.decoder import find_decoder_layers
from sleepkit.utils.precision import computes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["BYTES_OF_BITS", "BlankModel", "Sizes", "bytes_in_few_bits"]

ADAM = 2  # moments of each trained parameter
BYTES_OF_BITS = {"load_in_8bit": 1.0, "load_in_4bit": 0.5 + 4 / 64}  # of a weight; NF4 has a float32 for each 64 of them


@dataclass(frozen=True)
class Sizes:
    """Bytes of what lies in memory all night.

    Attributes:
        parameters: number of weights of the base.
        weights: of the base, as it is held.
        largest_layer: of the decoder, which sharding gathers.
        experts: float32 parameters of all slots.
        optimizer: gradient and Adam's moments of the expert that trains.
        trained: parameters of that expert.
    """

    parameters: int
    weights: int
    largest_layer: int
    experts: int
    optimizer: int
    trained: int


@dataclass
class BlankModel:
    """Model without weights, grown by experts, with its real tokenizer.

    Attributes:
        model: on the meta device.
        tokenizer: as the run would use it.
        bank: its experts, none of them in use.
        sizes: of its parts.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    bank: ExpertBank
    sizes: Sizes

    @classmethod
    def named(cls, name: str, loading: LoadingConfig, learner: LearnerConfig, device: str) -> BlankModel:
        """Make it from config.json and tokenizer of a model.

        Args:
            name: as `load_model` takes it.
            loading: how the base would be loaded.
            learner: the experts that it grows.
            device: that it would run on, "cpu" or "cuda"; decides the dtype where that is "auto".

        Raises:
            SleepkitError: the configuration or the tokenizer cannot be read, or the two do not fit.
        """
        from transformers import AutoConfig, AutoTokenizer

        _, base = resolve_base(name, loading.model_revision)
        adapter = find_adapter(base)
        base = base if adapter is None else base_beneath(base, adapter)
        place: dict[str, Any] = {"revision": base.revision, "subfolder": base.subfolder}
        where = str(smollm2_folder()) if base.name == SMOLLM2 else base.name
        try:
            config = AutoConfig.from_pretrained(where, trust_remote_code=loading.trust_remote_code, **place)
            tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=loading.trust_remote_code, **place)
        except Exception as error:  # of many libraries, as in model_io
            raise SleepkitError(
                f"cannot read config.json and tokenizer of {name} ({first_line(error)}); give a Hub id or a folder that has both"
            ) from error
        return cls.of(config, tokenizer, loading, learner, device, _stops(where, place))

    @classmethod
    def of(
        cls,
        config: Any,
        tokenizer: Any,
        loading: LoadingConfig,
        learner: LearnerConfig,
        device: str,
        generation: Any = None,
        is_fitted: bool = False,
    ) -> BlankModel:
        """Make it from a configuration of transformers.

        Args:
            config: of the model.
            tokenizer: its tokenizer.
            loading, learner, device: as for `named`.
            generation: configuration of its generation, if there is one.
            is_fitted: the tokenizer knows already how the model is talked to.
        """
        from transformers import AutoModelForCausalLM

        options = {} if loading.attn_implementation is None else {"attn_implementation": loading.attn_implementation}
        with init_empty_weights(include_buffers=True):
            model = AutoModelForCausalLM.from_config(
                config, dtype=_dtype(config, loading, device), trust_remote_code=loading.trust_remote_code, **options
            )
        model.eval().requires_grad_(False)
        model.generation_config = generation or model.generation_config
        if not is_fitted:
            fit_tokenizer(model, tokenizer, **loading.prompts())
        bank = experts_of(model, learner)
        return cls(model, tokenizer, bank, _sizes(model, bank, loading))

    @contextmanager
    def asleep(self, nights: int) -> Any:
        """Show the experts of so many nights inside the block, of which the last one trains."""
        slots = list(range(min(nights, self.bank.config.slots)))
        self.bank.train_only(slots[-1])
        with self.bank.view(slots):
            yield slots[-1]
        self.bank.train_only(None)


def _dtype(config: Any, loading: LoadingConfig, device: str) -> torch.dtype:
    """The dtype that the model would be held in."""
    if loading.dtype != "auto":
        named: torch.dtype = getattr(torch, loading.dtype)
        return named
    saved = config.dtype or torch.float32
    return saved if device != "cpu" or computes(saved, "cpu") else torch.float32


def _stops(where: str, place: Mapping[str, Any]) -> Any:
    """The configuration of generation beside a model; None where there is none."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(where, **place)
    except OSError:
        return None


def bytes_in_few_bits(module: nn.Module, few: float | None) -> int:
    """Bytes of the weights of a module, experts left out.

    Args:
        module: a model, or a part of it.
        few: bytes of a weight of the linear layers but the head; None: as they are.
    """
    linear = [child for name, child in module.named_modules() if isinstance(child, nn.Linear) and "head" not in name]
    packed = {id(child.weight) for child in linear} if few is not None else set()
    own = [p for name, p in module.named_parameters() if "sleep_experts." not in name]
    return sum(int(p.numel() * (few if few is not None and id(p) in packed else p.element_size())) for p in own)


def _bytes(module: nn.Module, loading: LoadingConfig) -> int:
    return bytes_in_few_bits(module, next((size for name, size in BYTES_OF_BITS.items() if getattr(loading, name)), None))


def _sizes(model: PreTrainedModel, bank: ExpertBank, loading: LoadingConfig) -> Sizes:
    own = {name: p for name, p in model.named_parameters() if ".sleep_experts." not in name}
    trained = sum(p.numel() for p in bank.parameters(0))
    return Sizes(
        parameters=sum(p.numel() for p in own.values()),
        weights=_bytes(model, loading),
        largest_layer=max(_bytes(layer, loading) for layer in find_decoder_layers(model)),
        experts=4 * trained * bank.config.slots,
        optimizer=4 * trained * (1 + ADAM),
        trained=trained,
    )
