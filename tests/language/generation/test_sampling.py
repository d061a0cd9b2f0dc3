"""Nucleus sampling: the distribution, its edge, and the seed."""

import torch

from sleepkit.language.generation.sampling import NucleusSampler


def drawn(scores, temperature, top_p, seed=0):
    torch.manual_seed(seed)
    found = NucleusSampler(temperature, top_p)(torch.zeros(len(scores), 1), scores)
    assert ((found == 0).sum(-1) == 1).all() and (found[found != 0] == -torch.inf).all()
    return found.argmax(-1)


def test_draws_in_proportion_inside_the_nucleus():
    probabilities = torch.tensor([0.1, 0.5, 0.25, 0.15])
    rows = probabilities.log().expand(20000, -1)
    share = drawn(rows, 1.0, 0.8).bincount(minlength=4) / 20000  # .5 + .25 < .8, so .15 is the last one in
    torch.testing.assert_close(share, torch.tensor([0.0, 0.5, 0.25, 0.15]) / 0.9, atol=0.015, rtol=0)
    sharp = drawn(rows, 0.5, 0.999).bincount(minlength=4) / 20000
    torch.testing.assert_close(sharp, probabilities**2 / (probabilities**2).sum(), atol=0.015, rtol=0)
    assert (drawn(rows, 1.0, 0.0) == 1).all()  # the likeliest is always in


def test_the_same_seed_draws_the_same_and_wide_vocabularies_are_cut():
    scores = torch.randn(50, 5000, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    assert torch.equal(drawn(scores, 1.0, 0.99, seed=3), drawn(scores, 1.0, 0.99, seed=3))
    assert not torch.equal(drawn(scores, 1.0, 0.99, seed=3), drawn(scores, 1.0, 0.99, seed=4))
    ranks = (scores > scores.gather(1, drawn(scores, 1.0, 0.99)[:, None])).sum(-1)
    assert ranks.max() < 512
