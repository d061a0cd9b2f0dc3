"""What the layers of a decoder are: where their FFN blocks are, and how far they look back."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import FAMILIES, HYBRIDS, MORE, tiny_batch, tiny_model

from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.units import ExpertBankConfig
from sleepkit.language.models.decoder import find_decoder, reach, without_masks

REFUSED = {"zamba2", "opt", "mamba2", "rwkv"}
BY_PLACES = {"mpt", "bloom"}


@pytest.mark.parametrize("family", sorted({**FAMILIES, **HYBRIDS, **MORE}.keys() - REFUSED))
def test_experts_stand_beside_ffn_blocks_and_hidden_states_are_found(family):
    model = tiny_model(family)
    with torch.no_grad():
        before = model(tiny_batch()).logits
        bank = ExpertBank.grow(model, ExpertBankConfig(slots=1, width=4, layers="last_half"))
        slot = bank.activate()
        assert torch.equal(model(tiny_batch()).logits, before)
        for parameter in bank.parameters(slot):
            parameter.add_(0.3)
        assert not torch.equal(model(tiny_batch()).logits, before)
        assert find_decoder(model)(input_ids=tiny_batch(), use_cache=False).last_hidden_state.shape == (2, 12, 32)
    expected = 0 if family in HYBRIDS or family in BY_PLACES else 16 if _slides(model) else math.inf
    assert reach(model) == expected


def _slides(model):
    return any(getattr(model.config, name, None) == 16 for name in ("sliding_window", "attention_chunk_size", "window_size"))


@pytest.mark.parametrize("family", sorted(REFUSED))
def test_what_cannot_grow_says_why(family):
    with pytest.raises(SleepkitError) as error:
        ExpertBank.grow(tiny_model(family))
    why = "keeps states of its own" if family == "rwkv" else "has no list of 4 decoder layers with an FFN block"
    assert why in str(error.value) and "; use a " in str(error.value) and "\n" not in str(error.value)


def test_experts_by_name_stand_in_layers_that_can_have_them():
    config = {"layers_block_type": ["mlp", "full_attention", "mlp", "linear_attention"]}
    bank = ExpertBank.grow(tiny_model("nemotron_h", **config), ExpertBankConfig(slots=1, width=4, layers="last_half"))
    assert bank.layers == [2]
    with pytest.raises(SleepkitError, match="decoder layer 3 has no FFN block"):
        ExpertBank.grow(tiny_model("nemotron_h", **config), ExpertBankConfig(layers=[2, 3]))


def test_through_an_adapter():
    model = tiny_model("falcon_h1")
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    assert find_decoder(adapted) is model.model and reach(adapted) == 0
    assert without_masks(model) == "has layers (hybrid) that carry a state from token to token"
    assert without_masks(tiny_model("mpt")) == "goes by the places of tokens in a row"
