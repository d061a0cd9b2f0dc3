"""Several experts train at once, each item has its teacher, and a checkpoint holds all that trains."""

from dataclasses import replace

import pytest
import torch
from test_traces import items_of, make_learner
from tiny_night import tiny_config

from sleepkit.language.forgetting.trainer import OBJECTIVE, UnlearningTrainer


@pytest.fixture
def learner(tmp_path):
    """Three experts that say something at random."""
    learner = make_learner(tmp_path)
    for night in (1, 2, 3):
        slot = learner.levels.take(night)
        with torch.no_grad():
            for name, values in learner.bank.named_parameters(slot).items():
                if name.endswith("down_proj"):
                    values.normal_(std=0.3, generator=torch.Generator().manual_seed(night))
    return learner


def trainer(learner, folder, **options):
    learner.bank.train_only([1, 2])
    items = [replace(item, style="recall") for item in items_of(2)] + [replace(item, style="replay") for item in items_of(1)]
    args = tiny_config(folder, **{**OBJECTIVE, "max_steps": 2, "save_strategy": "no"})
    given = (learner.model, args, items, learner.tokenizer)
    return UnlearningTrainer(*given, slots=[1, 2], before={2: [0]}, **options)


def test_the_experts_that_are_named_train_and_no_others(learner, tmp_path):
    before = learner.bank.state_dict()
    outcome = trainer(learner, tmp_path).run()
    after = learner.bank.state_dict()
    moved = {name.split(".")[1] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"1", "2"} and outcome["steps"] == 2


def test_what_goes_is_taught_by_earlier_experts_and_what_stays_by_the_model_as_it_is(learner, tmp_path):
    training = trainer(learner, tmp_path)
    for item, prepared in zip(training.items, training.prepared, strict=True):
        ids = torch.tensor([prepared.sequence])
        with torch.no_grad(), learner.bank.view([0] if item.night == 2 else [0, 1, 2]):
            expected = learner.model.model(ids).last_hidden_state[0, -len(prepared.reply_ids) :]
        torch.testing.assert_close(prepared.teacher.hidden, expected, atol=1e-5, rtol=1e-4)


def test_a_later_round_has_the_teachers_of_the_first(learner, tmp_path):
    kept = {}
    first = trainer(learner, tmp_path, kept=kept)
    targets = [prepared.teacher.hidden.clone() for prepared in first.prepared]
    first.run()
    second = trainer(learner, tmp_path, kept=kept)
    assert all(torch.equal(one.teacher.hidden, was) for one, was in zip(second.prepared, targets, strict=True))
    fresh = trainer(learner, tmp_path)
    assert not torch.equal(fresh.prepared[-1].teacher.hidden, targets[-1])  # what stays would be what the first round made of it


def test_a_checkpoint_holds_all_that_trains(learner, tmp_path):
    training = trainer(learner, tmp_path)
    before = learner.bank.state_dict()
    training.save_model(tmp_path / "checkpoint")
    training.run()
    training._load_from_checkpoint(str(tmp_path / "checkpoint"))
    again = learner.bank.state_dict()
    assert all(torch.equal(again[name], values) for name, values in before.items())
