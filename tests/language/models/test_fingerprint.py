"""A model is known by its content: any other weights, settings, words or chat template make another."""

import copy

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.units import ExpertBankConfig
from sleepkit.language.models.fingerprint import model_identity, weights_fingerprint
from sleepkit.language.seeding.lora import add_lora


def test_a_checkpoint_in_bfloat16_and_its_float32_copy_agree():
    model = tiny_model(dtype=torch.bfloat16)
    assert weights_fingerprint(copy.deepcopy(model).float()) == weights_fingerprint(model)
    assert model_identity(copy.deepcopy(model).float()) == model_identity(model)


def test_experts_and_adapters_are_no_part_of_the_base():
    model = tiny_model()
    expected = weights_fingerprint(model), model_identity(model)
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=2, width=8, layers="all"))
    bank.activate()
    for parameter in bank.parameters(0):
        torch.nn.init.normal_(parameter)
    assert (weights_fingerprint(model), model_identity(model)) == expected
    adapted = add_lora(model, [0, 1])
    assert weights_fingerprint(adapted) == weights_fingerprint(model) == expected[0]
    adapted.unload()
    assert weights_fingerprint(model) == expected[0]


@pytest.mark.parametrize("name", ["model.layers.3.mlp.down_proj.weight", "model.norm.weight", "model.embed_tokens.weight"])
def test_one_other_value_makes_another_model(name):
    model = tiny_model()
    before = weights_fingerprint(model), model_identity(model)["weights"]
    values = model.get_parameter(name).data.view(-1)
    values[-1] *= 1.01
    assert weights_fingerprint(model) != before[0] and model_identity(model)["weights"] != before[1]
    values[-1] /= 1.01
    values[-1] = torch.nextafter(values[-1], torch.tensor(9.0))  # a bit that bfloat16 does not have
    assert model_identity(model)["weights"] != before[1]


def test_values_that_change_places_make_another_model():
    model = tiny_model()
    before = weights_fingerprint(model)
    for name in ("q_proj", "o_proj"):
        layers = [getattr(layer.self_attn, name).weight for layer in model.model.layers[:2]]
        one, other = (weight.detach().clone() for weight in layers)
        with torch.no_grad():
            layers[0].copy_(other)
            layers[1].copy_(one)
        assert weights_fingerprint(model) != before
        before = weights_fingerprint(model)


def test_the_same_values_under_other_names_or_in_another_shape_are_other_weights():
    """The digest runs over all weights in the order of their names, so without these their bytes would be the same."""
    values = torch.arange(12.0)
    modules = [torch.nn.Module() for _ in range(3)]
    for module, (name, shape) in zip(modules, [("up", (3, 4)), ("down", (3, 4)), ("up", (4, 3))], strict=True):
        setattr(module, name, torch.nn.Parameter(values.clone().view(shape)))
    assert len({weights_fingerprint(module) for module in modules}) == 3


def test_settings_words_and_template_count_and_names_do_not():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    before = model_identity(model, tokenizer)
    assert set(before) == {"weights", "config", "vocabulary", "chat_template"}
    model.config._name_or_path = "elsewhere"
    tokenizer(["padded", "to the same length"], padding=True)
    assert model_identity(model, tokenizer) == before

    tokenizer.chat_template += " "
    model.config.rms_norm_eps *= 2
    found = model_identity(model, tokenizer)
    assert {name for name in found if found[name] != before[name]} == {"chat_template", "config"}
    model.config.rms_norm_eps /= 2
    model.generation_config.repetition_penalty = 1.5
    assert model_identity(model, tokenizer)["config"] != before["config"]
    tokenizer.add_tokens(["zzz"])
    assert model_identity(model, tokenizer)["vocabulary"] != before["vocabulary"]
