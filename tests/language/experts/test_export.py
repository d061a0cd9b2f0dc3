"""A plain model of the same family gives the same logits and reloads without sleepkit, or the export says why not."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import GLU, tiny_batch, tiny_model
from transformers import AutoModelForCausalLM

from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.export import BLOCKS, export_plain
from sleepkit.language.experts.units import ExpertBankConfig

X = tiny_batch()
SIZE = {"intermediate_size": 48, "max_position_embeddings": 512}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
CONFIGS = {
    "gpt2": {},
    "gpt_neo": {**SIZE, "num_layers": 4, "num_heads": 4, "attention_types": [[["global", "local"], 2]]},
    "gpt_neox": {},
    "gptj": {"n_inner": None, "rotary_dim": 4, **NO_DROPOUT},
    "phi": {**SIZE, "num_key_value_heads": 4},
    "starcoder2": {**SIZE, "num_key_value_heads": 2, "use_bias": False},
    "granite": GLU,
    "llama": {},
    "smollm3": GLU,
}


def slept_model(family, dtype=torch.float32, nights=2, gate=False, activation=None, layers="last_half", **config):
    model = tiny_model(family, dtype=dtype, **config)
    if activation is None:
        activation = getattr(model.config, BLOCKS[family].activation) if family in BLOCKS else "silu"
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=3, width=8, gate=gate, activation=activation, layers=layers))
    generator = torch.Generator().manual_seed(0)
    for _ in range(nights):
        with torch.no_grad():
            for parameter in bank.parameters(bank.activate()):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model, bank


def logits(model):
    with torch.no_grad():
        return model.eval()(X).logits


def test_every_family_is_tested():
    assert CONFIGS.keys() == BLOCKS.keys()


@pytest.mark.parametrize("family", CONFIGS)
def test_equal_logits_and_reload(family, tmp_path):
    model, bank = slept_model(family, **CONFIGS[family])
    slept, state = logits(model), copy.deepcopy(model.state_dict())
    plain = export_plain(bank)
    assert type(plain) is type(model)
    torch.testing.assert_close(logits(plain), slept, atol=1e-5, rtol=1e-5)
    with bank.view([]):
        assert (logits(model) - slept).abs().max() > 0.1  # there was something to export
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    plain.save_pretrained(tmp_path)
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert torch.equal(logits(again), logits(plain))
    options = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(again.generate(X, **options), model.generate(X, **options))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_no_night_one_layer_and_bfloat16(family):
    model, bank = slept_model(family, nights=0)
    torch.testing.assert_close(logits(export_plain(bank)), logits(model), atol=1e-5, rtol=1e-5)
    model, bank = slept_model(family, layers=[1])
    torch.testing.assert_close(logits(export_plain(bank)), logits(model), atol=1e-5, rtol=1e-5)
    model, bank = slept_model(family, torch.bfloat16)
    plain = export_plain(bank)
    assert plain.dtype == torch.bfloat16
    torch.testing.assert_close(logits(plain), logits(model), atol=0.1, rtol=0.1)


def test_a_llama_that_has_biases_keeps_them():
    model, bank = slept_model("llama", mlp_bias=True)
    with torch.no_grad():
        for layer in model.model.layers:
            for matrix in (layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj):
                matrix.bias.normal_()
    torch.testing.assert_close(logits(export_plain(bank)), logits(model), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("llama", {"gate": True}, "learned gates.*depends on the token.*`gate=False`"),
        ("gpt2", {"activation": "silu"}, "experts use 'silu' and the FFN blocks 'gelu_new'.*`activation='gelu_new'`"),
        ("qwen3", {}, "qwen3 cannot hold the experts in a wider FFN block: its gated linear units have no bias"),
        ("gemma3_text", {}, "gemma3_text cannot .* no bias"),
        ("mixtral", {}, "mixtral cannot .* mixtures of experts"),
        ("qwen3_moe", {}, "qwen3_moe cannot .* mixtures of experts"),
    ],
)
def test_refusals(family, options, message):
    _, bank = slept_model(family, **options)
    with pytest.raises(SleepkitError, match=message) as error:
        export_plain(bank)
    assert "\n" not in str(error.value)


def test_adapter_is_refused():
    model, bank = slept_model("llama")
    get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    wrapped = get_peft_model(tiny_model(), LoraConfig(target_modules=["q_proj"]))
    for grown in (bank, ExpertBank.grow(wrapped, ExpertBankConfig(slots=1, width=8, gate=False))):
        with pytest.raises(SleepkitError, match="PEFT adapter; call `merge_and_unload"):
            export_plain(grown)
    merged = wrapped.merge_and_unload()
    torch.testing.assert_close(logits(export_plain(grown)), logits(merged))
