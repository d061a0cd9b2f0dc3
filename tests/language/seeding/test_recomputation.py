"""A training that recomputes activations in its backward pass is the training that keeps them, to rounding."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import tiny_tokenizer
from tiny_night import losses, tiny_config, tiny_grown, tiny_items, tiny_trainer

from sleepkit.language.seeding import attention
from sleepkit.language.seeding.lora import chat_rows, finetune, trl_settings
from sleepkit.utils.training import recomputing_here

RECOMPUTED = {
    "new name": {"activation_checkpointing": True},
    "old name": {"gradient_checkpointing": True},
    "reentrant": {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}},
    "reentrant, old name": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": '{"use_reentrant": true}'},
    "other options": {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"preserve_rng_state": False}},
    "every second layer": {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"every_n_layers": 2}},
}


def trained(folder, family="llama", layers="all", **options):
    trainer = tiny_trainer(folder, family, layers=layers, max_steps=3, **options)
    trainer.run()
    norms = [line["grad_norm"] for line in trainer.state.log_history if "grad_norm" in line]
    return trainer, [*losses(trainer), *norms], trainer.bank.state_dict()


def assert_equal(one, other):
    assert len(one[1]) == 6
    assert one[1] == pytest.approx(other[1], abs=1e-5)
    for name, value in one[2].items():
        torch.testing.assert_close(value, other[2][name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", RECOMPUTED.values(), ids=RECOMPUTED)
@pytest.mark.parametrize("layers", ["all", "last_half"])
def test_equals_the_training_that_keeps_activations(layers, options, tmp_path):
    plain, recomputed = trained(tmp_path, layers=layers), trained(tmp_path, layers=layers, **options)
    assert recomputed[0].seeding.packing and recomputed[0].seeding.activation_checkpointing
    assert_equal(recomputed, plain)


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "mixtral", "gemma3_text", "gpt_neox", "falcon_h1", "llama4_text"])
def test_whatever_the_layers_are(family, tmp_path):
    assert_equal(trained(tmp_path, family, activation_checkpointing=True), trained(tmp_path, family))


def test_with_rollouts_and_several_batches_a_step(tmp_path):
    options = {"lmbda": 1.0, "lmbda_start": 0.5, "gradient_accumulation_steps": 2}
    assert_equal(trained(tmp_path, activation_checkpointing=True, **options), trained(tmp_path, **options))


def test_layers_that_are_run_again_attend_in_blocks_again(tmp_path, monkeypatch):
    """Not by the dense mask, which would keep other tensors."""
    calls = []
    plain = attention._attend
    monkeypatch.setattr(attention, "_attend", lambda *args: calls.append(torch.is_grad_enabled()) or plain(*args))
    counts = []
    for recomputes in (False, True):
        calls.clear()
        trained(tmp_path, activation_checkpointing=recomputes)
        counts.append(sum(calls))
    assert 0 < 1.5 * counts[0] <= counts[1]


def test_what_is_asked_for_in_vain_is_said(tmp_path, caplog):
    config = tiny_config(tmp_path, activation_checkpointing=True, activation_checkpointing_kwargs={"use_reentrant": True})
    assert config.activation_checkpointing_kwargs == {"use_reentrant": False}
    assert "use_reentrant" in caplog.text


def test_later_trainings_are_told_themselves(tmp_path):
    trainer, _, _ = trained(tmp_path, activation_checkpointing=True)
    assert not trainer.lm.is_activation_checkpointing
    assert not trainer.lm.get_input_embeddings()._forward_hooks  # which let gradients into frozen layers
    trainer.lm.activation_checkpointing_enable()
    with recomputing_here(trainer.lm):
        trainer.lm.activation_checkpointing_disable()
    assert trainer.lm.is_activation_checkpointing and trainer.lm.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize("options", RECOMPUTED.values(), ids=RECOMPUTED)
def test_a_lora_that_is_fine_tuned(options, tmp_path):
    found = []
    for more in ({}, options):
        model, _ = tiny_grown()
        torch.manual_seed(0)
        student = get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"]))
        settings = trl_settings(tiny_config(tmp_path, max_steps=3, **more), 1, tmp_path)
        assert bool(settings["gradient_checkpointing"]) == bool(more)
        rows = chat_rows(tiny_tokenizer(), tiny_items()[:2])
        history = finetune(student, tiny_tokenizer(), rows, settings)["history"]
        weights = {name: value.clone() for name, value in student.named_parameters() if "lora_" in name}
        found.append(([line["loss"] for line in history], weights))
    assert len(found[0][0]) == 3
    assert found[1][0] == pytest.approx(found[0][0], abs=1e-5)
    for name, value in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], value, atol=1e-5, rtol=1e-5)
