"""Only tonight's expert learns, the teacher is a view, the switches work, and a resumed night is the same night."""

import math
import shutil
from dataclasses import replace

import pytest
import torch
from tiny import tiny_tokenizer
from tiny_night import losses, tiny_config, tiny_grown, tiny_items, tiny_trainer
from torch import nn

from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.seeding.divergence import token_divergence, token_log_probs
from sleepkit.language.seeding.packing import flat_hidden
from sleepkit.language.seeding.trainer import EXPERT_STATE, BatchPlan, KnowledgeSeedingTrainer

ON_POLICY = {"lmbda": 1.0, "lmbda_start": 1.0}


def copies(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(model, before):
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def divergence_now(trainer, items=None):
    """Divergence from the teacher on tonight's items, as training sees it."""
    batch = trainer.preparation.collate(items or trainer.prepared)
    with torch.no_grad():
        hidden = flat_hidden(trainer.backbone.hidden(batch), batch)
    targets = type(trainer.prepared[0].teacher).cat([item.teacher for item in items or trainer.prepared])
    return token_divergence(hidden, trainer.head, targets)


# -- what learns ------------------------------------------------------------------------------------------------------
def test_only_the_new_expert_moves_and_its_output_first(tmp_path):
    """With `down_proj` at zero no gradient reaches the others: at step 1 `down_proj` moves, and the others by the penalty
    (which starts at the second step); at step 2 all of it."""
    model, bank = tiny_grown()
    tiny_trainer(tmp_path, model=model).run()  # a first night, whose expert must stay as it is
    before = copies(model)
    trainer = tiny_trainer(tmp_path, model=model, max_steps=1, lr_scheduler_type="constant")
    own = {name for name in before if f"slots.{trainer.slot}." in name}
    before |= {name: parameter.detach().clone() for name, parameter in model.named_parameters() if name in own}
    trainer.run()
    assert trainer.slot == 1 and moved(model, before) == {name for name in own if name.endswith(".down_proj")}

    trainer = tiny_trainer(tmp_path, model=model, max_steps=2, lr_scheduler_type="constant")
    own = {name for name in before if f"slots.{trainer.slot}." in name}
    before = copies(model)
    trainer.run()
    assert trainer.slot == 2 and len(own) == 2 * 4 and moved(model, before) == own
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == own


def test_learning_lowers_the_divergence(tmp_path):
    trainer = tiny_trainer(tmp_path, max_steps=40, gate_penalty=0.0, reply_weight=0.0)
    before = divergence_now(trainer).mean()
    trainer.run()
    assert divergence_now(trainer).mean() < 0.7 * before


@pytest.mark.parametrize("top_k", [0, 8])
def test_where_the_reply_alone_counts_the_teacher_is_not_asked(tmp_path, monkeypatch, top_k):
    longer_than_any_window = [replace(item, context=item.context * 100) for item in tiny_items()]
    monkeypatch.setattr("tiny_night.tiny_items", lambda: longer_than_any_window)
    with pytest.raises(SleepkitError, match="a teacher prompt with its reply"):
        tiny_trainer(tmp_path, reply_weight=0.9)
    trainer = tiny_trainer(tmp_path, reply_weight=1.0, top_k=top_k)
    memory = [item for item in trainer.prepared if item.is_learned]
    batch = trainer.preparation.collate(memory)
    with torch.no_grad():
        hidden = flat_hidden(trainer.backbone.hidden(batch), batch)
        likelihood = token_log_probs(hidden, trainer.head, trainer.preparation.reply_tokens(memory))
    torch.testing.assert_close(divergence_now(trainer, memory), -likelihood)


def test_equal_seeds_equal_nights(tmp_path):
    runs = []
    for seed in (0, 0, 1):
        trainer = tiny_trainer(tmp_path, seed=seed, max_steps=4, lmbda=0.5, lmbda_start=0.5)
        trainer.run()
        runs.append((losses(trainer), trainer.bank.state_dict()))
    assert runs[0][0] == runs[1][0] != runs[2][0]
    assert all(torch.equal(value, runs[1][1][name]) for name, value in runs[0][1].items())


# -- the teacher ------------------------------------------------------------------------------------------------------
def test_the_teacher_is_a_view_of_the_same_weights(tmp_path):
    model, _ = tiny_grown()
    count = sum(parameter.numel() for parameter in model.parameters())
    trainer = tiny_trainer(tmp_path, model=model)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    held = [value for value in vars(trainer).values() if isinstance(value, nn.Module)]
    assert all(value is model for value in held)
    assert trainer.head.weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()


def test_the_teacher_differs_from_the_student_from_the_first_step(tmp_path):
    """The pitfall: a teacher that saw no more than the student would leave nothing to learn."""
    trainer = tiny_trainer(tmp_path)
    memory = [item for item in trainer.prepared if item.is_learned]
    general = [item for item in trainer.prepared if not item.is_learned]
    assert divergence_now(trainer, memory).mean() > 1e-3
    assert divergence_now(trainer, general).abs().max() < 1e-5  # the model before tonight is the model itself
    for item, source in zip(trainer.prepared, trainer.items, strict=True):
        prompt = trainer.teacher_prompt(source)
        assert (prompt != item.prompt_ids) == item.is_learned
    trainer.run()
    assert losses(trainer)[0] > 0
    assert divergence_now(trainer, general).mean() > 1e-6


def test_the_teacher_never_sees_the_new_expert(tmp_path):
    trainer = tiny_trainer(tmp_path, max_steps=4)
    before = [item.teacher.hidden.clone() for item in trainer.prepared]
    trainer.run()
    again = trainer.prepare(trainer.items)
    assert all(torch.equal(item.teacher.hidden, hidden) for item, hidden in zip(again, before, strict=True))
    with trainer.bank.view(()):
        assert all(experts.visible == () for experts in trainer.bank.per_layer())
    assert all(experts.visible == (trainer.slot,) for experts in trainer.bank.per_layer())


def test_general_items_are_prepared_once(tmp_path):
    """A second night that finds them has the same targets and losses as one that does not."""
    kept = {}
    first = tiny_trainer(tmp_path / "1", kept=kept)
    assert set(kept) == {item for item in first.items if item.style == "general"}
    second = tiny_trainer(tmp_path / "2", kept=kept)
    assert all(any(item is one for one in kept.values()) == (source.style == "general")
               for item, source in zip(second.prepared, second.items, strict=True))  # fmt: skip
    second.run()
    alone = tiny_trainer(tmp_path / "3")
    alone.run()
    assert losses(second) == losses(alone)


# -- items ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("masked", [0, 2, 1000])
def test_first_tokens_are_masked_for_memory_items(masked, tmp_path):
    trainer = tiny_trainer(tmp_path, mask_first_tokens=masked)
    for item in trainer.prepared:
        assert item.first_token == (min(masked, len(item.reply_ids) - 1) if item.is_learned else 0)
        assert len(item.teacher.hidden) == len(item.reply_ids) - item.first_token > 0
    assert math.isfinite(trainer.run()["history"][0]["loss"])


def test_replies_end_where_they_were_whole(tmp_path):
    trainer = tiny_trainer(tmp_path, general_tokens=5)
    end = tiny_tokenizer().eos_token_id
    for item, source in zip(trainer.prepared, trainer.items, strict=True):
        whole = source.style != "general" or len(source.reply) < 5
        assert (item.reply_ids[-1] == end) == whole
        assert len(item.reply_ids) == (len(source.reply) + 1 if whole else 5)


@pytest.mark.parametrize("top_k", [0, 4])
@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd"])
def test_every_divergence_trains(divergence, top_k, tmp_path):
    trainer = tiny_trainer(tmp_path, divergence=divergence, top_k=top_k)
    trainer.run()
    assert all(math.isfinite(loss) and loss > 0 for loss in losses(trainer))


# -- the on-policy half -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options",
    [
        ON_POLICY,
        {**ON_POLICY, "judge": "model"},
        {**ON_POLICY, "mask_first_tokens": 1},
        {"lmbda": 0.5},
        {**ON_POLICY, "alpha": 1.0},
        {**ON_POLICY, "alpha": 0.0},
        {**ON_POLICY, "gamma": 0.0},
        {**ON_POLICY, "gamma": 1.0},
        {**ON_POLICY, "z0": 4.0},
        {"lmbda": 0.0, "lmbda_start": 0.0},
    ],
    ids=str,
)
def test_rollouts_and_their_ablations(options, tmp_path):
    trainer = tiny_trainer(tmp_path, max_steps=4, **options)
    assert trainer.seeding.on_policy == (options.get("lmbda", 0) > 0)
    history = trainer.run()["history"]
    assert len(history) == 4 and all(math.isfinite(line["loss"]) for line in history)
    rewards = [line["reward"] for line in history if "reward" in line]
    assert len(rewards) == (2 if trainer.seeding.on_policy else 0)  # every `rollout_every` steps
    assert all(0 <= reward <= 1 for reward in rewards)
    assert all("reward_std" in line for line in history if "reward" in line)


def test_rollouts_are_the_student_s_and_start_on_policy(tmp_path):
    trainer = tiny_trainer(tmp_path, **ON_POLICY)
    trainer.refresh_rollouts()
    prompts = [item.prompt_ids for item in trainer.prepared if item.is_learned]
    assert 0 < len(trainer._rollouts) <= 9
    for item in trainer._rollouts:
        (source,) = [other for other in trainer.prepared if other.prompt_ids == item.prompt_ids]
        assert item.is_learned and item.prompt_ids in prompts
        assert item.reply_ids[: item.first_token] == source.reply_ids[: item.first_token]
        assert len(item.old_log_probs) == len(item.teacher.hidden) == len(item.reply_ids) - item.first_token
        batch = trainer.preparation.collate([item])
        with torch.no_grad():
            flat = flat_hidden(trainer.backbone.hidden(batch), batch)
            term = trainer._policy_term(flat, [item], batch, torch.ones(len(flat), dtype=torch.bool))
        torch.testing.assert_close(term, torch.full_like(term, -item.advantage), atol=1e-4, rtol=1e-4)  # ratio 1


def test_lambda_is_annealed(tmp_path):
    args = tiny_config(tmp_path, lmbda=0.8, lmbda_start=0.2)
    assert [args.lmbda_at(step, 5) for step in (0, 2, 4)] == pytest.approx([0.2, 0.5, 0.8])
    assert args.lmbda_at(0, 1) == 0.2


# -- resuming ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lmbda", [(0.0, 0.0), (1.0, 1.0), (0.0, 0.6)])
def test_a_resumed_night_equals_an_uninterrupted_one(lmbda, tmp_path):
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "lmbda_start": lmbda[0], "lmbda": lmbda[1]}
    whole = tiny_trainer(tmp_path / "whole", **options)
    expected = whole.run()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "cut" / "checkpoint-2")
    files = {path.name for path in (tmp_path / "cut" / "checkpoint-2").iterdir()}
    assert EXPERT_STATE in files and not any(name.startswith(("model", "pytorch_model")) for name in files)

    again = tiny_trainer(tmp_path / "cut", **options)
    outcome = again.run()
    assert [line["loss"] for line in outcome["history"]] == [line["loss"] for line in expected["history"]]
    assert all(torch.equal(value, again.bank.state_dict()[name]) for name, value in whole.bank.state_dict().items())

    done = tiny_trainer(tmp_path / "cut", **options)  # and once more: nothing is left to do
    done.run()
    assert all(torch.equal(value, done.bank.state_dict()[name]) for name, value in whole.bank.state_dict().items())


def flip(path, place=-1):
    """Another bit in a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


CHECKPOINTS = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}


@pytest.fixture(scope="module")
def four_steps(tmp_path_factory):
    """A training with two checkpoints of three, and what all of it gives."""
    folder = tmp_path_factory.mktemp("whole")
    trainer = tiny_trainer(folder, **CHECKPOINTS)
    outcome = trainer.run()
    shutil.rmtree(folder / "checkpoint-6")
    return folder, outcome, trainer.bank.state_dict()


FILES = [EXPERT_STATE, "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "phase.json", "MANIFEST.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_of_which_a_bit_has_changed_is_passed_over(name, four_steps, tmp_path, caplog):
    source, expected, weights = four_steps
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "checkpoint-4" / name
    flip(path, path.stat().st_size // 2)
    again = tiny_trainer(tmp_path, **CHECKPOINTS)
    outcome = again.run()
    assert "checkpoint-4 is passed over and removed" in caplog.text and "checkpoint-2 is" not in caplog.text
    assert [line["loss"] for line in outcome["history"]] == [line["loss"] for line in expected["history"]]
    assert outcome["train_tokens"] == expected["train_tokens"]
    assert all(torch.equal(value, again.bank.state_dict()[name]) for name, value in weights.items())


def test_counters_go_on_where_a_killed_run_left_them(four_steps, tmp_path):
    source, expected, _ = four_steps
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    again = tiny_trainer(tmp_path, **CHECKPOINTS)
    outcome = again.run()
    assert outcome["train_tokens"] == expected["train_tokens"] > 0
    assert again.seconds_before > 0 and outcome["train_seconds"] > again.seconds_before


@pytest.mark.parametrize("other", ["seed", "learning_rate", "items", "weights"])
def test_a_checkpoint_of_another_training_is_not_gone_on_from(other, four_steps, tmp_path, caplog):
    source, _, weights = four_steps
    shutil.copytree(source, tmp_path / "used", dirs_exist_ok=True)
    options = {"seed": {"seed": 7}, "learning_rate": {"learning_rate": 0.02}}.get(other, {})

    def train(folder):
        model, _ = tiny_grown(seed=1) if other == "weights" else tiny_grown()
        args = tiny_config(folder, **CHECKPOINTS, **options)
        slot = ExpertBank.of(model).activate(seed=args.seed)
        items = tiny_items()[other == "items" :]
        trainer = KnowledgeSeedingTrainer(model, args, items, tiny_tokenizer(), slot)
        return trainer.run(), trainer.bank.state_dict()

    expected, found = train(tmp_path / "new"), train(tmp_path / "used")
    assert caplog.text.count("it is of another training") == 2
    assert [line["loss"] for line in found[0]["history"]] == [line["loss"] for line in expected[0]["history"]]
    assert all(torch.equal(value, found[1][name]) for name, value in expected[1].items())
    assert any(not torch.equal(value, weights[name]) for name, value in found[1].items())


def test_a_training_that_a_signal_stopped_is_no_night(tmp_path):
    trainer = tiny_trainer(tmp_path, **CHECKPOINTS)
    plain = trainer.compute_loss

    def stopping(*args, **options):
        if trainer.state.global_step == 3:
            trainer.control.should_training_stop = True  # as transformers' JITCheckpointCallback does
        return plain(*args, **options)

    trainer.compute_loss = stopping
    with pytest.raises(SleepkitError, match="night 2 was stopped at step 4 of 6; the same command goes on"):
        trainer.run("night 2")


def test_weights_that_are_not_finite_are_no_night(tmp_path):
    with pytest.raises(
        SleepkitError, match=r"night 1 has left .* at (nan|inf|.*e\+3\d), so nothing.*lower learning_rate \(it was 1e\+30\)"
    ):
        tiny_trainer(tmp_path, max_steps=4, learning_rate=1e30).run("night 1")


# -- batches ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("share", [0.0, 0.34, 1.0])
def test_slices_of_two_ranks_make_the_batch_of_one(share):
    memory, others = list(range(10)), [[10, 11, 12], [], [13]]
    one = list(BatchPlan(memory, others, 6, share, 9, seed=3, rank=0, world=1))
    halves = [list(BatchPlan(memory, others, 3, share, 9, seed=3, rank=rank, world=2)) for rank in (0, 1)]
    assert len(one) == len(halves[0]) == 9
    for batch, first, second in zip(one, *halves, strict=True):
        assert len(first) == len(second) == 3 and sorted(first + second) == sorted(batch)
        assert sum(i >= 10 for i in batch) == min(round(6 * share), 5)
    drawn = [i for batch in one for i in batch if i >= 10]
    assert abs(sum(i == 13 for i in drawn) - len(drawn) / 2) <= 0.5  # groups take turns, however small


def test_memory_items_come_round_evenly():
    plan = BatchPlan(list(range(10)), [[10]], 4, 0.25, 20, seed=0, rank=0, world=1)
    counts = [sum(batch.count(i) for batch in plan) for i in range(10)]
    assert counts == [6] * 10
    assert [*plan] == [*plan] and len(plan) == 20


def test_without_general_items_all_are_memory():
    assert BatchPlan([0, 1], [[], []], 4, 0.5, 1, 0, 0, 1).n_new == 4


@pytest.mark.parametrize(("least", "steps"), [(1, 5), (5, 5), (7, 7)])
def test_epochs_instead_of_steps(least, steps, tmp_path):
    trainer = tiny_trainer(tmp_path, max_steps=-1, num_train_epochs=3, min_steps=least)  # 5 new items, 3 a step
    trainer.run()
    assert trainer.state.global_step == steps


# -- errors -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, r"alpha is 1.5; give a number from 0 to 1"),
        ({"lmbda": -0.1}, r"lmbda is -0.1"),
        ({"lmbda_start": 2}, r"lmbda_start is 2"),
        ({"gamma": 1.1}, r"gamma is 1.1"),
        ({"general_share": -1}, r"general_share is -1"),
        ({"styles": ["wh", "sonnet"]}, r"styles has 'sonnet'; use any of question"),
        ({"divergence": "kl"}, r"divergence is 'kl'; use one of forward_kl"),
        ({"judge": "human"}, r"judge is 'human'"),
        ({"chunk_size": 0}, r"chunk_size is 0; give at least 1"),
        ({"lmbda": 0.5, "num_generations": 1}, r"num_generations is 1"),
        ({"lmbda": 0.5, "save_strategy": "steps", "save_steps": 3}, r"save_steps is 3.*multiple of rollout_every \(2\)"),
        ({"divergence": "jsd", "beta": 1.0}, r"beta is 1.0"),
        ({"top_k": -1}, r"top_k is -1"),
        ({"mask_first_tokens": -1}, r"mask_first_tokens is -1"),
    ],
)
def test_bad_configuration(options, message, tmp_path):
    with pytest.raises(SleepkitError, match=message):
        tiny_config(tmp_path, **options)


def test_nights_that_cannot_be(tmp_path):
    model, bank = tiny_grown(max_position_embeddings=60)
    slot = bank.activate()
    with pytest.raises(SleepkitError, match="at least one new item"):
        KnowledgeSeedingTrainer(model, tiny_config(tmp_path), tiny_items()[5:], tiny_tokenizer(), slot)
    with pytest.raises(SleepkitError, match="a teacher prompt with its reply needs .* tokens, the model's window holds 60"):
        KnowledgeSeedingTrainer(model, tiny_config(tmp_path), tiny_items(), tiny_tokenizer(), slot)
