"""When levels are due, and that a Trainer sleeps at those steps, also when it was interrupted and resumed."""

import json
from pathlib import Path

import pytest
import torch
from launch import succeed, torchrun
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from sleepkit.errors import SleepkitError
from sleepkit.language.schedule import SleepCallback, SleepSchedule

# The schedule


@pytest.mark.parametrize("sizes", [(1,), (3,), (2, 4), (2, 6, 12)])
def test_due_against_loop(sizes):
    schedule = SleepSchedule(sizes)
    for previous in range(0, 30):
        for count in range(previous, 30):
            passed = range(previous + 1, count + 1)
            expected = [level for level, size in enumerate(sizes) if any(tick % size == 0 for tick in passed)]
            assert schedule.due(previous, count) == expected
            assert expected == list(range(len(expected)))  # never a slow level without the faster ones


def test_advance_and_state():
    schedule = SleepSchedule((2, 4), unit="examples")
    assert [schedule.advance(count) for count in (1, 2, 3, 3, 5, 9)] == [[], [0], [], [], [0, 1], [0, 1]]
    copy = SleepSchedule((2, 4), unit="examples")
    copy.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    assert copy.state_dict() == schedule.state_dict() == {"chunk_sizes": [2, 4], "unit": "examples", "count": 9}
    assert copy.advance(10) == [0]
    with pytest.raises(SleepkitError, match="stands at 10 examples and was set to 3"):
        copy.advance(3)


@pytest.mark.parametrize(
    ("sizes", "unit", "message"),
    [
        (
            (4, 6),
            "steps",
            "chunk size 6 of level 1 is not divisible by 4 of the faster level 0; use a multiple such as 8",
        ),
        ((4, 2), "steps", "chunk size 2 of level 1"),
        ((), "steps", r"chunk_sizes is \[\]"),
        ((0,), "steps", r"chunk_sizes is \[0\]"),
        ((1.5,), "steps", "chunk_sizes"),
        ((1,), "epochs", "unit is 'epochs'; use one of steps, tokens, examples, manual"),
    ],
)
def test_bad_schedules(sizes, unit, message):
    with pytest.raises(SleepkitError, match=message):
        SleepSchedule(sizes, unit)


def test_state_of_another_schedule_is_refused():
    state = SleepSchedule((2,), "tokens").state_dict()
    with pytest.raises(SleepkitError, match=r"\[2\] in tokens, this run by \[2\] in steps"):
        SleepSchedule((2,), "steps").load_state_dict(state)


# The callback

LENGTHS = [3 + i % 5 for i in range(24)]


def collate(rows):
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows])
    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def tiny_trainer(folder, callbacks, **options):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_dropout=0.2,  # so that the random state matters
    )
    settings = {"per_device_train_batch_size": 2, "num_train_epochs": 1, "learning_rate": 0.05, "save_strategy": "no"}
    args = TrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, report_to="none", **{**settings, **options})
    data = [{"input_ids": [(i + t) % 31 + 1 for t in range(length)]} for i, length in enumerate(LENGTHS)]
    return Trainer(LlamaForCausalLM(config), args, train_dataset=data, data_collator=collate, callbacks=callbacks)


class Nights:
    """A sleep that is recorded, changes the weights and uses random numbers."""

    def __init__(self):
        self.log = []

    def __call__(self, levels, model, state):
        self.log.append((state.global_step, levels))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.01)


def test_steps(tmp_path):
    nights = Nights()
    tiny_trainer(tmp_path, [SleepCallback(SleepSchedule((3, 6)), nights)]).train()
    assert nights.log == [(3, [0]), (6, [0, 1]), (9, [0]), (12, [0, 1])]


@pytest.mark.parametrize("count", ["all", "non_padding"])
def test_tokens(tmp_path, count):
    nights = Nights()
    callback = SleepCallback(SleepSchedule((25, 50), "tokens"), nights)
    trainer = tiny_trainer(tmp_path, [callback], include_num_input_tokens_seen=count, train_sampling_strategy="sequential")
    trainer.train()
    expected, total = [], 0
    for step in range(12):
        pair = LENGTHS[2 * step : 2 * step + 2]
        before, total = total, total + (sum(pair) if count == "non_padding" else 2 * max(pair))
        if total // 25 > before // 25:
            expected.append((step + 1, [0, 1] if total // 50 > before // 50 else [0]))
    assert nights.log == expected and len(expected) > 3


def test_examples_count_the_global_batch(tmp_path):
    nights = Nights()
    callback = SleepCallback(SleepSchedule((10,), "examples"), nights)
    tiny_trainer(tmp_path, [callback], gradient_accumulation_steps=2).train()  # 4 examples a step
    assert nights.log == [(3, [0]), (5, [0])]


def test_manual(tmp_path):
    nights = Nights()
    sleep = SleepCallback(SleepSchedule((1, 2), "manual"), nights)

    class Tired(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step in (1, 4, 5):
                sleep.request_sleep()

    sleep.request_sleep()  # before the training: at its first step
    tiny_trainer(tmp_path, [Tired(), sleep]).train()
    assert nights.log == [(1, [0]), (2, [0, 1]), (5, [0]), (6, [0, 1])]
    with pytest.raises(SleepkitError, match="counts steps; use unit='manual'"):
        SleepCallback(SleepSchedule((1,)), nights).request_sleep()


def test_a_second_training_starts_a_new_clock(tmp_path):
    nights = Nights()
    trainer = tiny_trainer(tmp_path, [SleepCallback(SleepSchedule((8,), "examples"), nights)], max_steps=5)
    trainer.train()
    trainer.train()
    assert nights.log == [(4, [0])] * 2


class Stop(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


@pytest.mark.parametrize(("unit", "sizes"), [("steps", (3, 6)), ("tokens", (25, 100)), ("examples", (5, 10))])
@pytest.mark.parametrize("stop", [4, 6])  # between two nights, and in the step of a night
def test_resumed_equals_uninterrupted(tmp_path, unit, sizes, stop):
    options = {"save_strategy": "steps", "save_steps": 2, "include_num_input_tokens_seen": "all"}

    def run(folder, more=(), resume=None):
        nights = Nights()
        callback = SleepCallback(SleepSchedule(sizes, unit), nights)
        trainer = tiny_trainer(folder, [callback, *more], **options)
        trainer.train(resume_from_checkpoint=resume)
        return nights.log, trainer.model.state_dict()

    whole_log, whole = run(tmp_path / "whole")
    first_log, _ = run(tmp_path / "cut", more=[Stop(stop)])
    rest_log, rest = run(tmp_path / "cut", resume=str(tmp_path / "cut" / f"checkpoint-{stop}"))
    assert first_log + rest_log == whole_log and len(rest_log) > 0
    assert all(torch.equal(whole[name], rest[name]) for name in whole)


def test_resume_with_another_schedule_is_refused(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 4}
    tiny_trainer(tmp_path, [SleepCallback(SleepSchedule((3,)), Nights())], max_steps=4, **options).train()
    trainer = tiny_trainer(tmp_path, [SleepCallback(SleepSchedule((5,)), Nights())], **options)
    with pytest.raises(SleepkitError, match=r"slept by chunk_sizes \[3\] in steps, this run by \[5\]"):
        trainer.train(resume_from_checkpoint=True)


def test_added_to_a_run_that_had_none(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 4}
    tiny_trainer(tmp_path, [], max_steps=4, **options).train()
    nights = Nights()
    trainer = tiny_trainer(tmp_path, [SleepCallback(SleepSchedule((3,)), nights)], **options)
    trainer.train(resume_from_checkpoint=True)
    assert nights.log == [(6, [0]), (9, [0]), (12, [0])]
    saved = json.loads((tmp_path / "checkpoint-12" / "trainer_state.json").read_text())
    assert saved["stateful_callbacks"]["SleepCallback"]["attributes"]["clock"]["count"] == 12


@pytest.mark.parametrize(
    ("unit", "callbacks", "options", "message"),
    [
        ("tokens", 1, {}, "set include_num_input_tokens_seen='all'"),
        ("steps", 1, {"restore_callback_states_from_checkpoint": True}, "leave it False"),
        ("steps", 2, {}, "two SleepCallbacks"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(tmp_path, unit, callbacks, options, message):
    with pytest.raises(SleepkitError, match=message):
        tiny_trainer(tmp_path, [SleepCallback(SleepSchedule((2,), unit), Nights()) for _ in range(callbacks)], **options)


RANK_SCRIPT = """
import os, sys, torch
sys.path[:0] = sys.argv[2:]
from test_schedule import SleepCallback, SleepSchedule, tiny_trainer
log = []
schedule = SleepSchedule((40, 80), "tokens")
callback = SleepCallback(schedule, lambda levels, model, state: log.append((state.global_step, levels)))
trainer = tiny_trainer(sys.argv[1], [callback], include_num_input_tokens_seen="non_padding")
trainer.train()
logs = [None, None]
torch.distributed.all_gather_object(logs, log)
assert logs[0] == logs[1] and log[-1][1] == [0, 1], logs
torch.distributed.barrier()
os._exit(0)  # all is checked; on a busy machine gloo's threads may abort while the interpreter ends
"""


@pytest.mark.distributed
def test_all_ranks_sleep_at_the_same_steps(tmp_path):
    script, here = tmp_path / "script.py", Path(__file__).parent
    script.write_text(RANK_SCRIPT)
    succeed([*torchrun(), script, tmp_path / "out", here, here.parent])
