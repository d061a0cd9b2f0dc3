"""Growing preserves the function exactly, only the newest slot learns, and banks survive wrappers, copies and disks."""

import copy
import json
import sys
import types

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import FAMILIES, tiny_batch, tiny_model, tiny_tokenizer
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, BertConfig, BertLMHeadModel

from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import CONFIG_NAME, WEIGHTS_NAME, ExpertBank
from sleepkit.language.experts.gated import GatedExpert
from sleepkit.language.experts.units import ExpertBankConfig, LayerExperts
from sleepkit.language.models.decoder import find_decoder_layers

X = tiny_batch()


def small(**options):
    return ExpertBankConfig(**{"slots": 3, "width": 8, "layers": "last_half", **options})


def grown(family="llama", dtype=torch.float32, **options):
    model = tiny_model(family, dtype=dtype)
    return model, ExpertBank.grow(model, small(**options))


def logits(model, x=X):
    with torch.no_grad():
        return model(x).logits


def loss(model):
    return F.cross_entropy(model(X).logits[:, :-1].float().flatten(0, 1), X[:, 1:].flatten())


def stir(bank, slot, seed=0, scale=0.3):
    """What training does to a slot, without the training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in bank.parameters(slot):
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def learn(model, steps=3):
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()


# -- the function is preserved ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["auto", "gated", "ungated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_growing_and_activating_change_nothing(family, dtype, kind):
    model = tiny_model(family, dtype=dtype)
    before = logits(model)
    bank = ExpertBank.grow(model, small(layers="all", kind=kind))
    assert torch.equal(logits(model), before)
    for _ in range(3):
        slot = bank.activate()
        assert torch.equal(logits(model), before)  # the earlier slots are still at zero
    assert {parameter.dtype for parameter in bank.parameters(slot)} == {torch.float32}
    stir(bank, slot)
    assert not torch.equal(logits(model), before)


def test_growing_leaves_the_random_state_alone():
    model = tiny_model()
    state = torch.get_rng_state()
    ExpertBank.grow(model, small()).activate()
    assert torch.equal(torch.get_rng_state(), state)


X2 = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))


def test_a_gated_expert_equals_its_equation():
    model, bank = grown(layers=[2], kind="gated")
    slot = bank.activate()
    stir(bank, slot)
    expert = next(bank.per_layer())[slot]
    gate = ((X2 @ expert.gate_weight / 32**0.5 + expert.gate_bias + 3) / 6).clamp(0, 1)
    expected = gate[..., None] * (F.silu(X2 @ expert.down.T) @ expert.up.T)
    y, seen = expert(X2)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(expert.openness(seen), gate[..., None])


def test_a_closed_gate_is_silent():
    model, bank = grown(kind="gated")
    before = logits(model)
    slot = bank.activate()
    stir(bank, slot)
    with torch.no_grad():
        for experts in bank.per_layer():
            experts[slot].gate_weight.zero_()
            experts[slot].gate_bias.fill_(-3.0)
    assert torch.equal(logits(model), before)
    loss(model).backward()  # but it can open again
    assert all(experts[slot].gate_bias.grad.abs() > 0 for experts in bank.per_layer())


@pytest.mark.parametrize(
    ("layers", "expected"), [("all", [0, 1, 2, 3]), ("last_half", [2, 3]), ("last_quarter", [3]), ([3, 1, 1], [1, 3])]
)
def test_layers(layers, expected):
    model, bank = grown(layers=layers)
    assert bank.layers == expected
    assert len(list(bank.per_layer())) == len(expected)
    assert [i for i, layer in enumerate(find_decoder_layers(model)) if hasattr(layer.mlp, "sleep_experts")] == expected


# -- only the newest learns ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_the_newest_slot_only(family):
    model, bank = grown(family, torch.bfloat16)
    first = bank.activate()
    learn(model)
    second = bank.activate()
    frozen = {name: p.clone() for name, p in model.named_parameters() if f"slots.{second}." not in name}
    before = bank.state_dict()
    learn(model)
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        name for name, p in model.named_parameters() if f"slots.{second}." in name or f"slots.{first}." in name
    }
    after = bank.state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {name for name in after if name.startswith(f"slot.{second}.")}  # each one of them


def test_train_only_nothing():
    model, bank = grown()
    bank.activate()
    bank.train_only(None)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3_moe"])
def test_gradient_checkpointing_gives_equal_gradients(family):
    gradients = []
    for checkpointing in (False, True):
        model, bank = grown(family, layers="all")
        slot = bank.activate()
        stir(bank, slot)
        model.train()
        if checkpointing:
            model.activation_checkpointing_enable()
        with bank.watch_gates(slot) as layers:
            output = loss(model)
            gates = torch.stack([experts.gates for experts in layers])  # a loss on the gates, too
            (output + gates.mean()).backward()
        gradients.append([parameter.grad for parameter in bank.parameters(slot)])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


# -- views ----------------------------------------------------------------------------------------------------------
def test_view_hides_and_puts_back():
    model, bank = grown()
    base = logits(model)
    first = bank.activate()
    stir(bank, first)
    one = logits(model)
    second = bank.activate()
    stir(bank, second, seed=1)
    two = logits(model)
    assert not torch.equal(one, base) and not torch.equal(two, one)
    with bank.view(slot for slot in ()):
        assert torch.equal(logits(model), base)
        with bank.view(slot for slot in [first]):
            assert torch.equal(logits(model), one)
        assert torch.equal(logits(model), base)
    with pytest.raises(RuntimeError), bank.view([]):
        raise RuntimeError
    assert torch.equal(logits(model), two)


def test_teacher_differs_from_student_after_an_update():
    """The pitfall of a toy: if the teacher saw tonight's expert as well, there would be nothing to learn."""
    model, bank = grown()
    before = logits(model)
    night = bank.activate()
    learn(model, steps=1)
    learn(model, steps=1)  # the first step moves `up` only, since `up` = 0 holds back the gradient of the others
    with bank.view([slot for slot in bank.active if slot != night]):
        teacher = logits(model)
    assert torch.equal(teacher, before)
    assert (logits(model) - teacher).abs().max() > 1e-3


def test_watch_gates():
    model, bank = grown()
    slot = bank.activate()
    stir(bank, slot)
    with bank.watch_gates(slot) as layers:
        logits(model)
        assert [experts.gates.shape for experts in layers] == [(2, 12, 1)] * 2
    assert all(experts.gates is None and experts.keep_gates_of is None for experts in layers)


def test_generate_with_cache():
    model, bank = grown("qwen3")
    slot = bank.activate()
    stir(bank, slot)
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    fast = model.generate(X, use_cache=True, **options)
    assert torch.equal(fast, model.generate(X, use_cache=False, **options))
    with bank.view([]):
        assert not torch.equal(fast, model.generate(X, **options))


# -- slots ------------------------------------------------------------------------------------------------------------
def test_reset_and_deactivate():
    model, bank = grown()
    base = logits(model)
    first = bank.activate(seed=5)
    fresh = bank.state_dict()
    learn(model)
    bank.reset(first, seed=5)
    assert bank.active == [first]
    assert all(torch.equal(value, fresh[name]) for name, value in bank.state_dict().items())
    learn(model)
    bank.deactivate(first)
    assert bank.active == [] and torch.equal(logits(model), base)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(SleepkitError, match=f"expert {first} is not in use"):
        bank.deactivate(first)
    assert bank.activate(seed=5) == first
    assert all(torch.equal(value, fresh[name]) for name, value in bank.state_dict().items())


def test_full_pool():
    model, bank = grown(slots=2)
    assert [bank.activate(), bank.activate()] == [0, 1]
    with pytest.raises(SleepkitError, match="all 2 experts are in use.*merge_oldest"):
        bank.activate()
    bank.deactivate(0)
    assert bank.activate() == 0 and bank.active == [1, 0]  # in the order of their nights


def test_growing_twice_is_refused():
    model, bank = grown()
    for again in (model, get_peft_model(model, LoraConfig(target_modules=["q_proj"]))):
        with pytest.raises(SleepkitError, match="already"):
            ExpertBank.grow(again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [4]}, r"layers \[4\].*0 to 3"),
        ({"layers": []}, r"layers \[\]"),
        ({"layers": "first_half"}, "'first_half'"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"slots": 0}, "slots must be at least 1, got 0"),
        ({"kind": "dense"}, "expert kind is 'dense'; use one of auto, ffn, gated, ungated"),
    ],
)
def test_bad_configuration(options, message):
    model = tiny_model()
    with pytest.raises(SleepkitError, match=message):
        ExpertBank.grow(model, small(**options))
    assert not any(isinstance(module, LayerExperts) for module in model.modules())


def test_models_that_cannot_grow():
    bert = BertLMHeadModel(BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4))
    for model, name in ((bert, "BertLMHeadModel"), (torch.nn.Linear(2, 2), "Linear")):
        with pytest.raises(SleepkitError, match=f"{name} has no list of .* decoder layers"):
            ExpertBank.grow(model)
    with pytest.raises(SleepkitError, match="LlamaForCausalLM has no expert bank"):
        ExpertBank.of(tiny_model())


# -- copies and wrappers ------------------------------------------------------------------------------------------
def test_deepcopy_is_independent():
    model, bank = grown()
    slot = bank.activate()
    stir(bank, slot)
    twin = copy.deepcopy(model)
    other = ExpertBank.of(twin)
    assert other is not bank and other.model is twin
    before = logits(model)
    assert torch.equal(logits(twin), before)
    stir(other, slot, seed=1)
    other.activate()
    assert bank.active == [slot] and torch.equal(logits(model), before)
    assert not torch.equal(logits(twin), before)
    with bank.view([]):
        hidden = logits(twin)
        assert not torch.equal(logits(model), before)
    assert torch.equal(logits(twin), hidden)


@pytest.mark.parametrize("grow_first", [True, False])
def test_lora_on_the_same_model(grow_first, tmp_path):
    model = tiny_model()
    base = logits(model)
    lora = LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    if grow_first:
        bank = ExpertBank.grow(model, small())
        model = get_peft_model(model, lora)
    else:
        model = get_peft_model(model, lora)
        bank = ExpertBank.grow(model, small())
    model.eval()
    assert ExpertBank.of(model) is bank and bank.model is model.get_base_model()
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
    slot = bank.activate()
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, p in model.named_parameters() if f"slots.{slot}." in name
    }
    for name, parameter in model.named_parameters():  # both, when asked
        parameter.requires_grad_(parameter.requires_grad or "lora_" in name)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    learn(model)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if "lora_" in name or f"slots.{slot}." in name}

    slept = logits(model)
    bank.save(tmp_path / "experts")
    model.save_pretrained(tmp_path / "lora")
    assert not any("sleep_experts" in path.name for path in tmp_path.rglob("*"))
    from peft import PeftModel

    again = tiny_model()
    ExpertBank.load(again, tmp_path / "experts")
    again = PeftModel.from_pretrained(again, tmp_path / "lora").eval()
    assert torch.equal(logits(again), slept)

    merged = model.merge_and_unload()
    assert ExpertBank.of(merged) is bank
    torch.testing.assert_close(logits(merged), slept, atol=1e-5, rtol=1e-5)
    bank.activate()
    torch.testing.assert_close(logits(merged), slept, atol=1e-5, rtol=1e-5)


# -- keeping ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["auto", "gated", "ungated"])
@pytest.mark.parametrize("family", FAMILIES)
def test_save_and_load_bitwise(family, kind, tmp_path):
    model, bank = grown(family, torch.bfloat16, layers=[1, 3], kind=kind)
    bank.activate()
    stir(bank, bank.activate())
    stir(bank, bank.activate(), seed=1)
    bank.deactivate(0)
    stir(bank, bank.activate(), seed=2)
    bank.save(tmp_path / "new" / "folder")
    again = tiny_model(family, dtype=torch.bfloat16)
    loaded = ExpertBank.load(again, tmp_path / "new" / "folder")
    assert (loaded.active, loaded.layers, loaded.config) == ([1, 2, 0], [1, 3], small(layers=[1, 3], kind=bank.config.kind))
    state = bank.state_dict()
    assert state.keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    assert torch.equal(logits(again), logits(model))
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == {CONFIG_NAME, WEIGHTS_NAME}


def test_snapshot_and_restore():
    model, bank = grown()
    stir(bank, bank.activate())
    before, state, active = logits(model), bank.state_dict(), list(bank.active)
    bank.activate()
    learn(model)
    stir(bank, 0, seed=3)
    bank.load_state_dict(state, active)
    assert bank.active == [0] and torch.equal(logits(model), before)


def test_a_state_that_does_not_fit_changes_nothing():
    model, bank = grown()
    stir(bank, bank.activate())
    before, state = logits(model), bank.state_dict()
    short = dict(list(state.items())[:-1])
    wrong = {**state, "slot.0.layer.2.down_proj": torch.zeros(32, 9)}
    for bad, active, message in (
        (short, [0], "missing"),
        (wrong, [0], r"\(32, 8\), is \(32, 9\)"),
        (state, [3], "3 slots"),
    ):
        with pytest.raises(SleepkitError, match=message):
            bank.load_state_dict({name: torch.zeros_like(value) for name, value in bad.items()}, active)
        assert torch.equal(logits(model), before)


def test_damaged_and_foreign_files(tmp_path):
    model, bank = grown()
    stir(bank, bank.activate())
    bank.save(tmp_path)

    def refuses(other, message):
        with pytest.raises(SleepkitError, match=message):
            ExpertBank.load(other, tmp_path)
        assert not any(isinstance(module, LayerExperts) for module in other.modules())

    refuses(tiny_model("qwen3"), "'model_type': 'llama'.*'model_type': 'qwen3'.*model they were grown on")
    refuses(tiny_model(hidden_size=64), "'hidden_size': 32.*'hidden_size': 64")
    refuses(tiny_model(num_hidden_layers=6), "'num_hidden_layers': 4.*'num_hidden_layers': 6")
    weights, config = (tmp_path / WEIGHTS_NAME).read_bytes(), json.loads((tmp_path / CONFIG_NAME).read_text())
    for cut in (0, 5, len(weights) // 2, len(weights) - 1):
        (tmp_path / WEIGHTS_NAME).write_bytes(weights[:cut])
        refuses(tiny_model(), f"{WEIGHTS_NAME} cannot be read")
    (tmp_path / WEIGHTS_NAME).unlink()
    refuses(tiny_model(), f"{WEIGHTS_NAME} cannot be read")
    for text, message in (
        ("{", "not a valid"),
        ("[]", "not a valid"),
        (json.dumps({**config, "config": {"depth": 3}}), "not a valid.*depth"),
        (json.dumps({"config": config["config"]}), "lacks active, base_shape, layers"),
    ):
        (tmp_path / CONFIG_NAME).write_text(text)
        refuses(tiny_model(), message)
    (tmp_path / CONFIG_NAME).unlink()
    refuses(tiny_model(), f"no {CONFIG_NAME}")


def test_parameters_split_by_zero3_are_whole_where_they_are_touched(tmp_path, monkeypatch):
    """A stand-in for DeepSpeed: parameters are empty outside `GatheredParameters`, which keeps rank 0's changes."""

    class GatheredParameters:
        def __init__(self, parameters, modifier_rank):
            self.parameters, self.keep = list(parameters), modifier_rank == 0

        def __enter__(self):
            for parameter in self.parameters:
                parameter.data = parameter.ds_full.clone()

        def __exit__(self, *_):
            for parameter in self.parameters:
                parameter.ds_full = parameter.data if self.keep else parameter.ds_full
                parameter.data = torch.empty(0)

    deepspeed = types.ModuleType("deepspeed")
    deepspeed.zero = types.SimpleNamespace(GatheredParameters=GatheredParameters)
    monkeypatch.setitem(sys.modules, "deepspeed", deepspeed)
    states = []
    for split in (False, True):
        model, bank = grown()
        if split:
            for slot in range(3):
                for index, parameter in enumerate(bank.parameters(slot)):
                    parameter.ds_id, parameter.ds_full, parameter.data = index, parameter.data, torch.empty(0)
        bank.activate(seed=3)
        bank.activate(seed=3)
        bank.deactivate(0)
        bank.load_state_dict({name: value + 1 for name, value in bank.state_dict().items()}, [1])
        bank.save(tmp_path)
        states.append(ExpertBank.load(tiny_model(), tmp_path).state_dict())
        assert all(torch.equal(value, states[-1][name]) for name, value in bank.state_dict().items())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("family", FAMILIES)
def test_save_pretrained_of_a_grown_model_loads_as_the_plain_base(family, tmp_path):
    model, bank = grown(family)
    base = logits(model)
    stir(bank, bank.activate())
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), base)


def test_frozen_expert_is_computed_where_it_is_open():
    expert = GatedExpert(16, 8)
    expert.reset(torch.Generator().manual_seed(0))
    with torch.no_grad():
        expert.up.normal_(generator=torch.Generator().manual_seed(1))
        expert.gate_weight.normal_(std=20.0, generator=torch.Generator().manual_seed(2))
    results = []
    for trains in (True, False):
        expert.requires_grad_(trains)
        x = torch.randn(2, 30, 16, generator=torch.Generator().manual_seed(3)).requires_grad_(True)
        y, gate = expert(x)
        opened = (gate > 0).detach()
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        results.append((y.detach(), gradient, opened))
    (dense, dense_gradient, opened), (sparse, sparse_gradient, _) = results
    assert 0 < opened.float().mean() < 1
    torch.testing.assert_close(sparse, dense)
    torch.testing.assert_close(sparse_gradient[opened[..., 0]], dense_gradient[opened[..., 0]])
    assert not sparse_gradient[~opened[..., 0]].any()  # nothing reaches an old expert through a closed gate
    expert.gate_bias.data.fill_(-1e3)
    y, _ = expert(x)
    assert not y.any()


@pytest.mark.parametrize("kind", ["ffn", "gated"])
def test_one_expert_forced_open_in_each_layer_while_dreaming(kind):
    model = tiny_model()
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=2, width=4, kind=kind))
    slot = bank.activate(seed=0)
    with torch.no_grad():
        for experts in bank.per_layer():
            expert = experts[slot]
            (expert.up if kind == "gated" else expert.down_proj).normal_(generator=torch.Generator().manual_seed(1))
            if kind == "gated":
                expert.gate_bias.fill_(-10.0)
            else:
                expert.gate_proj.zero_()  # silu(0) is 0
    bank.train_only(None)
    ids = tiny_batch()
    silent = model(ids).logits
    opened = []
    for seed in range(6):
        with bank.one_forced_open(seed, 0.25):
            opened.append(model(ids).logits)
            same = [experts.forced_open for experts in bank.per_layer()]
        with bank.one_forced_open(seed, 0.25):
            assert [experts.forced_open for experts in bank.per_layer()] == same
        unchanged = not any(slot in forced_open for forced_open in same)
        assert (opened[-1] == silent).all() == unchanged  # a slot without an expert changes nothing
    assert torch.equal(model(ids).logits, silent) and any(not torch.equal(one, silent) for one in opened)
    with bank.view(()):  # the random one comes into view
        unslept = model(ids).logits
        with bank.one_forced_open(seed, 0.25):
            assert [slot in experts.visible for experts in bank.per_layer()] == [slot in forced_open for forced_open in same]
        assert torch.equal(model(ids).logits, unslept)
