"""Which dreams are worth a trial: the gradient that a dream's loss has on the experts.

    score = || g ||                       g: gradient of the dream's mean token loss over one expert's parameters
          = cos(g, g_ref)                 where there are reference rows, such as questions whose answers are wanted

One backward pass for each dream.  Gradients are not stored: each is folded into a sketch of ``dimension`` numbers (count
sketch, Charikar et al. 2002), whose inner products are unbiased estimates of those of the gradients.

Source: "Language Models Need Sleep" (arXiv 2606.03979) scores by the gradient and keeps the top k plus b at random; it
cites alignment methods (LESS, arXiv 2402.04333), from which the cosine and the projection are.  Ours: count sketch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sleepkit.language.dreaming.trials import CHUNK, reply_tokens
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.seeding.divergence import OutputHead, token_log_probs
from sleepkit.language.seeding.packing import Backbone, PreparedItem, flat_hidden, pad_rows


class GradientScorer:
    """Scores dreams by the gradient on one slot; the model's weights and flags are as before afterwards.

    Args:
        slot: expert in use whose parameters count.
        reference: rows whose gradient is the direction that is wanted; without them the score is the norm.
        dimension: numbers of a sketch.
    """

    def __init__(
        self,
        model: nn.Module,
        slot: int,
        pad_id: int,
        reference: Sequence[PreparedItem] = (),
        dimension: int = 4096,
        seed: int = 0,
    ) -> None:
        bank = ExpertBank.of(model)
        self.parameters, self.pad_id = bank.parameters(slot), pad_id
        self.backbone, self.head = Backbone(model, bank), OutputHead.of(model)
        self.dimension, self.seed = dimension, seed
        self.reference = self.sketch(reference)[0] if reference else None

    def score(self, rows: Sequence[PreparedItem]) -> float:
        """Norm of the gradient, or its cosine with the reference, -1 to 1."""
        sketch, norm = self.sketch(rows)
        if self.reference is None:
            return norm
        size = float(sketch.norm() * self.reference.norm())
        return float(sketch @ self.reference) / size if size > 0 else 0.0

    def sketch(self, rows: Sequence[PreparedItem]) -> tuple[Tensor, float]:
        """Sketch ``(dimension,)`` of the gradient of the mean token loss, and the exact norm of the gradient."""
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
        generator = torch.Generator().manual_seed(self.seed)  # the same signs and places for every dream
        sketch, square = torch.zeros(self.dimension), 0.0
        for gradient in gradients:
            flat = gradient.float().flatten().cpu()
            places = torch.randint(self.dimension, flat.shape, generator=generator)
            signs = torch.randint(2, flat.shape, generator=generator).mul_(2).sub_(1)
            sketch.index_add_(0, places, flat * signs)
            square += float(flat.square().sum())
        return sketch, square**0.5


def select(scores: Sequence[float], top: int, extra: int, seed: int = 0) -> list[int]:
    """Indices of the ``top`` highest scores and of ``extra`` others drawn at random, in ascending order."""
    order = sorted(range(len(scores)), key=lambda k: -scores[k])
    rest = order[top:]
    return sorted([*order[:top], *random.Random(seed).sample(rest, min(extra, len(rest)))])
