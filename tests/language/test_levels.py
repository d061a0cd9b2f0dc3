"""Levels of experts: what fast ones know passes on to slower ones, and a full pool makes room."""

from dataclasses import replace

import pytest
import torch
from test_learner import STORIES, make_learner, sleep

from sleepkit.errors import SleepkitError
from sleepkit.language.levels import INHERITED, LEVELS_NAME
from sleepkit.utils.files import write_json


def test_a_chain_moves_what_fast_experts_know_into_slower_ones(tmp_path, monkeypatch):
    learner = make_learner(tmp_path, chain=[1, 2, 4], expert_slots=6)
    pass_on, levels = learner._pass_on, []
    monkeypatch.setattr(learner, "_pass_on", lambda level, *night: (levels.append(level), pass_on(level, *night)))
    sleep(learner, tmp_path, 1)
    assert learner.levels.of == {0: 0}
    sleep(learner, tmp_path, 3, start=2)
    assert sorted(learner.levels.of.values()) == [0, 1]  # nights 1 and 2 are one medium expert
    assert set(learner.bank.active) == set(learner.levels.of)
    sleep(learner, tmp_path, 4, start=4)
    assert list(learner.levels.of.values()) == [2]
    assert levels == [1, 2]  # in the fourth night the slow expert took over from the medium and the fast ones at once
    (slow,) = learner.bank.active
    assert any(
        parameter.abs().max() > 0 for name, parameter in learner.bank.named_parameters(slow).items() if name.endswith("down_proj")
    )
    silent = [slot for slot in range(6) if slot != slow]
    assert all(not experts[slot].down_proj.any() for slot in silent for experts in learner.bank.per_layer())  # "pruned"
    assert {item.night for item in learner.rehearsal.replay} == {1, 2, 3, 4}


def test_the_slower_expert_learns_what_the_faster_ones_say(tmp_path):
    """After many steps the model with the medium expert alone is closer to the one with both fast experts than to none."""
    learner = make_learner(tmp_path, chain=[1, 2], expert_slots=4, max_steps=60)
    sleep(learner, tmp_path, 1)
    learner.wake(STORIES[1])
    learner.levels.schedule.chunk_sizes = (1,)  # the second night without passing on
    learner.sleep(2, tmp_path)
    ids = learner.tokenizer([f"{i.prompt} {i.reply}" for i in learner.rehearsal.replay[:12]], return_tensors="pt", padding=True)[
        "input_ids"
    ]

    def log_probs():
        with torch.no_grad():
            return learner.model(ids).logits.log_softmax(-1)

    fast = log_probs()
    with learner.bank.view(()):
        none = log_probs()
    learner.levels.schedule.chunk_sizes = (1, 2)
    learner._pass_on(1, 2, tmp_path)
    assert list(learner.levels.of.values()) == [1]
    slow = log_probs()
    assert (slow - fast).square().mean() < 0.5 * (none - fast).square().mean()


@pytest.mark.parametrize("max_steps, more", [(-1, True), (2, False)])
def test_chain_epochs_are_those_of_what_a_slower_level_takes_over(tmp_path, max_steps, more):
    tokens = []
    for epochs in (1, 2):
        folder = tmp_path / str(epochs)
        learner = make_learner(folder, chain=[1, 2], expert_slots=4, max_steps=max_steps, chain_epochs=epochs)
        learner.seeding.num_train_epochs, learner.seeding.min_steps = 1, 1
        sleep(learner, folder, 1)
        night = learner.train_tokens
        sleep(learner, folder, 2, start=2)
        tokens.append((night, learner.train_tokens))
    (first, once), (second, twice) = tokens
    assert first == second  # a night that passes nothing on
    assert (twice > 1.3 * once) == more


def test_a_slower_expert_starts_from_a_fit_to_those_that_it_takes_over_from(tmp_path, monkeypatch):
    learner = make_learner(tmp_path, chain=[1, 2], expert_slots=4)
    teach, missed = learner._teach, []

    def far(slots, other):
        """How far the logits with some experts are from those with others."""
        with torch.no_grad():
            logits = []
            for chosen in (slots, other):
                with learner.bank.view(chosen):
                    logits.append(learner.model(ids).logits.log_softmax(-1))
        return (logits[0] - logits[1]).square().mean()

    def at_its_start(*args, **options):
        if senders := options.get("senders"):
            missed.append(far([options["slot"]], senders) / far([], senders))
        return teach(*args, **options)

    sleep(learner, tmp_path, 1)
    texts = [f"{item.prompt} {item.reply}" for item in learner.rehearsal.replay[:12]]
    ids = learner.tokenizer(texts, return_tensors="pt", padding=True)["input_ids"]
    monkeypatch.setattr(learner, "_teach", at_its_start)
    sleep(learner, tmp_path, 2, start=2)
    (share,) = missed
    assert share < 0.5  # of what is lost with the fast ones masked


def test_a_chain_is_undone_and_saved_with_its_levels(tmp_path):
    learner = make_learner(tmp_path, chain=[1, 2], expert_slots=4)
    sleep(learner, tmp_path, 1)
    evening, levels = learner.snapshot(), dict(learner.levels.of)
    sleep(learner, tmp_path, 2, start=2)
    assert learner.levels.of != levels
    learner.save(tmp_path / "kept")
    after = learner.snapshot()
    learner.restore(evening)
    assert learner.levels.of == levels
    again = learner.snapshot()
    assert again.keys() == evening.keys() and all(torch.equal(again[key], value) for key, value in evening.items())

    other = make_learner(tmp_path, chain=[1, 2], expert_slots=4)
    other.load(tmp_path / "kept")
    assert other.levels.of == {2: 1}
    loaded = other.snapshot()
    assert loaded.keys() == after.keys() and all(torch.equal(loaded[key], value) for key, value in after.items())


def test_a_full_pool_is_merged_and_a_truncated_state_is_named(tmp_path):
    learner = make_learner(tmp_path, expert_slots=2)
    sleep(learner, tmp_path, 3)
    assert len(learner.bank.active) == 2 and set(learner.levels.of) == set(learner.bank.active)
    learner.save(tmp_path / "kept")
    weights = tmp_path / "kept" / "expert_bank.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(SleepkitError, match="expert_bank.safetensors cannot be read"):
        make_learner(tmp_path, expert_slots=2).load(tmp_path / "kept")


def test_a_night_is_held_by_an_expert_of_its_own_until_experts_are_merged(tmp_path):
    learner = make_learner(tmp_path, expert_slots=2)
    sleep(learner, tmp_path, 2)
    assert learner.levels.nights == {0: [1], 1: [2]} and learner.levels.holding([1, 2]) == [0, 1]
    before = learner.snapshot()
    sleep(learner, tmp_path, 3, start=3)
    assert learner.levels.nights == {0: [1, 2], 1: [3]} and learner.levels.rewritten == 3
    assert learner.levels.holding([2]) == [] and learner.levels.sharing([2]) == {0: [1, 2]}
    assert learner.levels.before(2) == [] and learner.levels.before(3) == [0] and learner.levels.before(3, [1]) == []
    assert learner.levels.holding([1, 2]) == [0] and learner.levels.sharing([1, 2]) == {}  # together they are one expert
    assert learner.forget(learner.traces([3]), {}, tmp_path).slots == [1] and learner.bank.active == [0]
    assert {item.night for item in (*learner.rehearsal.replay, *learner.rehearsal.quiz)} == {1, 2}
    learner.restore(before)
    assert learner.levels.nights == {0: [1], 1: [2]} and learner.levels.rewritten == 0


def test_a_night_that_was_passed_on_has_no_expert_of_its_own(tmp_path):
    learner = make_learner(tmp_path, chain=[1, 2], expert_slots=4)
    sleep(learner, tmp_path, 3)
    assert list(learner.levels.nights.values()) == [[1, 2], [3]] and learner.levels.rewritten == 2
    assert learner.levels.holding([1]) == [] and list(learner.levels.sharing([1]).values()) == [[1, 2]]
    learner.levels.save(tmp_path)
    learner.levels.load(tmp_path)
    assert list(learner.levels.nights.values()) == [[1, 2], [3]]


def test_what_another_life_knew_is_no_night_of_this_one(tmp_path):
    first = make_learner(tmp_path, expert_slots=2)
    first.bank.activate(seed=1)
    given = (first.model, first.tokenizer, first.seeding, replace(first.config, expansion=False), first.general_prompts)
    learner = type(first)(*given)  # begins with an expert in use, and goes on with the same one
    assert learner.levels.take(1) == 0
    assert learner.levels.holding([1]) == [] and learner.levels.sharing([1]) == {0: [INHERITED, 1]}
    learner.levels.strike([1])
    assert learner.levels.nights == {0: [INHERITED]}


def test_a_run_from_before_nights_were_noted_has_one_in_each_expert_or_it_is_not_known(tmp_path):
    learner = make_learner(tmp_path, expert_slots=2)
    sleep(learner, tmp_path, 2)
    learner.save(tmp_path / "state")
    write_json(tmp_path / "state" / LEVELS_NAME, [[0, 0], [1, 0]])
    learner.load(tmp_path / "state")
    assert learner.levels.nights == {0: [1], 1: [2]} and learner.levels.of == {0: 0, 1: 0}
    learner.rehearsal.replay += [replace(learner.rehearsal.replay[0], night=3)]  # two experts for three nights
    learner.levels.load(tmp_path / "state")
    assert learner.levels.nights == {0: [INHERITED], 1: [INHERITED]}
    with pytest.raises(SleepkitError, match="not known which expert holds night 2, as an older version has slept it"):
        learner.levels.holding([2])
