"""Experts of the block's own kind of units: their equations, their start, where they open, and what is not made wider."""

import copy

import pytest
import torch
from tiny import tiny_batch, tiny_model
from torch import nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaMLP

from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.ffn import SHARED_SCALE, joined, matrices_of
from sleepkit.language.experts.units import ExpertBankConfig
from sleepkit.language.models.decoder import find_decoder_layers, find_ffn

X = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))


def expert_of(family, width=6):
    bank = ExpertBank.grow(tiny_model(family), ExpertBankConfig(slots=2, width=width, layers=[2], kind="ffn"))
    expert = next(bank.per_layer())[bank.activate()]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return expert


def shared(expert):
    return SHARED_SCALE * expert.shared / 32**0.5


def test_units_of_a_gated_linear_unit_equal_their_equation():
    expert = expert_of("llama")
    hidden = F.silu(X @ (expert.gate_proj + shared(expert)).T) * (X @ expert.up_proj.T)
    y, seen = expert(X)
    torch.testing.assert_close(seen, hidden)
    torch.testing.assert_close(y, hidden @ expert.down_proj.T)
    torch.testing.assert_close(expert.openness(seen), hidden.abs().mean(-1, keepdim=True))


def test_units_of_one_matrix_for_both_projections():
    expert = expert_of("phi3")
    gate, up = expert.gate_up_proj.chunk(2)
    expected = (F.silu(X @ (gate + shared(expert)).T) * (X @ up.T)) @ expert.down_proj.T
    torch.testing.assert_close(expert(X)[0], expected, atol=1e-4, rtol=1e-4)


def test_units_of_two_matrices_have_the_block_s_activation_and_bias():
    expert = expert_of("gpt2")
    hidden = F.gelu(X @ (expert.c_fc + shared(expert)).T + expert.c_fc_bias, approximate="tanh")
    torch.testing.assert_close(expert(X)[0], hidden @ expert.c_proj.T)


def test_units_are_computed_in_the_dtype_of_their_input():
    y, seen = expert_of("llama")(X.bfloat16())
    assert y.dtype == seen.dtype == torch.bfloat16


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2"])
def test_a_fresh_expert_is_silent_and_equal_for_equal_seeds(family):
    one, two = (copy.deepcopy(expert_of(family)) for _ in range(2))
    for expert in (one, two):
        expert.reset(torch.Generator().manual_seed(7))
    assert not one(X)[0].any() and one(X)[1].any()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_shared_direction_shuts_all_units():
    expert = expert_of("llama")
    x = X + 3
    with torch.no_grad():
        before = expert(x)[1].abs().mean()
        expert.shared.fill_(-20.0)
        shut = expert(x)[1].abs().mean()
        assert shut < 1e-3 * before
        assert expert(x, forced_open=0.25)[1].abs().mean() > 100 * shut


def test_what_is_forced_open_is_so_for_one_pass():
    expert = expert_of("llama")
    closed = expert(X)[0]
    assert not torch.equal(expert(X, forced_open=2.0)[0], closed) and torch.equal(expert(X)[0], closed)


def test_the_model_keeps_its_block():
    model = tiny_model()
    state, modules = copy.deepcopy(model.state_dict()), dict(model.model.layers[2].mlp.named_children())
    ExpertBank.grow(model, ExpertBankConfig(slots=1, width=4, layers=[2]))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items() if name in state)
    assert all(getattr(model.model.layers[2].mlp, name) is module for name, module in modules.items())


def test_dropout_of_the_block_does_not_reach_its_experts():
    model = tiny_model("gpt2", resid_pdrop=0.9)
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=1, width=4, layers=[2]))
    expert = next(bank.per_layer())[bank.activate()]
    with torch.no_grad():
        expert.c_proj.normal_()
    model.train()
    assert torch.equal(expert(X)[0], expert(X)[0])


def test_halves_are_joined_with_halves():
    one, two = torch.arange(4.0)[:, None], torch.arange(10.0, 12.0)[:, None]
    assert joined([one, two], 2, 0)[:, 0].tolist() == [0, 1, 10, 2, 3, 11]
    assert joined([one, two], 1, 0)[:, 0].tolist() == [0, 1, 2, 3, 10, 11]


class Normed(nn.Module):
    """A block whose output is not the sum over its units."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(32, 16), nn.Linear(16, 32)

    def forward(self, x):
        hidden = self.fc1(x).relu()
        return self.fc2(hidden / hidden.norm(dim=-1, keepdim=True))


class Linear(nn.Module):
    def __init__(self, out=32):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(32, 16), nn.Linear(16, out)

    def forward(self, x):
        return self.fc2(self.fc1(x).relu())


def test_blocks_that_cannot_be_made_wider():
    assert matrices_of(Linear(), 32).width == 16
    assert matrices_of(Linear(), 32).biased == {"fc1"}
    assert matrices_of(Normed(), 32) is None
    assert matrices_of(Linear(31), 32) is None
    assert matrices_of(nn.Linear(32, 32), 32) is None
    moe = find_ffn(find_decoder_layers(tiny_model("mixtral"))[0])
    assert matrices_of(moe, 32) is None


@pytest.mark.parametrize("hidden_size", [576, 4096])
def test_units_of_real_size_add_up(hidden_size):
    config = LlamaConfig(hidden_size=hidden_size, intermediate_size=2 * hidden_size)
    with torch.device("meta"):
        block = LlamaMLP(config)
    assert matrices_of(block, hidden_size).width == 2 * hidden_size


@pytest.mark.parametrize(("family", "kind"), [("llama", "ffn"), ("gpt2", "ffn"), ("gemma3_text", "ffn"), ("mixtral", "gated")])
def test_units_are_taken_where_the_blocks_can_be_made_wider(family, kind):
    assert ExpertBank.grow(tiny_model(family), ExpertBankConfig(slots=1, width=4)).config.kind == kind


def test_a_family_with_blocks_of_both_sorts_gets_gated_experts():
    model = tiny_model("qwen3_moe")
    assert ExpertBank.grow(model, ExpertBankConfig(slots=1, width=4, layers="all")).config.kind == "gated"


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_neox"])
def test_it_learns(family):
    model = tiny_model(family)
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=1, width=16, layers="last_half", kind="ffn"))
    slot, ids = bank.activate(), tiny_batch()
    optimizer, losses = torch.optim.AdamW(bank.parameters(slot), lr=3e-2), []
    for _ in range(30):
        loss = F.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(parameter.grad.any() for parameter in bank.parameters(slot))


def test_an_expert_begins_and_learns_at_the_pace_of_its_block_s_inputs():
    paces = []
    for size in (1.0, 10.0):
        model = tiny_model()
        with torch.no_grad():
            for layer in model.model.layers:
                layer.post_attention_layernorm.weight.fill_(size)
        bank = ExpertBank.grow(model, ExpertBankConfig(slots=2, width=16, layers="last_half"))
        slot = bank.activate(seed=3)
        rates = bank.rates(slot, fast=40.0)
        gate = next(bank.per_layer())[slot].gate_proj
        paces.append(bank.paces[0].inner)
        assert bank.paces[0].inner == pytest.approx(0.2 / size, rel=0.05)
        assert gate.std().item() == pytest.approx(bank.paces[0].inner * 32**-0.5, rel=0.2)
        assert rates["layer.2.gate_proj"] == rates["layer.2.up_proj"] == bank.paces[0].inner
        assert rates["layer.2.shared"] == 40 * bank.paces[0].inner and rates["layer.2.down_proj"] == 1
    gated = ExpertBank.grow(tiny_model(), ExpertBankConfig(slots=1, width=4, kind="gated"))
    assert set(gated.rates(gated.activate(), fast=40.0).values()) == {1.0, 40.0}


def outer_rate(family, scale):
    model = tiny_model(family)
    with torch.no_grad():
        for layer in find_decoder_layers(model):
            find_ffn(layer).down_proj.weight.mul_(scale)
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=1, width=16, layers=[2], kind="ffn"))
    return bank.rates(bank.activate(), fast=40.0)["layer.2.down_proj"]


@pytest.mark.parametrize("family", ["gemma3_text", "olmo2"])
def test_where_a_norm_follows_an_outer_matrix_learns_at_the_pace_of_the_block_s_outputs(family):
    assert outer_rate(family, 0.1) == pytest.approx(0.1 * outer_rate(family, 1.0), rel=0.05)
    assert outer_rate("llama", 0.1) == outer_rate("llama", 1.0) == 1
