"""Rounds of dreaming: files, resume, learning from rewards."""

import copy
import json
from pathlib import Path

import pytest
import torch
from test_trials import DREAMS, QUESTIONS, grown
from tiny import tiny_tokenizer

from sleepkit.errors import SleepkitError
from sleepkit.language.dreaming import policy as dream_policy
from sleepkit.language.dreaming import trainer as dreaming_trainer
from sleepkit.language.dreaming.config import DreamingConfig
from sleepkit.language.dreaming.dreams import Context, Dream, Dreamed
from sleepkit.language.dreaming.policy import (
    DreamPolicyTrainer,
    dreaming_with,
    new_dreamer,
    policy_items,
    policy_settings,
)
from sleepkit.language.dreaming.trainer import DreamingTrainer, shared_out
from sleepkit.language.dreaming.trials import Trials
from sleepkit.language.generation.chat import reply_log_probs
from sleepkit.language.questions.context import Chunk
from sleepkit.language.seeding.config import KnowledgeSeedingConfig

CONTEXTS = [Context(Chunk("the bell of orrin rings at noon.", "orrin", 0, 0), QUESTIONS)]
SMALL = {"dream_rounds": 2, "dreams_per_context": 4, "dream_keep_top": 2, "dream_keep_random": 1}
SMALL |= {"trial_steps": 2, "trial_rank": 2, "trial_control": False, "dreamer_rank": 2}


@pytest.fixture
def fixed_dreams(monkeypatch):
    """The same three dreams each time, and one that was dropped; counts the calls."""
    calls = []

    def dream(*args):
        calls.append(tuple(args[7]))
        made = [Dream("rewrite", rows[0][1], rows, "orrin") for rows in DREAMS]
        found = Dreamed(made)
        found.dropped["looping"] += 1
        return [found]

    monkeypatch.setattr(dreaming_trainer, "dream", dream)
    return calls


def trainer(folder, **options):
    model, _, slot = grown()
    seeding = KnowledgeSeedingConfig(output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True)
    return DreamingTrainer(model, tiny_tokenizer(), DreamingConfig(**{**SMALL, **options}), seeding, slot, folder / "dreams")


def test_two_rounds(tmp_path, fixed_dreams):
    one = trainer(tmp_path)
    before = copy.deepcopy(one.model.state_dict())
    accepted, logs = one.run(CONTEXTS)
    assert [log.round for log in logs] == [1, 2]
    assert all(log.sampled == 4 and log.dropped == {"looping": 1} and log.tried == 3 and log.failed == 0 for log in logs)
    assert all((one.reward or 0) > 0 for one in accepted) and len(accepted) == sum(log.accepted for log in logs)
    assert len(set(fixed_dreams)) == 2  # another seed in another round
    assert all(torch.equal(tensor, before[name]) for name, tensor in one.model.state_dict().items())
    saved = json.loads((tmp_path / "dreams" / "round_1" / "log.json").read_text())
    assert saved["share_positive"] == logs[0].share_positive


def test_a_killed_run_does_no_trial_twice(tmp_path, fixed_dreams, monkeypatch):
    expected = trainer(tmp_path / "whole").run(CONTEXTS)
    monkeypatch.setattr(dreaming_trainer, "TRIALS_AT_ONCE", 1)
    plain, tried = Trials.run, []

    def dying(self, dreams, seeds):
        if len(tried) == 2:
            tried.append("dead")
            raise KeyboardInterrupt
        tried.append(len(dreams))
        return plain(self, dreams, seeds)

    monkeypatch.setattr(Trials, "run", dying)
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "killed").run(CONTEXTS)
    asked = len(fixed_dreams)
    found = trainer(tmp_path / "killed").run(CONTEXTS)
    assert len(fixed_dreams) == asked + 1  # the first round was not dreamed again
    assert tried == [1, 1, "dead", 1, 1, 1, 1]
    assert [one.text for one in found[0]] == [one.text for one in expected[0]]
    assert [one.reward for one in found[0]] == pytest.approx([one.reward for one in expected[0]], abs=1e-4)


@pytest.mark.parametrize("dreamer", ["rest_em", "grpo"])
def test_the_dreamer_learns_to_dream_what_was_rewarded(tmp_path, dreamer):
    one = trainer(tmp_path, dreamer=dreamer, dreamer_learning_rate=1e-2, dreamer_epochs=20)
    dreams = [
        Dream("rewrite", rows[0][1], rows, "orrin", reward=reward) for rows, reward in zip(DREAMS, (0.5, -0.5, -0.1), strict=True)
    ]
    items = policy_items(dreams, CONTEXTS, one.tokenizer, dreamer)
    assert len(items) == (1 if dreamer == "rest_em" else 3)
    one.learn(dreams, CONTEXTS, 1)
    assert not one.model.is_activation_checkpointing  # the nights after it keep their activations
    every = policy_items(dreams, CONTEXTS, one.tokenizer, "grpo")

    def log_probs():
        found = reply_log_probs(one.model, one.tokenizer, [(item.prompt_ids, item.reply_ids) for item in every])
        return [float(row.mean()) for row in found]

    before = log_probs()
    with dreaming_with(one.model, tmp_path / "dreams" / "dreamer_1"):
        after = log_probs()
    assert log_probs() == before  # taken off again
    assert after[0] > before[0]
    assert after[0] - after[1] > before[0] - before[1] + 0.05


@pytest.mark.parametrize("dreamer", ["rest_em", "grpo"])
def test_a_prompt_is_read_once_for_all_dreams_of_a_step(tmp_path, dreamer, monkeypatch):
    one = trainer(tmp_path, dreamer=dreamer)
    dreams = [
        Dream(style, " ".join(row[1] for row in rows), rows, "orrin", reward=0.5 - 0.2 * k)
        for k, rows in enumerate(DREAMS)
        for style in ("rewrite", "long")
    ]
    items = policy_items([*dreams, Dream("self_qa", "so.", DREAMS[0], "orrin", reward=0.2)], CONTEXTS, one.tokenizer, dreamer)
    settings = policy_settings(one.seeding, one.config, tmp_path / "learn", 0)
    found, read = [], []
    plain = dream_policy.pad_rows
    monkeypatch.setattr(dream_policy, "pad_rows", lambda group, *rest: read.append(len(group)) or plain(group, *rest))
    with new_dreamer(one.model, 2) as adapted:
        for packs in (True, False):
            monkeypatch.setattr(dream_policy, "packs_exactly", lambda *_, packs=packs: packs)
            learning = DreamPolicyTrainer(adapted, settings, items, one.tokenizer)
            adapted.activation_checkpointing_enable()
            read.clear()
            loss = learning.compute_loss(adapted, {"items": items})
            assert read == ([1] if packs else [3, 3, 1])
            loss.backward()
            found.append([loss.detach(), *(p.grad for p in adapted.parameters() if p.grad is not None)])
            adapted.zero_grad()
    assert len(found[0]) > 1
    for packed, padded in zip(*found, strict=True):
        torch.testing.assert_close(packed, padded, atol=1e-6, rtol=1e-4)


def test_styles_that_helped_are_dreamed_more(tmp_path, fixed_dreams):
    assert shared_out(["a", "b", "c"], [1, 1, 1], 6) == ["a", "b", "c"] * 2
    names = shared_out(["a", "b", "c"], [0.8, 0.15, 0.05], 12)
    assert [names.count(name) for name in "abc"] == [8, 2, 2] and shared_out(["a", "b", "c"], [1, 9, 1], 2) == ["b", "b"]
    styles = {"dream_styles": ["rewrite", "self_qa"], "dreams_per_context": 12}
    one, alike = trainer(tmp_path / "learns", **styles), trainer(tmp_path / "alike", dream_learn_styles=False, **styles)
    dreams = [Dream(style, "x", DREAMS[0], "orrin", reward=reward) for style, reward in (("rewrite", 0.5), ("self_qa", -0.5))] * 4
    for number in (1, 2):  # what helped in any round counts
        one.learn(dreams if number == 1 else [], CONTEXTS, number)
        alike.learn(dreams, CONTEXTS, number)
        dreamer = tmp_path / "learns" / "dreams" / f"dreamer_{number}"
        assert one._styles(dreamer).count("rewrite") > 8 > one._styles(dreamer).count("self_qa") > 0
    assert alike._styles(tmp_path / "alike" / "dreams" / "dreamer_1").count("rewrite") == 6


def test_a_dreamer_that_has_learned_before_dreams_the_first_round(tmp_path, fixed_dreams, monkeypatch):
    first = trainer(tmp_path / "first", dream_styles=["rewrite", "self_qa"])
    first.learn([Dream("rewrite", "x", DREAMS[0], "orrin", reward=0.5)], CONTEXTS, 1)
    learned, used = str(tmp_path / "first" / "dreams" / "dreamer_1"), []
    plain = dreaming_trainer.dreaming_with
    monkeypatch.setattr(dreaming_trainer, "dreaming_with", lambda model, folder: used.append(str(folder)) or plain(model, folder))
    one = trainer(tmp_path / "second", dreamer_path=learned, dream_styles=["rewrite", "self_qa"], dreams_per_context=12)
    one.run(CONTEXTS)
    assert used == [learned, str(tmp_path / "second" / "dreams" / "dreamer_1")]
    assert one._styles(Path(learned)).count("rewrite") > 6
    (tmp_path / "first" / "dreams" / "dreamer_1" / "adapter_model.safetensors").write_bytes(b"cut short")
    with pytest.raises(SleepkitError, match="does not fit .*of this model"), dreaming_with(one.model, Path(learned)):
        pass


def test_the_dreamer_does_without_tonights_expert(tmp_path, monkeypatch):
    seen = []
    one = trainer(tmp_path, dream_random_expert=False)

    def dream(model, *_):
        seen.append([experts.visible for experts in one.bank.per_layer()])
        return [Dreamed([Dream("rewrite", rows[0][1], rows, "orrin") for rows in DREAMS])]

    monkeypatch.setattr(dreaming_trainer, "dream", dream)
    one.round(CONTEXTS, 1)
    assert all(one.slot not in visible for visible in seen[0])
    assert all(one.slot in experts.visible for experts in one.bank.per_layer())


def test_the_worked_dream_is_the_zero_of_the_reward(tmp_path, fixed_dreams, monkeypatch):
    rows = [("tell me.", "xyz 123")]
    monkeypatch.setattr(dreaming_trainer, "control_rows", lambda style: rows)
    plain = {one.text: one.reward for one in trainer(tmp_path / "plain").round(CONTEXTS, 1)[0]}
    judged = trainer(tmp_path / "control", trial_control=True)
    found = {one.text: one.reward for one in judged.round(CONTEXTS, 1)[0]}
    assert found["xyz 123"] == pytest.approx(0, abs=1e-4)
    assert found["at noon."] == pytest.approx(plain["at noon."] - plain["xyz 123"], abs=1e-4)
    monkeypatch.setattr(dreaming_trainer, "control_rows", None)  # not tried again in the next round
    assert judged.round(CONTEXTS, 2)[1].tried == 3


def test_no_gradient_selection_tries_at_random(tmp_path, fixed_dreams):
    dreams, _ = trainer(tmp_path, dream_gradient_selection=False, dream_keep_top=1).round(CONTEXTS, 1)
    assert all(one.score is None for one in dreams) and sum(one.chosen for one in dreams) == 2


def test_needs_an_expert(tmp_path):
    model, bank, slot = grown()
    bank.deactivate(slot)
    with pytest.raises(SleepkitError, match="consolidate before dreaming"):
        DreamingTrainer(model, tiny_tokenizer(), DreamingConfig(), KnowledgeSeedingConfig(use_cpu=True), slot, tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dream_styles", ["poem"]),
        ("dream_rounds", -1),
        ("trial_steps", 0),
        ("dreamer", "ppo"),
        ("dreamer_path", "nowhere"),
        ("dream_top_p", 2),
        ("dream_temperature", 0),
    ],
)
def test_config_refuses(field, value):
    with pytest.raises(SleepkitError, match=field):
        DreamingConfig(**{field: value})
