"""A plain model of the same family gives the same logits and reloads without sleepkit, or the export says why not."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import GLU, tiny_batch, tiny_model
from transformers import AutoModelForCausalLM

from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.export import export_plain
from sleepkit.language.experts.ffn import FFNExpert
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
    "qwen3": {},
    "gemma3_text": {},  # another activation
    "phi3": {},  # gate and up projection in one matrix
    "falcon": {},
    "falcon_h1": {},  # factors between its matrices
    "lfm2": {},  # derives its width from what is stated
    "qwen3_5_text": {},
}


def slept_model(family, dtype=torch.float32, nights=2, kind="auto", layers="last_half", **config):
    model = tiny_model(family, dtype=dtype, **config)
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=3, width=8, kind=kind, layers=layers))
    generator = torch.Generator().manual_seed(0)
    for _ in range(nights):
        with torch.no_grad():
            for parameter in bank.parameters(bank.activate()):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model, bank


def logits(model):
    with torch.no_grad():
        return model.eval()(X).logits


@pytest.mark.parametrize("family", CONFIGS)
def test_equal_logits_and_reload(family, tmp_path):
    model, bank = slept_model(family, kind="ffn", **CONFIGS[family])
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
    ("family", "kind", "message"),
    [
        ("llama", "gated", "experts are of kind 'gated', which no FFN block of llama can hold; keep the slept folder"),
        ("llama", "ungated", "experts are of kind 'ungated'"),
        ("mixtral", "auto", "experts are of kind 'gated', which no FFN block of mixtral can hold"),
    ],
)
def test_refusals(family, kind, message):
    _, bank = slept_model(family, kind=kind)
    with pytest.raises(SleepkitError, match=message) as error:
        export_plain(bank)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["qwen3_moe", "bloom", "mpt"])
def test_blocks_whose_units_do_not_add_up_are_told(family):
    with pytest.raises(SleepkitError, match="cannot be made wider by units of its own.*kind 'gated'"):
        slept_model(family, kind="ffn", layers="last_quarter")


def test_the_width_keeps_its_power_of_two():
    _, bank = slept_model("llama", intermediate_size=96)  # 96 = 3 * 32, two nights add 16 units
    plain = export_plain(bank)
    assert plain.config.intermediate_size == 128 and all(layer.mlp.up_proj.out_features == 128 for layer in plain.model.layers)


def test_what_is_not_wider_is_not_copied():
    model, bank = slept_model("llama")
    plain = export_plain(bank)
    assert plain.model.embed_tokens.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_a_plain_model_that_computes_something_else_is_not_returned(monkeypatch):
    _, bank = slept_model("llama")
    monkeypatch.setattr(FFNExpert, "forward", lambda self, x, forced_open=0.0: (torch.zeros_like(x), x))
    with pytest.raises(SleepkitError, match="does not compute what the slept model does .*keep the slept folder"):
        export_plain(bank)


def test_adapter_is_refused():
    model, bank = slept_model("llama")
    get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    wrapped = get_peft_model(tiny_model(), LoraConfig(target_modules=["q_proj"]))
    for grown in (bank, ExpertBank.grow(wrapped, ExpertBankConfig(slots=1, width=8))):
        with pytest.raises(SleepkitError, match="PEFT adapter; call `merge_and_unload"):
            export_plain(grown)
    merged = wrapped.merge_and_unload()
    torch.testing.assert_close(logits(export_plain(grown)), logits(merged))
