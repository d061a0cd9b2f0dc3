"""A LoRA that `SFTTrainer` trains, and the nights that move what it learned into experts."""

import pytest
import torch
from datasets import Dataset
from launch import together
from peft import LoraConfig
from tiny import tiny_model, tiny_tokenizer
from tiny_night import FACTS, tiny_sleep
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from sleepkit import SleepCallback
from sleepkit.errors import SleepkitError
from sleepkit.language.adapter_learner import rows_of_batch
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.utils.digests import digest

CHATS = Dataset.from_list(
    [{"prompt": [{"role": "user", "content": q}], "completion": [{"role": "assistant", "content": a}]} for q, a, _ in FACTS[:4]]
)
TEXTS = Dataset.from_list([{"text": f"{q} {a}"} for q, a, _ in FACTS[:4]])
ANCHORS = [{"prompt": "what is hot?", "answer": "fire"}]
GENERAL = ["name a colour.", "say hello."]


def sleeping(folder, every=40, **options):
    small = {"max_steps": 60, "expert_width": 48, "expert_slots": 4, "expert_layers": "all", "expert_kind": "ungated"}
    small |= {"general_items": 2, "general_tokens": 4, "gate_anchor_kl": 9.0, "gate_anchor_drop": 1.0, "learning_rate": 1e-2}
    args = tiny_sleep(folder / "nights", **{**small, **options})
    return SleepCallback(args, every=every, general_prompts=GENERAL, anchors=ANCHORS)


def trainer_of(folder, sleep, data=CHATS, more=(), **options):
    settings = {"max_steps": 40, "per_device_train_batch_size": 2, "learning_rate": 2e-2, "lr_scheduler_type": "constant"}
    settings |= {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    return SFTTrainer(
        tiny_model(),
        SFTConfig(output_dir=str(folder / "sft"), **{**settings, **options}),
        train_dataset=data,
        processing_class=tiny_tokenizer(),
        peft_config=LoraConfig(r=8, target_modules="all-linear", lora_dropout=0.1),  # so that the random state matters
        callbacks=[sleep, *more],
    )


def lora(model):
    return {name: values.detach().clone() for name, values in model.named_parameters() if ".lora_" in name}


@pytest.mark.parametrize("data", [CHATS, TEXTS], ids=["chats", "texts"])
def test_what_the_lora_learned_survives_its_reset(tmp_path, data):
    sleep = sleeping(tmp_path)
    trainer = trainer_of(tmp_path, sleep, data)
    trainer.train()
    (night,) = sleep.nights  # at the last step, and not again after it
    assert night.kept and night.metrics["loss_base"] > 4 and night.metrics["loss_adapter"] < 3
    gained = night.metrics["loss_base"] - night.metrics["loss_adapter"]
    assert night.metrics["loss_base"] - night.metrics["loss_expert"] > 0.75 * gained
    assert all(not values.any() for name, values in lora(trainer.model).items() if "lora_B" in name)  # reset
    assert all(values.requires_grad == (".lora_" in name) for name, values in trainer.model.named_parameters())
    rows = sleep.learner.day.rows
    loaded = tiny_model()
    ExpertBank.load(loaded, tmp_path / "nights" / "model")
    ids = torch.tensor([tiny_tokenizer()(rows[0].prompt + rows[0].reply, add_special_tokens=False)["input_ids"]])
    with torch.no_grad(), trainer.model.disable_adapter():
        torch.testing.assert_close(loaded(ids).logits, trainer.model.eval()(ids).logits, rtol=1e-4, atol=1e-4)


def test_nights_that_recompute_activations_change_nothing_for_the_day(tmp_path):
    found = []
    for recomputes in (False, True):
        sleep = sleeping(tmp_path, every=3, max_steps=4, activation_checkpointing=recomputes)
        trainer = trainer_of(tmp_path, sleep, max_steps=6, gradient_checkpointing=False)
        trainer.train()
        assert not trainer.model.is_activation_checkpointing
        found.append([night.metrics[name] for night in sleep.nights for name in ("loss_base", "loss_adapter", "loss_expert")])
    assert len(found[0]) == 6 and found[1] == pytest.approx(found[0], abs=1e-5)


def test_later_nights_keep_what_earlier_ones_learned_and_the_optimizer_starts_anew(tmp_path):
    sleep, seen = sleeping(tmp_path, every=15, max_steps=8), []

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
            seen.append(len(optimizer.state))

    trainer_of(tmp_path, sleep, more=[Watch()]).train()
    assert [night.experience for night in sleep.nights] == ["steps to 15", "steps to 30", "steps to 40"]
    assert seen[14] > 0 == seen[15] == seen[30] and len(sleep.learner.bank.active) == 3
    assert {item.night for item in sleep.learner.rehearsal.replay} == {1, 2, 3}


@pytest.mark.usefixtures("undoing")
def test_a_night_that_is_undone_leaves_lora_and_experts_as_they_were(tmp_path):
    sleep, before = sleeping(tmp_path), []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            before.append(lora(model))

    trainer = trainer_of(tmp_path, sleep)
    trainer.callback_handler.callbacks.insert(0, Watch())
    trainer.train()
    assert [night.kept for night in sleep.nights] == [False]
    assert not sleep.learner.bank.active
    assert all(torch.equal(values, before[-1][name]) for name, values in lora(trainer.model).items())


class Stop(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


def test_resumed_equals_uninterrupted(tmp_path):
    def run(name, more=(), resume=False):
        sleep = sleeping(tmp_path / name, every=8, max_steps=4)
        trainer = trainer_of(tmp_path / name, sleep, more=more, max_steps=20, save_strategy="steps", save_steps=6)
        trainer.train(resume_from_checkpoint=resume)
        return sleep, trainer

    whole, whole_trainer = run("whole")
    run("cut", more=[Stop(12)])
    rest, rest_trainer = run("cut", resume=str(tmp_path / "cut" / "sft" / "checkpoint-12"))
    assert [night.reason for night in rest.nights] == [night.reason for night in whole.nights] and len(rest.nights) == 3
    for one, other in (
        (lora(whole_trainer.model), lora(rest_trainer.model)),
        (whole.learner.snapshot(), rest.learner.snapshot()),
    ):
        assert all(torch.equal(one[name], other[name]) for name in one)
    (tmp_path / "cut" / "sft" / "checkpoint-12" / "sleep" / "nights.json").unlink()
    with pytest.raises(SleepkitError, match="has no sleep/ with its nights"):
        run("cut", resume=str(tmp_path / "cut" / "sft" / "checkpoint-12"))


def test_a_model_without_a_lora_and_other_mistakes(tmp_path):
    with pytest.raises(SleepkitError, match="every is 0"):
        SleepCallback(every=0)
    with pytest.raises(SleepkitError, match="dream_rounds and dream_set are for nights on documents"):
        sleeping(tmp_path, dream_rounds=1)
    with pytest.raises(SleepkitError, match="is a LlamaForCausalLM without a LoRA; give the trainer `peft_config="):
        SFTTrainer(
            tiny_model(),
            SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none"),
            train_dataset=CHATS,
            processing_class=tiny_tokenizer(),
            callbacks=[sleeping(tmp_path)],
        )


def test_rows_are_taken_as_they_were_trained_on():
    tokenizer = tiny_tokenizer()
    ids = tokenizer(["abcd", "efg"], add_special_tokens=False)["input_ids"]
    padded = torch.tensor([ids[0], [*ids[1], 1]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    labels = padded.masked_fill(mask == 0, -100)
    assert rows_of_batch(tokenizer, {"input_ids": padded, "labels": labels, "attention_mask": mask}) == [
        ("", "abcd"),
        ("", "efg"),
    ]
    labels[0, :2] = labels[1, :] = -100  # a prompt; and nothing to learn
    assert rows_of_batch(tokenizer, {"input_ids": padded, "labels": labels, "attention_mask": mask}) == [("ab", "cd")]
    packed = {"input_ids": torch.tensor([ids[0] + ids[1]]), "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2]])}
    assert rows_of_batch(tokenizer, packed | {"labels": packed["input_ids"]}) == [("", "abcd"), ("", "efg")]


@pytest.mark.distributed
def test_two_processes_sleep_alike_and_resume(tmp_path):
    def run(name, more=(), resume=None):
        sleep = sleeping(tmp_path / name, every=4, max_steps=4)
        options = {"max_steps": 8, "save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 1}
        trainer = trainer_of(tmp_path / name, sleep, more=more, **options)
        trainer.train(resume_from_checkpoint=resume)
        learned = {row.reply for row in sleep.learner.day.rows}
        reasons = [night.reason for night in sleep.nights]
        return reasons, digest(lora(trainer.model)), digest(sleep.learner.snapshot()), len(learned)

    def rank():
        whole = run("whole")
        run("cut", [Stop(6)])
        rest = run("cut", resume=str(tmp_path / "cut" / "sft" / "checkpoint-6"))
        found = [None, None]
        torch.distributed.all_gather_object(found, [whole, rest])
        assert found[0] == found[1], found  # all ranks have the same experts, and reset the LoRA alike
        assert whole == rest and len(whole[0]) == 2 and whole[3] == 4, found  # a night learns what all ranks have seen

    together(rank)
