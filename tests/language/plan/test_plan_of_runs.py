"""The plan of a run beside the run itself: items, tokens, FLOPs and bytes."""

import json

import pytest
from planned import TEXTS, slept, tiny_life
from tiny import tiny_model

from sleepkit.language.config import LearnerConfig, LoadingConfig, part_of
from sleepkit.language.data.experience import Experience
from sleepkit.language.plan import splits
from sleepkit.language.plan.blank import BlankModel
from sleepkit.language.plan.machines import Machine
from sleepkit.language.plan.passes import Passes
from sleepkit.language.plan.plan import Material
from sleepkit.language.plan.run import plan_inside
from sleepkit.language.plan.text import plan_lines
from sleepkit.reporting.results import read_results

LONG = {"max_position_embeddings": 4096}


def plan_for(trainer, experiences=None):
    experiences = experiences or [Experience("light", TEXTS, titles=["a", "b"])]
    material = Material(experiences, trainer.general_prompts, trainer.anchors.prompts)
    return plan_inside(trainer.model, trainer.processing_class, trainer.args, material, 0)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "mixtral"])
def test_tokens_and_flops_of_a_night_are_those_of_its_plan(tmp_path, family):
    _, record, flops = slept(tiny_model(family, **LONG), tmp_path, styles=["wh", "keywords", "about"])
    plan = record.plan
    assert plan["nights"][0]["train_tokens"] == pytest.approx(record.nights[0]["train_tokens"], rel=0.01)
    assert plan["nights"][0]["new_items"] + 3 == record.nights[0]["items"]
    seen = plan["seen"]["tokens"]
    assert {kind: plan["tokens"][kind] for kind in seen} | {"written": 0} == {
        kind: pytest.approx(seen[kind], rel=0.25) for kind in seen
    } | {"written": 0}
    assert plan["tokens"]["written"] >= seen["written"]  # planned to the limit of each reply
    assert plan["flops"] == pytest.approx(flops, rel=0.25)
    assert plan["seen"]["flops"] == pytest.approx(flops, rel=0.25)
    assert set(plan["seen"]["by_phase"]["seconds"]) >= {"writing", "targets", "training", "retention", "self-test"}
    assert read_results(tmp_path)["plan"] == json.loads(json.dumps(plan))


def test_bytes_of_weights_experts_and_optimizer_are_exact(tmp_path):
    model = tiny_model(**LONG)
    weights = sum(p.nbytes for p in model.parameters())
    trainer = tiny_life(model, tmp_path)
    bank = trainer.learner.bank
    plan = plan_for(trainer)
    experts = sum(p.nbytes for slot in range(bank.config.slots) for p in bank.parameters(slot))
    assert plan["memory"]["weights"] == weights and plan["memory"]["experts"] == experts
    training = next(cost for cost in plan["phases"] if cost["phase"] == "training")
    assert training["parts"]["gradient and moments of the expert"] == 3 * sum(p.nbytes for p in bank.parameters(0))


def test_a_run_that_is_done_keeps_the_plan_of_its_nights(tmp_path):
    tiny_life(tiny_model(**LONG), tmp_path, max_steps=1, styles=["wh"]).train()
    before = read_results(tmp_path)["plan"]
    again = tiny_life(tiny_model(**LONG), tmp_path, max_steps=1, styles=["wh"]).train()
    assert before["seen"]["tokens"]["trained"] > 0 and again.plan == before


def test_later_nights_replay_what_earlier_ones_were_planned_to_learn(tmp_path):
    trainer = tiny_life(tiny_model(**LONG), tmp_path, styles=["wh"])
    one, two = (Experience(name, [text]) for name, text in zip("ab", TEXTS, strict=True))
    first, second = plan_for(trainer, [one, two])["nights"]
    assert "replay" not in first["items_by_style"] and second["items_by_style"]["replay"] == first["new_items"]


def test_dreams_are_planned_with_their_scores_trials_and_rehearsal(tmp_path):
    dreams = {"dream_rounds": 1, "dreams_per_context": 8, "dream_max_tokens": 16, "trial_steps": 2, "dream_rehearsal_steps": 2}
    trainer = tiny_life(tiny_model(**LONG), tmp_path, styles=["wh", "keywords"], **dreams)
    plan = plan_for(trainer)
    costs = {cost["phase"]: cost for cost in plan["phases"]}
    contexts = costs["dreaming"]["written"] / (8 * 16)
    assert contexts in (1, 2)
    assert costs["dream scores"]["flops"] > 0 and costs["trials"]["flops"] > costs["dream scores"]["flops"]
    assert costs["training"]["trained"] == plan["nights"][0]["train_tokens"] > 0


def test_a_slower_level_is_trained_on_the_night_that_it_is_due(tmp_path):
    trainer = tiny_life(tiny_model(**LONG), tmp_path, chain=[1, 2], expert_slots=4, styles=["wh"])
    plan = plan_for(trainer, [Experience(name, [text]) for name, text in zip("ab", TEXTS, strict=True)])
    level = next(cost for cost in plan["phases"] if cost["phase"] == "level")
    assert level["trained"] > 0


def test_a_family_that_cannot_be_planned_says_why_and_the_night_goes_on(tmp_path, monkeypatch):
    trainer = tiny_life(tiny_model(**LONG), tmp_path)

    def broken(*_, **__):
        raise NotImplementedError("needs values\nand more")

    monkeypatch.setattr(BlankModel, "of", broken)
    assert plan_for(trainer) == {"reason": "needs values"}


def on_gpus(trainer, gpus):
    config = trainer.args
    blank = BlankModel.of(
        trainer.model.config,
        trainer.processing_class,
        part_of(config, LoadingConfig),
        part_of(config, LearnerConfig),
        "cuda",
        trainer.model.generation_config,
    )
    return blank, Machine.of(gpus)


def test_work_that_is_not_split_is_done_by_every_rank(tmp_path, monkeypatch):
    from sleepkit.language.dreaming.config import DreamingConfig
    from sleepkit.language.plan.plan import planned
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

    trainer = tiny_life(tiny_model(**LONG), tmp_path, styles=["wh"], max_steps=-1, num_train_epochs=40, min_steps=1)

    def plan(gpus):
        blank, machine = on_gpus(trainer, gpus)
        material = Material([Experience("light", TEXTS)], trainer.general_prompts, trainer.anchors.prompts)
        parts = [part_of(trainer.args, kind) for kind in (KnowledgeSeedingConfig, LearnerConfig, DreamingConfig)]
        found = planned(blank, machine, material, *parts, libraries=0)
        return found, {cost.phase: cost for cost in found.phases}

    (_, alone), (eight, split) = plan("1x80"), plan("8x80")
    assert eight.fits and "every rank does all of: nothing" in plan_lines(eight)
    assert split["targets"].repeated == 1 and split["targets"].seconds == pytest.approx(alone["targets"].seconds / 8)
    assert split["training"].seconds < alone["training"].seconds and split["training"].repeated == 1
    monkeypatch.setitem(splits.SPLIT, "targets", False)
    told, repeated = plan("8x80")
    assert "every rank does all of: targets" in plan_lines(told) and repeated["targets"].repeated == 8
    assert repeated["targets"].seconds == pytest.approx(alone["targets"].seconds)


def test_flops_of_a_token_and_of_a_pair_come_from_two_lengths(tmp_path):
    blank, _ = on_gpus(tiny_life(tiny_model(**LONG), tmp_path), "1x80")
    cost, config = Passes(blank).whole, blank.model.config
    assert cost.pair == pytest.approx(4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim)
    layers = sum(p.numel() for name, p in blank.model.named_parameters() if "proj" in name and "sleep" not in name)
    assert cost.alone == pytest.approx(2 * layers)


def test_the_steps_of_all_nights_take_three_dry_runs(tmp_path, monkeypatch):
    """Of the typical batch on the first night and on the last, and of the largest one."""
    plain, found = Passes.step, []

    def step(self, batch, nights, args):
        cost = plain(self, batch, nights, args)
        found.append((nights, cost.flops / batch.ids.numel()))
        return cost

    monkeypatch.setattr(Passes, "step", step)
    trainer = tiny_life(tiny_model(**LONG), tmp_path, styles=["wh"], expert_slots=4)
    texts = [*TEXTS, "The ferry of Sund was built in 1903 by Milo Hart."]
    plan = plan_for(trainer, [Experience(name, [text]) for name, text in zip("abc", texts, strict=True)])
    assert sorted(nights for nights, _ in found) == [1, 3, 3]
    few, many = (next(flops for nights, flops in found if nights == night) for night in (1, 3))
    training = next(cost for cost in plan["phases"] if cost["phase"] == "training")
    assert few < training["flops"] / training["trained"] < many * 1.2  # rows are padded, or share what they begin with
