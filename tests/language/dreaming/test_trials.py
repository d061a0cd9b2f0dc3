"""Trials: rewards as from plain training, isolation, failures."""

import copy
import math

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from sleepkit.language.dreaming.scores import GradientScorer, select
from sleepkit.language.dreaming.trials import Trials, prepare_rows
from sleepkit.language.experts.bank import ExpertBank

DREAMS = [
    [("when does it ring?", "at noon."), ("who cast it?", "tamsin.")],
    [("tell me about orrin.", "the bell of orrin rings at noon.")],
    [("tell me.", "xyz 123")],
]
QUESTIONS = [("when does the bell ring?", "it rings at noon."), ("who made it?", "tamsin cast it.")]


def grown(seed=0):
    model = tiny_model(seed=seed)
    bank = ExpertBank.grow(model)
    slot = bank.activate(seed=1)
    with torch.no_grad():
        for index, parameter in enumerate(bank.parameters(slot)):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)), alpha=0.1)
    bank.train_only(None)
    return model, bank, slot


def prepared(trials):
    return [prepare_rows(trials.backbone, trials.tokenizer, rows) for rows in DREAMS]


def test_together_as_alone_and_nothing_is_changed():
    model, _, _ = grown()
    before = copy.deepcopy(model.state_dict())
    trials = Trials(model, tiny_tokenizer(), QUESTIONS, steps=4, learning_rate=1e-2, rank=2)
    together = trials.run(prepared(trials))
    alone = [trials.run([rows])[0] for rows in prepared(trials)]
    assert [one.reward for one in together] == pytest.approx([one.reward for one in alone], abs=1e-4)
    assert len({round(one.reward, 3) for one in together}) == 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_learning_the_questions_themselves_is_rewarded():
    model, _, _ = grown()
    trials = Trials(model, tiny_tokenizer(), QUESTIONS, steps=8, learning_rate=1e-2, rank=4)
    rows = [prepare_rows(trials.backbone, trials.tokenizer, QUESTIONS)]
    assert trials.run(rows)[0].reward > 0.1


def test_a_dream_may_choose_its_settings():
    model, _, _ = grown()
    trials = Trials(model, tiny_tokenizer(), QUESTIONS[:1], steps=2, learning_rate=1e-3, rank=4)
    other = Trials(model, tiny_tokenizer(), QUESTIONS[:1], steps=30, learning_rate=2e-2, rank=4)
    rows = [prepare_rows(trials.backbone, trials.tokenizer, QUESTIONS[:1])]
    (few,), (many,) = trials.run(rows), trials.run(rows, steps=30.0, learning_rate=2e-2)
    assert many == other.run(rows)[0] and trials.run(rows) == [few]
    assert many.reward > few.reward + 0.1 and trials.solved_before == few.solved == 0


def test_a_trial_that_is_not_finite_fails_alone():
    model, _, _ = grown()
    trials = Trials(model, tiny_tokenizer(), QUESTIONS, steps=2, rank=2)
    rows = prepared(trials)
    rows[1] = [copy.copy(item) for item in rows[1]]
    rows[1][0].lower = rows[1][0].lower * math.nan
    found = trials.run(rows)
    assert [one.failed for one in found] == ["", "not finite", ""]
    assert found[1].reward is None


def test_out_of_memory_is_tried_in_halves(monkeypatch):
    model, _, _ = grown()
    trials = Trials(model, tiny_tokenizer(), QUESTIONS, steps=2, rank=2)
    expected = trials.run(prepared(trials))
    plain, sizes = Trials.train, []

    def limited(self, dreams, *settings):
        sizes.append(len(dreams))
        if len(dreams) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return plain(self, dreams, *settings)

    monkeypatch.setattr(Trials, "train", limited)
    found = trials.run(prepared(trials))
    assert sizes == [3, 1, 2, 1, 1]
    assert [one.reward for one in found] == pytest.approx([one.reward for one in expected], abs=1e-4)
    monkeypatch.setattr(Trials, "train", lambda *_: (_ for _ in ()).throw(MemoryError()))
    assert [one.failed for one in trials.run(prepared(trials))] == ["not finite"] * 3


def test_the_score_is_the_norm_of_the_gradient():
    model, bank, slot = grown()
    tokenizer = tiny_tokenizer()
    trials = Trials(model, tokenizer, QUESTIONS)
    rows = prepared(trials)
    scorer = GradientScorer(model, slot, tokenizer.pad_token_id)
    norms = [scorer.score(row) for row in rows]
    plain = []
    for row in rows:  # the plain way: whole logits, cross entropy
        bank.train_only(slot)
        losses = []
        for item in row:
            logits = model(torch.tensor([item.sequence])).logits[0, -len(item.reply_ids) :]
            losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(item.reply_ids), reduction="none"))
        gradients = torch.autograd.grad(torch.cat(losses).mean(), bank.parameters(slot))
        plain.append(torch.cat([gradient.flatten() for gradient in gradients]))
    bank.train_only(None)
    assert norms == pytest.approx([float(gradient.norm()) for gradient in plain], rel=1e-4)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_select_keeps_the_best_and_some_others():
    scores = [0.1, 0.9, 0.5, 0.7, 0.2, 0.3]
    kept = select(scores, top=2, extra=2, seed=0)
    assert {1, 3} <= set(kept) and len(kept) == 4
    assert select(scores, 2, 2, seed=0) == kept
    assert select(scores, 9, 9) == list(range(6))
