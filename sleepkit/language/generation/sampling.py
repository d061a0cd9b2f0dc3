"""Sampling that does not depend on what is in a batch, and nucleus sampling without sorting the vocabulary.

    u_it ~ U[0, 1)                      of row i and token t, from the seed of the row alone
    token = first v with  sum_{w <= v} p_w > u_it * sum_w p_w          (inversion)
    nucleus: the smallest set of tokens, likeliest first, whose probability reaches top_p; draw from them      arXiv 1904.09751

So a row says the same in whatever batch it stands, and on however many processes.  transformers sorts all logits of each step,
which takes longer than the small model itself does on a CPU.  Here the nucleus is looked for among the `CANDIDATES` likeliest
tokens; a wider one is cut there.  Ours: that limit, and the draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from sleepkit.errors import SleepkitError

CANDIDATES = 512
BELOW_ONE = 1 - 1e-6  # so that no rounding puts a draw behind the last token


class SeededSampler(LogitsProcessor):
    """Draws each row's token itself and leaves only that one, so that greedy decoding takes it.

    Args:
        temperature: above 0.
        top_p: from 0 to 1; the likeliest token is always kept, and from 1 on all are.
        seeds: of the rows.
        start: tokens that stand before the first one that is drawn.
        tokens: that are drawn in a row, at most.
    """

    def __init__(self, temperature: float, top_p: float, seeds: Sequence[int], start: int, tokens: int) -> None:
        self.temperature, self.top_p, self.start = temperature, top_p, start
        rows = [torch.rand(tokens, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self.draws = torch.stack(rows)  # (rows, tokens)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores ``(rows, vocab)``, 0 at the drawn token and -inf elsewhere."""
        logits = scores.float() / self.temperature
        total = torch.logsumexp(logits, dim=-1, keepdim=True)
        if not total.isfinite().all():
            raise SleepkitError(
                "the model's logits are not finite; its weights or its config.json are damaged, or need another dtype"
            )
        draws = self.draws[:, input_ids.shape[1] - self.start].to(scores.device)
        if self.top_p >= 1:
            drawn = _inverted((logits - total).exp(), draws)
        else:
            likeliest, tokens = logits.topk(min(CANDIDATES, scores.shape[-1]), dim=-1)
            probabilities = (likeliest - total).exp()  # of the whole vocabulary's
            before = probabilities.cumsum(-1) - probabilities
            nucleus = probabilities.masked_fill(before >= self.top_p, 0.0)
            nucleus[:, 0] = probabilities[:, 0].clamp(min=1e-12)
            drawn = tokens.gather(1, _inverted(nucleus, draws))
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def _inverted(probabilities: Tensor, draws: Tensor) -> Tensor:
    """The class ``(rows, 1)`` of each row that a number from 0 to 1 falls on; none of probability 0."""
    below = probabilities.cumsum(-1)
    return torch.searchsorted(below, draws[:, None] * below[:, -1:] * BELOW_ONE, right=True)
