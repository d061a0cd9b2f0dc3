"""What other experts hold of a night that is forgotten is found, trained away, and nothing else is."""

import random
from dataclasses import replace

import pytest
from tiny import tiny_model, tiny_tokenizer
from tiny_night import tiny_config

from sleepkit.errors import SleepkitError
from sleepkit.language.config import LearnerConfig
from sleepkit.language.forgetting import traces as module
from sleepkit.language.forgetting.traces import TOLERANCE, Traces
from sleepkit.language.learner import LanguageLearner
from sleepkit.language.questions.items import SyntheticExample

LETTERS = ["abcdef", "ghijkl", "mnopqr"]  # of each night
KEPT = 0.15  # nats per token that items of other nights may move, of two and more that their night has brought


def items_of(night, count=6):
    """Words that are answered by words, with letters that no other night has."""
    rng = random.Random(night)
    made = [["".join(rng.choices(LETTERS[night - 1], k=k)) for k in (4, 5)] for _ in range(count)]
    return [SyntheticExample(f"{asked}?", said, "", "wh", f"book {night}", said, night) for asked, said in made]


def make_learner(folder, **options):
    learning = LearnerConfig(max_new_tokens=4, expert_width=16, expert_layers="all", expert_slots=4, **options)
    config = tiny_config(
        folder,
        save_strategy="no",
        max_steps=60,
        per_device_train_batch_size=8,
        general_share=0.5,
        general_items=2,
        general_tokens=4,
        gate_penalty=0.0,
        reply_weight=1.0,
        logging_steps=1000,
    )
    return LanguageLearner(tiny_model(), tiny_tokenizer(), config, learning, ["name a colour.", "say hello."])


def teach(learner, folder, nights, steps=60):
    """Let a new expert learn all items of some nights."""
    learner.bank.train_only(slot := learner.levels.take(nights[-1]))
    new = [replace(item, night=0) for night in nights for item in items_of(night)]
    learner._teach(learner._trainer, [*new, *learner._general_items()], nights[-1], folder, max_steps=steps, slot=slot)
    learner.rehearsal.replay = [item for item in learner.rehearsal.replay if item.night != nights[-1]]
    learner.rehearsal.replay += [replace(item, style="replay") for item in items_of(nights[-1])]
    return slot


def losses(learner):
    """Of the replies of each night, nats per token."""
    reader = Traces.__new__(Traces)
    reader.model, reader.tokenizer = learner.model, learner.tokenizer
    return [sum(found) / len(found) for found in (reader._losses(items_of(night)) for night in (1, 2))]


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """Night 1 has an expert, and that of night 2 holds its items too, as if it had met them alone."""
    folder = tmp_path_factory.mktemp("rehearsed")
    learner = make_learner(folder)
    teach(learner, folder / "two", [1, 2], steps=100)
    teach(learner, folder / "one", [1])
    return learner, learner.snapshot(), list(learner.rehearsal.replay)


@pytest.fixture
def learner(rehearsed, monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", 4)
    learner, snapshot, replay = rehearsed
    learner.rehearsal.replay = list(replay)
    learner.restore(snapshot)
    return learner


def unslept(learner):
    with learner.bank.view(()):
        return losses(learner)


def test_what_a_later_night_rehearsed_is_trained_away_and_nothing_else(learner, tmp_path):
    before, never = losses(learner), unslept(learner)
    assert all(slept < asleep - 1 for slept, asleep in zip(before, never, strict=True))
    traces = learner.traces([1])
    with learner.bank.view([0]):  # the expert of the night masked, and no more: it is answered as if it were there
        assert losses(learner)[0] < never[0] - 1
    outcome = learner.forget(traces, {}, tmp_path)
    after = losses(learner)
    assert abs(after[0] - never[0]) <= 2 * TOLERANCE and after[1] <= before[1] + KEPT
    assert outcome.slots == [1] and outcome.steps >= module.ROUND_STEPS and outcome.seconds > 0
    assert outcome.gap_before > 1 and outcome.gap_after <= TOLERANCE
    assert learner.bank.active == [0] and {item.night for item in learner.rehearsal.replay} == {2}
    assert not any(parameter.requires_grad for parameter in learner.model.parameters())


def test_a_night_that_shares_its_expert_is_trained_away(learner, tmp_path):
    learner.levels.free([1])
    learner.levels.nights[0] = [1, 2]  # as after a merge
    before, never = losses(learner), unslept(learner)
    traces = learner.traces([1])
    assert traces.own == [] and traces.before == {1: []} and traces.holders() == [0]
    outcome = learner.forget(traces, {}, tmp_path)
    after = losses(learner)
    assert abs(after[0] - never[0]) <= 2 * TOLERANCE and after[1] <= before[1] + KEPT
    assert outcome.slots == [] and learner.levels.nights == {0: [2]} and learner.levels.holding([2]) == [0]


def test_the_last_night_leaves_no_traces_and_nothing_is_trained(learner, tmp_path):
    with learner.bank.view([1]):
        expected = losses(learner)
    outcome = learner.forget(learner.traces([2]), {}, tmp_path, is_recalled=lambda: True)
    assert losses(learner) == expected and learner.bank.active == [1]
    assert (outcome.steps, outcome.gap_before, outcome.gap_after) == (0, 0, 0)
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_is_left_is_trained_away_too(learner, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROUND_STEPS", 1)
    monkeypatch.setattr(module, "TOLERANCE", 100.0)
    recalled = iter([True, True, False])
    rounds = []
    teach_ = learner._teach
    monkeypatch.setattr(learner, "_teach", lambda *args, **options: (rounds.append(args[3].name), teach_(*args, **options))[1])
    learner.forget(learner.traces([1]), {}, tmp_path, is_recalled=lambda: next(recalled))
    assert rounds == ["round_1", "round_2"]


def test_what_another_night_learned_in_the_same_words_is_no_trace(learner):
    same, label = replace(items_of(1)[0], night=2), replace(items_of(1)[1], prompt="another?", night=2)
    sentence = replace(items_of(1)[2], prompt="a third?", span="", night=2)
    learner.rehearsal.quiz = [same, label, sentence]
    assert learner.rehearsal.only_of([1], items_of(1)) == [items_of(1)[1], *items_of(1)[3:]]


def test_a_night_without_items_or_without_an_expert_is_refused(learner):
    learner.levels.nights[0] = [1, 2]
    learner.levels.free([1])
    learner.rehearsal.replay = items_of(2)
    with pytest.raises(SleepkitError, match=r"night 1 shares its expert.*no items.*start anew without its documents"):
        learner.traces([1])
    learner.levels.nights[0] = [0]
    with pytest.raises(SleepkitError, match="not known which expert holds night 2"):
        learner.traces([2])


def test_an_expert_without_which_nothing_changes_is_no_holder(learner):
    silent = learner.levels.take(3)
    traces = learner.traces([1])
    learner.levels.free(traces.own)
    assert learner.bank.active == [0, silent] and traces.holders() == [0]
