"""Sampling: the distribution, the edge of the nucleus, and that each row goes by its own seed."""

import pytest
import torch

from sleepkit.language.generation.sampling import SeededSampler
from sleepkit.utils.seeds import derive_seed


def drawn(scores, temperature, top_p, seed=0):
    seeds = [derive_seed(seed, row) for row in range(len(scores))]
    found = SeededSampler(temperature, top_p, seeds, 1, 1)(torch.zeros(len(scores), 1), scores)
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


def test_without_a_nucleus_all_tokens_are_drawn_in_proportion():
    probabilities = torch.tensor([0.1, 0.5, 0.25, 0.15, 0.0])
    share = drawn(probabilities.log().expand(20000, -1), 1.0, 1.0).bincount(minlength=5) / 20000
    torch.testing.assert_close(share, probabilities, atol=0.015, rtol=0)
    assert share[4] == 0


@pytest.mark.parametrize("top_p", [0.9, 1.0])
def test_a_row_draws_the_same_beside_any_others(top_p):
    scores = torch.randn(9, 700, generator=torch.Generator().manual_seed(0))
    together = drawn(scores, 1.0, top_p)
    seeds = [derive_seed(0, row) for row in range(9)]
    for rows in ([4], [8, 2], [0, 1, 2, 3]):
        sampler = SeededSampler(1.0, top_p, [seeds[row] for row in rows], 5, 3)
        assert torch.equal(sampler(torch.zeros(len(rows), 5), scores[rows]).argmax(-1), together[rows])
    later = [sampler(torch.zeros(4, 5 + step), scores[:4]).argmax(-1) for step in range(3)]
    assert not torch.equal(later[0], later[1]) or not torch.equal(later[1], later[2])
