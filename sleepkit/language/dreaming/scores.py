"""Which dreams are worth a trial: the gradient that a dream's loss has on the experts.

    score = || g ||                       g: gradient of the dream's mean token loss over one expert's parameters

One backward pass for each dream, on one process.  Source: "Language Models Need Sleep" (arXiv 2606.03979) scores by the gradient
and keeps the top k plus b at random.  Left out: the cosine with a gradient that is wanted (LESS, arXiv 2402.04333).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import nn

from sleepkit.language.dreaming.trials import CHUNK, reply_tokens
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.seeding.divergence import OutputHead, token_log_probs
from sleepkit.language.seeding.packing import Backbone, PreparedItem, flat_hidden, pad_rows


class GradientScorer:
    """Scores dreams by the gradient on one slot; the model's weights and flags are as before afterwards.

    Args:
        slot: expert in use whose parameters count.
    """

    def __init__(self, model: nn.Module, slot: int, pad_id: int) -> None:
        bank = ExpertBank.of(model)
        self.parameters, self.pad_id = bank.parameters(slot), pad_id
        self.backbone, self.head = Backbone(model, bank), OutputHead.of(model)

    def score(self, rows: Sequence[PreparedItem]) -> float:
        """Norm of the gradient of the mean token loss."""
        wanted = [parameter.requires_grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        try:
            with torch.enable_grad():
                batch = pad_rows(rows, self.pad_id, self.backbone.device)
                hidden = flat_hidden(self.backbone.hidden(batch), batch)
                loss = -token_log_probs(hidden, self.head, reply_tokens(rows, hidden.device), CHUNK).mean()
                gradients = torch.autograd.grad(loss, self.parameters)
        finally:
            for parameter, flag in zip(self.parameters, wanted, strict=True):
                parameter.requires_grad_(flag)
        return float(torch.stack([gradient.float().square().sum() for gradient in gradients]).sum().sqrt())


def select(scores: Sequence[float], top: int, extra: int, seed: int = 0) -> list[int]:
    """Indices of the ``top`` highest scores and of ``extra`` others drawn at random, in ascending order."""
    order = sorted(range(len(scores)), key=lambda k: -scores[k])
    rest = order[top:]
    return sorted([*order[:top], *random.Random(seed).sample(rest, min(extra, len(rest)))])
