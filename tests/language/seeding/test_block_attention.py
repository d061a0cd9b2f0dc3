"""Attention in blocks against the dense mask: values, gradients, and when it is used."""

from dataclasses import replace

import pytest
import torch
from test_packing import CPU, some_items, stirred

from sleepkit.language.seeding import attention as block_attention
from sleepkit.language.seeding.packing import Backbone, common_prefix, flat_hidden, pack


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("long", [block_attention.LONG, 1], ids=["short", "long"])
def test_equals_the_dense_mask_in_value_and_gradient(family, shared, long, monkeypatch):
    monkeypatch.setattr(block_attention, "LONG", long)
    model, bank = stirred(family)
    items = some_items()
    batch = pack(items, common_prefix(items) if shared else 0, model.dtype, CPU)
    used = []
    plain = block_attention._attend
    monkeypatch.setattr(block_attention, "_attend", lambda query, *rest: used.append(query.shape) or plain(query, *rest))
    gradients = []
    for one in (batch, replace(batch, blocks=None)):
        bank.train_only(0)
        model.zero_grad()
        hidden = flat_hidden(Backbone(model, bank).hidden(one), one)
        (hidden * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
        gradients.append([hidden.detach(), *(parameter.grad.clone() for parameter in bank.parameters(0))])
    groups = len(batch.blocks.groups)
    assert groups > 1  # these items differ in length
    assert sum(shape[0] for shape in used[:groups]) == len(items) + shared  # of the first layer: every block once
    assert model.config._attn_implementation == "sdpa"
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, atol=3e-5 * max(1, expected.abs().max().item()), rtol=1e-4)


def test_other_implementations_are_left_alone():
    model, bank = stirred("llama")
    model.config._attn_implementation = "eager"
    items = some_items()
    batch = pack(items, common_prefix(items), model.dtype, CPU)
    with block_attention.attend_in_blocks(model.config):
        assert model.config._attn_implementation == "eager"
    with torch.no_grad():
        expected = Backbone(model, bank).hidden(batch)
        model.config._attn_implementation = "sdpa"
        torch.testing.assert_close(Backbone(model, bank).hidden(batch), expected, atol=1e-5, rtol=1e-5)
