"""Packed rows and cached lower layers equal the plain computation, and are switched off where they would not."""

import math
from collections import deque

import pytest
import torch
from tiny import EOS, HYBRIDS, tiny_tokenizer
from tiny_night import losses, tiny_grown, tiny_trainer
from torch.utils._python_dispatch import TorchDispatchMode

from sleepkit.language.generation.chat import chat_ids, text_ids
from sleepkit.language.seeding import packing, preparation
from sleepkit.language.seeding.packing import (
    Backbone,
    PreparedItem,
    common_prefix,
    flat_hidden,
    pack,
    packs_exactly,
    pad_rows,
)
from sleepkit.utils.precision import close

FAMILIES = ["llama", "qwen3", "gpt2", "gemma3_text", "mixtral"]
CPU = torch.device("cpu")


def some_items():
    tokenizer = tiny_tokenizer()
    talk = [
        ("who keeps the light?", "mira.", True),
        ("where is it?", "in orta, by the long lake of the north.", False),
        ("why?", "so.", True),
    ]
    return [
        PreparedItem(chat_ids(tokenizer, q), [*text_ids(tokenizer, a), EOS], memory, first_token=k)
        for k, (q, a, memory) in enumerate(talk)
    ]


def stirred(family, layers="last_half", **config):
    model, bank = tiny_grown(family, layers, **config)
    slot = bank.activate()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in bank.parameters(slot):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model, bank


def plain(model, items):
    """One forward pass of the Hugging Face model per item."""
    with torch.no_grad():
        return torch.cat(
            [
                model(torch.tensor([item.sequence]), output_hidden_states=True).hidden_states[-1][
                    0, -(len(item.reply_ids) - item.first_token) :
                ]
                for item in items
            ]
        )


@torch.no_grad()
def computed(model, bank, batch):
    return flat_hidden(Backbone(model, bank).hidden(batch), batch)


@torch.no_grad()
def keep_lower(model, bank, items):
    batch = pad_rows(items, EOS, CPU)
    for item, row in zip(items, Backbone(model, bank).lower_inputs(batch), strict=True):
        item.lower = row[: len(item.sequence)].clone()


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_and_padded_equal_plain(family):
    (model, bank), items = stirred(family), some_items()
    expected = plain(model, items)
    prefix = common_prefix(items)
    assert prefix > 0
    for batch in (pad_rows(items, EOS, CPU), pack(items, prefix, model.dtype, CPU), pack(items, 0, model.dtype, CPU)):
        assert batch.item_of.tolist() == [i for i, item in enumerate(items) for _ in item.reply_ids[item.first_token :]]
        if family == "gemma3_text" and batch.mask.ndim == 4:
            continue  # its sliding window is not in the packed mask: see the next test
        torch.testing.assert_close(computed(model, bank, batch), expected, atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "mixtral", "llama4_text", "qwen3_5_text", "falcon_h1"])
def test_cached_lower_layers_equal_plain(family):
    (model, bank), items = stirred(family), some_items()
    expected = plain(model, items)
    keep_lower(model, bank, items)
    torch.testing.assert_close(computed(model, bank, pad_rows(items, EOS, CPU)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "first", "config"),
    [
        ("gemma3_text", 1, {"layer_types": [*["sliding_attention"] * 2, "full_attention", "sliding_attention"]}),
        ("gemma3_text", 2, {"layer_types": [*["sliding_attention"] * 3, "full_attention"]}),
        ("qwen3_next", 1, {}),
        ("lfm2", 3, {}),
        ("nemotron_h", 2, {"layers_block_type": ["mlp", "full_attention", "mlp", "mlp"]}),
    ],
)
def test_layers_that_differ_are_entered_at_the_right_one(family, first, config):
    """Decoders look up masks and rotary embeddings by the index in the list of layers, which is cut."""
    model, bank = stirred(family, [first], **config)
    items, kinds = some_items(), model.config.layer_types
    assert Backbone(model, bank).shifts and Backbone(model, bank).enters_above
    keep_lower(model, bank, items)
    expected = plain(model, items)
    torch.testing.assert_close(computed(model, bank, pad_rows(items, EOS, CPU)), expected, atol=1e-5, rtol=1e-5)
    assert model.config.layer_types == kinds and len(Backbone(model, bank).all_layers) == 4


@pytest.mark.parametrize("layers", ["all", [1, 3]])
def test_shortcuts_together_from_any_first_layer(layers):
    (model, bank), items = stirred("llama", layers), some_items()
    expected = plain(model, items)
    keep_lower(model, bank, items)
    assert Backbone(model, bank).first == (0 if layers == "all" else 1)
    batch = pack(items, common_prefix(items), model.dtype, CPU)
    torch.testing.assert_close(computed(model, bank, batch), expected, atol=3e-5, rtol=1e-5)
    assert len(Backbone(model, bank).all_layers) == 4  # put back


def test_rows_hold_each_token_once():
    items = some_items()
    prefix, lengths = common_prefix(items), [len(item.sequence) for item in items]
    packed, padded = pack(items, prefix, torch.float32, CPU), pad_rows(items, EOS, CPU)
    assert packed.n_tokens == packed.ids.numel() == sum(lengths) - 2 * prefix
    assert padded.n_tokens == sum(lengths)
    assert packed.ids[0, :prefix].tolist() == items[0].sequence[:prefix]
    assert packed.ids[0, prefix:].tolist() == [token for item in items for token in item.sequence[prefix:]]
    assert packed.other_tokens[0, :prefix].all() and not (packed.other_tokens & packed.learned_tokens).any()
    for batch in (packed, padded):
        predicted = [items[i].reply_ids[items[i].first_token :] for i in range(3)]
        read = batch.ids.reshape(-1)[batch.predicts]  # the token before each predicted one
        assert read[1 : len(predicted[0])].tolist() == predicted[0][:-1]


class Largest(TorchDispatchMode):
    """Notes how many elements the largest tensor had that was made."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for one in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(one, torch.Tensor) and one.untyped_storage().nbytes() >= one.numel():  # no view of one number
                self.elements = max(self.elements, one.numel())
        return found


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "mixtral", "gemma2"])
def test_no_mask_is_written_out_where_attention_goes_by_blocks(family):
    (model, bank), items = stirred(family, **({"sliding_window": 512} if family == "gemma2" else {})), some_items()
    backbone, prefix = Backbone(model, bank), common_prefix(items)
    by_blocks = model.config._attn_implementation == "sdpa"
    assert backbone.reads_masks and packs_exactly(backbone, items, EOS) and backbone.reads_masks != by_blocks
    batch = pack(items, prefix, model.dtype, CPU, backbone.reads_masks)
    assert (batch.mask.untyped_storage().nbytes() < 16) == by_blocks
    torch.testing.assert_close(computed(model, bank, batch), plain(model, items), atol=3e-5, rtol=1e-5)


def test_packing_many_long_items_makes_nothing_of_all_tokens_squared():
    items = [PreparedItem([5] * 900, [6] * 100, True) for _ in range(8)]
    with Largest() as largest:
        batch = pack(items, 800, torch.float32, CPU, dense=False)
    assert batch.mask.shape[-1] == batch.ids.shape[1] == 800 + 8 * 199
    assert largest.elements < 4_000_000 < batch.mask.numel()


def test_a_model_that_looks_at_masks_by_itself_is_given_them(monkeypatch):
    """As those whose attention does not go through transformers' interface."""
    (model, bank), items = stirred("llama"), some_items()
    backbone = Backbone(model, bank)
    monkeypatch.setattr(packing, "TAKEN", deque(maxlen=1))  # one layer of two is seen
    assert packs_exactly(backbone, items, EOS) and backbone.reads_masks


# -- inside a trainer -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("family", "packing", "cache"),
    [
        ("llama", True, True),
        ("qwen3", True, True),
        ("mixtral", True, True),
        ("gpt2", True, False),  # adds position embeddings to what it is given, so layers cannot be entered half-way
        ("gemma3_text", False, True),  # its sliding window is narrower than an item, which one mask cannot say
    ],
)
def test_what_is_not_exact_is_switched_off(family, packing, cache, tmp_path):
    trainer = tiny_trainer(tmp_path, family)
    outcome = trainer.run()
    assert (trainer.seeding.packing, trainer.seeding.cache_frozen_layers) == (packing, cache)
    assert all((item.lower is not None) == cache for item in trainer.prepared)
    assert len(outcome["history"]) == 2 and all(math.isfinite(line["loss"]) and line["loss"] > 0 for line in outcome["history"])


@pytest.mark.parametrize("family", HYBRIDS)
@pytest.mark.parametrize("layers", ["last_half", "all"])
def test_no_mask_keeps_items_apart_where_layers_carry_states(family, layers, tmp_path, caplog):
    trainer = tiny_trainer(tmp_path, family, layers=layers)
    outcome = trainer.run()
    assert not trainer.seeding.packing
    said = [line for line in caplog.messages if line.startswith("packing is off")]
    assert len(said) == 1 and "carry a state from token to token" in said[0] and "\n" not in said[0]
    assert len(outcome["history"]) == 2 and all(math.isfinite(line["loss"]) and line["loss"] > 0 for line in outcome["history"])


def test_a_rule_does_not_wait_for_numbers(tmp_path, monkeypatch):
    """In bfloat16 what leaks from one item into the next may be less than rounding."""
    monkeypatch.setattr(preparation, "agrees", lambda *_: True)
    for family in ("qwen3_next", "gemma3_text"):
        trainer = tiny_trainer(tmp_path, family)
        trainer.preparation.check_shortcuts(trainer.prepared)
        assert not trainer.seeding.packing


def test_one_long_item_is_enough_to_switch_packing_off(tmp_path):
    """A window that all items fit but one, in the middle of the list."""
    trainer = tiny_trainer(tmp_path, "gemma3_text", tiny_grown("gemma3_text", sliding_window=80)[0])
    trainer.preparation.check_shortcuts(trainer.prepared)
    assert trainer.seeding.packing
    longer = trainer.items[2]
    trainer.items[2] = type(longer)(longer.prompt, longer.reply * 5, longer.context, longer.style)
    trainer.prepared = trainer.prepare(trainer.items)
    assert sum(len(item.sequence) > 80 for item in trainer.prepared) == 1
    trainer.preparation.check_shortcuts(trainer.prepared)
    assert not trainer.seeding.packing


@pytest.mark.parametrize("lmbda", [0.0, 1.0])
@pytest.mark.parametrize(
    "shortcuts", [{"packing": False}, {"cache_frozen_layers": False}, {"packing": False, "cache_frozen_layers": False}]
)
def test_training_is_the_same_without_shortcuts(shortcuts, lmbda, tmp_path):
    """Without the gate penalty, whose mean counts the prefix once per row."""
    runs = []
    for options in ({}, shortcuts):
        trainer = tiny_trainer(tmp_path, max_steps=4, gate_penalty=0.0, lmbda=lmbda, lmbda_start=lmbda, **options)
        trainer.run()
        gradients = [line["grad_norm"] for line in trainer.state.log_history if "grad_norm" in line]
        runs.append((losses(trainer), gradients, trainer.bank.state_dict()))
    (one, gradient_one, state_one), (other, gradient_other, state_other) = runs
    assert len(one) == 4
    assert one == pytest.approx(other, abs=1e-4) and gradient_one == pytest.approx(gradient_other, rel=1e-3)
    for name, value in state_one.items():
        torch.testing.assert_close(value, state_other[name], atol=1e-4, rtol=1e-3)


def test_close():
    one = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    assert close(one, one) and close(one, one * (1 + 1e-6)) and not close(one, one * 1.01)
    assert close(one.bfloat16(), (one * 1.001).bfloat16()) and not close(one.bfloat16(), (one * 1.1).bfloat16())
    assert not close(one * float("nan"), one)
