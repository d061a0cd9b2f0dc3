"""Merging two experts into one: the error falls, a slot becomes free, nothing else moves."""

import pytest
import torch
from tiny import tiny_batch, tiny_model
from torch.nn import functional as F

from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.merge import capture_ffn_inputs, merge_oldest, merge_slots
from sleepkit.language.experts.units import ExpertBankConfig


def batches(rows=4, columns=40, count=3, pad=7):
    made = []
    for seed in range(count):
        mask = torch.ones(rows, columns, dtype=torch.long)
        mask[0, columns - pad :] = 0
        made.append({"input_ids": tiny_batch(rows, columns, seed), "attention_mask": mask})
    return made


def full_bank(kind="auto", family="llama", nights=3):
    """A pool whose experts have each learned a batch."""
    model = tiny_model(family)
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=nights, width=8, layers="last_half", kind=kind))
    for night in range(nights):
        optimizer = torch.optim.AdamW(bank.parameters(bank.activate()), lr=3e-2)
        x = tiny_batch(4, 40, seed=night)
        for _ in range(30):
            optimizer.zero_grad()
            F.cross_entropy(model(x).logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
            optimizer.step()
    return model, bank


def test_captured_inputs_are_those_of_real_tokens():
    model = tiny_model()
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=2, width=8, layers="last_half"))
    model.train()
    inputs = capture_ffn_inputs(bank, batches(), max_rows=10**6)
    assert [x.shape for x in inputs] == [(3 * (4 * 40 - 7), 32)] * 2
    assert model.training and not any(experts._forward_pre_hooks for experts in bank.per_layer())
    seen = []
    handle = model.model.layers[3].mlp.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    for batch in batches():
        model(**batch)
    handle.remove()
    masks = [batch["attention_mask"].bool() for batch in batches()]
    torch.testing.assert_close(inputs[1], torch.cat([x[mask] for x, mask in zip(seen, masks, strict=True)]))
    few = capture_ffn_inputs(bank, batches(), max_rows=50, seed=3)
    assert [x.shape for x in few] == [(50, 32)] * 2
    assert all((x[:, None] == y[None]).all(-1).any(1).all() for x, y in zip(few, inputs, strict=True))  # rows of them


@pytest.mark.parametrize("kind", ["ffn", "gated", "ungated"])
def test_merging_the_oldest(kind):
    model, bank = full_bank(kind)
    examples = batches()
    untouched = {name: p.clone() for name, p in model.named_parameters() if ".slots." not in name or ".slots.2." in name}
    with torch.no_grad(), bank.view([0, 1]):
        wanted = model(**examples[0]).logits
        with bank.view([]):
            nothing = model(**examples[0]).logits
    start = merge_slots_error_at_start(bank, examples)
    errors = merge_oldest(bank, examples)
    assert set(errors) == set(bank.layers)
    assert all(error < 0.5 for error in errors.values()), errors
    assert sum(errors.values()) < (0.9 if kind == "ffn" else 0.7) * sum(start.values()), (errors, start)
    assert bank.active == [0, 2] and not any(p.requires_grad for p in bank.parameters(0) + bank.parameters(1))
    assert all(not p.any() for experts in bank.per_layer() for p in [experts[1].up if kind != "ffn" else experts[1].down_proj])
    assert all(torch.equal(p, untouched[name]) for name, p in model.named_parameters() if name in untouched)
    with torch.no_grad(), bank.view([0]):
        got = model(**examples[0]).logits
    assert (got - wanted).square().mean() < 0.75 * (nothing - wanted).square().mean()
    assert bank.activate() == 1


def merge_slots_error_at_start(bank, examples):
    """The error before any optimisation, on a copy."""
    import copy

    other = ExpertBank.of(copy.deepcopy(bank.model))
    return merge_slots(other, 0, [0, 1], capture_ffn_inputs(other, examples), steps=0)


def test_equal_seeds_give_equal_experts():
    states = []
    for seed in (0, 0, 1):
        _, bank = full_bank(nights=2)
        merge_oldest(bank, batches(), seed=seed)
        states.append(bank.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not all(torch.equal(value, states[2][name]) for name, value in states[0].items())


def test_merging_silent_experts_is_exact():
    bank = ExpertBank.grow(tiny_model(), ExpertBankConfig(slots=2, width=8, layers="last_half"))
    bank.activate(), bank.activate()
    assert merge_oldest(bank, batches()) == {2: 0.0, 3: 0.0}


def test_refusals():
    bank = ExpertBank.grow(tiny_model(), ExpertBankConfig(slots=3, width=8, layers="last_half"))
    bank.activate()
    with pytest.raises(SleepkitError, match="needs two experts in use, there are 1"):
        merge_oldest(bank, batches())
    bank.activate()
    inputs = capture_ffn_inputs(bank, batches())
    for into, from_ in ((0, [0, 2]), (1, [0]), (2, [0, 1]), (0, [0, 0])):
        with pytest.raises(SleepkitError, match=r"cannot merge experts .* in use, \[0, 1\]"):
            merge_slots(bank, into, from_, inputs)
    with pytest.raises(SleepkitError, match=r"at least 20 rows .* got \[19, 19\]"):
        merge_slots(bank, 0, [0, 1], [x[:19] for x in inputs])
    with pytest.raises(SleepkitError, match="2 layers"):
        merge_slots(bank, 0, [0, 1], inputs[:1])
