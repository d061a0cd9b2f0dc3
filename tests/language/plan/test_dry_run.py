"""Code that runs on the meta device: FLOPs and memory are those of the same code on a CPU."""

import pytest
import torch
from accelerate import init_empty_weights
from tiny import tiny_model, tiny_tokenizer
from tiny_night import tiny_items

from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.units import ExpertBankConfig
from sleepkit.language.plan.dry_run import counted
from sleepkit.language.seeding.divergence import OutputHead, TeacherTargets, token_divergence
from sleepkit.language.seeding.packing import Backbone, PreparedItem, flat_hidden, pad_rows


def one_step(model, device):
    """Forward and backward pass of one expert over padded rows."""
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=2, width=8, layers="last_half"))
    bank.train_only(0)
    backbone, tokenizer = Backbone(model, bank), tiny_tokenizer()
    items = [PreparedItem(tokenizer(item.prompt)["input_ids"], tokenizer(item.reply)["input_ids"], True) for item in tiny_items()]
    batch = pad_rows(items, 0, torch.device(device))
    n = len(batch.predicts)
    targets = TeacherTargets(
        log_probs=torch.full((n, 4), -3.0, device=device), indices=torch.zeros(n, 4, dtype=torch.int64, device=device)
    )
    with counted() as cost, bank.view([0]):
        flat = flat_hidden(backbone.hidden(batch), batch)
        token_divergence(flat, OutputHead.of(model), targets, chunk_size=16).sum().backward()
    return cost


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "mixtral", "gpt2"])
def test_a_step_without_values_costs_what_it_does_with_them(family):
    real = one_step(tiny_model(family), "cpu")
    with init_empty_weights(include_buffers=True):
        blank = tiny_model(family)
    dry = one_step(blank, "meta")
    assert dry.flops == pytest.approx(real.flops, rel=0.01)
    assert dry.peak_bytes == pytest.approx(real.peak_bytes, rel=0.15)


def test_a_product_is_two_flops_for_each_pair_and_memory_what_lives_at_one_time():
    with counted() as cost:
        a, b = torch.empty(8, 16, device="meta"), torch.empty(16, 4, device="meta")
        first = a @ b
        del a, b
        torch.empty(8, 4, device="meta").add_(first)
    assert cost.flops == 2 * 8 * 16 * 4
    assert cost.peak_bytes == 4 * (8 * 16 + 16 * 4 + 8 * 4)


def test_what_is_read_out_of_tensors_without_values_is_zero():
    with counted():
        tensor = torch.ones(3, device="meta")
        assert float(tensor.sum()) == 0 and tensor.tolist() == [0, 0, 0] and bool((tensor > 0).any())
        assert tensor.cpu().device.type == "cpu"


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_view_of_what_was_there_before_is_no_memory(device):
    weight, rows = torch.empty(64, 32, device=device), torch.empty(2, 32, device=device)
    with counted() as cost:
        product = rows @ weight.t()
    assert cost.peak_bytes == product.nbytes
