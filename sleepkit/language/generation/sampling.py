"""Nucleus sampling without sorting the vocabulary.

    keep the smallest set of tokens, likeliest first, whose probability reaches top_p; draw from them      arXiv 1904.09751

transformers sorts all logits of each step, which takes longer than the small model itself does on a CPU.  Here the nucleus
is looked for among the `CANDIDATES` likeliest tokens; a wider one is cut there.  Ours: that limit.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor

CANDIDATES = 512


class NucleusSampler(LogitsProcessor):
    """Draws each row's token itself and leaves only that one, so that greedy decoding takes it.

    Args:
        temperature: above 0.
        top_p: from 0 to 1; the likeliest token is always kept.
    """

    def __init__(self, temperature: float, top_p: float) -> None:
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores ``(rows, vocab)``, 0 at the drawn token and -inf elsewhere."""
        logits, tokens = scores.topk(min(CANDIDATES, scores.shape[-1]), dim=-1)  # likeliest first
        logits = logits.float() / self.temperature
        total = torch.logsumexp(scores.float() / self.temperature, dim=-1, keepdim=True)
        probabilities = (logits - total).exp()  # of the whole vocabulary's
        before = probabilities.cumsum(-1) - probabilities
        nucleus = probabilities.masked_fill(before >= self.top_p, 0.0)
        nucleus[:, 0] = probabilities[:, 0].clamp(min=1e-12)
        drawn = tokens.gather(1, torch.multinomial(nucleus, 1))
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)
