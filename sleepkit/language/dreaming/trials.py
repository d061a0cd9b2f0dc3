"""Trials of dreams: how much better does the model answer after learning one dream, on an isolated view of itself?

    tau(model)  = mean over held-out questions of log p(reply | question) per token, nothing in the context
    reward      = tau(model + LoRA trained on the dream) - tau(model),  mean over seeds

All dreams of a batch are tried at once: one `BatchedLora` on the shared base, a packed row for each dream (padded rows for
models that packing is not exact for).  Layers below the first expert are frozen and run once for all steps.  A trial
whose loss or score is not finite is marked as failed and earns nothing; when memory runs out, it is tried in halves.

LoRA rank, alpha, learning rate and epochs as in SEAL (arXiv 2506.10943: 32, 64, 1e-3, 10); log-probability instead of a
judge's verdict is ours: it is deterministic, needs no generation, and tells small gains from none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from sleepkit.language.dreaming.batched_lora import BatchedLora
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.generation.chat import chat_ids, reply_ids
from sleepkit.language.seeding.divergence import OutputHead, token_log_probs, token_scores
from sleepkit.language.seeding.lora import ALPHA, LEARNING_RATE, RANK, linear_maps
from sleepkit.language.seeding.packing import (
    Backbone,
    PackedBatch,
    PreparedItem,
    common_prefix,
    flat_hidden,
    pack_rows,
    packs_exactly,
    pad_rows,
)
from sleepkit.reporting.live import progress

Row = tuple[str, str]  # (prompt, reply)
CHUNK = 64  # tokens whose logits exist at one time


@dataclass
class TrialResult:
    """``reward`` in nats per token, None if the trial failed, and why; ``solved`` is the share of questions that greedy
    decoding answers with the very reply, 0 to 1."""

    reward: float | None
    failed: str = ""
    solved: float | None = None


class Trials:
    """Tries dreams on one model; what does not change between rounds is kept.

    Args:
        model: grown model; its experts in use take part, nothing of it is changed.
        questions: rows that no dream may have seen.
        steps: optimizer steps of a trial, each on all rows of the dream.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        questions: Sequence[Row],
        steps: int = 10,
        learning_rate: float = LEARNING_RATE,
        rank: int = RANK,
    ) -> None:
        self.tokenizer = tokenizer
        bank = ExpertBank.of(model)
        self.backbone, self.head = Backbone(model, bank), OutputHead.of(model)
        self.maps = linear_maps(model, range(self.backbone.first, len(self.backbone.all_layers)))
        self.steps, self.learning_rate, self.rank = steps, learning_rate, rank
        self.questions = prepare_rows(self.backbone, tokenizer, questions)
        self.packed = packs_exactly(self.backbone, self.questions, tokenizer.pad_token_id or 0)
        before, solved = self._scores(1)
        self.before, self.solved_before = float(before[0]), float(solved[0])

    def run(
        self,
        dreams: Sequence[Sequence[PreparedItem]],
        seeds: Sequence[int] = (0,),
        steps: float | None = None,
        learning_rate: float | None = None,
    ) -> list[TrialResult]:
        """Try some dreams, each by a LoRA of its own that is trained on it.

        Args:
            dreams: rows of each, from `prepare_rows`.
            seeds: of the LoRAs; results are means over them.
            steps: optimizer steps; None takes those that all trials have.
            learning_rate: likewise.

        Returns:
            A result for each dream, in their order.
        """
        found = torch.tensor([self._try(list(dreams), seed, steps, learning_rate) for seed in seeds]).mean(0)  # (dreams, 2)
        return [
            TrialResult(score - self.before, solved=solved) if math.isfinite(score) else TrialResult(None, "not finite")
            for score, solved in found.tolist()
        ]

    def _try(
        self, dreams: list[Sequence[PreparedItem]], seed: int, steps: float | None, learning_rate: float | None
    ) -> list[tuple[float, float]]:
        """Scores and shares of solved questions after training, NaN where it failed; in halves if memory runs out."""
        try:
            lora = self.train(dreams, seed, steps, learning_rate)
            with lora.on():
                return list(zip(*(found.tolist() for found in self._scores(len(dreams))), strict=True))
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
                raise
        if len(dreams) == 1:
            return [(math.nan, math.nan)]
        half = len(dreams) // 2
        return [one for part in (dreams[:half], dreams[half:]) for one in self._try(part, seed, steps, learning_rate)]

    def train(
        self, dreams: Sequence[Sequence[PreparedItem]], seed: int, steps: float | None = None, learning_rate: float | None = None
    ) -> BatchedLora:
        """Return the LoRAs of some dreams, trained together; each step takes all rows of each dream.

        Args:
            dreams: rows of each, from `prepare_rows`.
            seed: of their weights.
            steps: optimizer steps; None takes those that all trials have.
            learning_rate: likewise.
        """
        n, lengths = len(dreams), list(map(len, dreams))
        if not self.packed:  # each adapter has as many rows; short dreams repeat theirs, and the repeated ones do not count
            dreams = [[items[k % len(items)] for k in range(max(lengths))] for items in dreams]
        batch, rows = self._batch(dreams)
        device = batch.item_of.device
        dream_of = torch.tensor([k for k, items in enumerate(dreams) for _ in items], device=device)
        counts = torch.tensor(
            [k < own for own, items in zip(lengths, dreams, strict=True) for k in range(len(items))], device=device
        )
        group, weight = dream_of[batch.item_of], counts[batch.item_of].float()  # (tokens,)
        weight = weight / torch.zeros(n, device=device).index_add_(0, group, weight)[group]
        lora = BatchedLora(self.maps, n, self.rank, ALPHA / RANK * self.rank, seed)
        count = int(steps or self.steps)
        optimizer = torch.optim.AdamW(lora.parameters(), lr=learning_rate or self.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, count)
        with lora.on(), self.backbone.in_blocks(), progress.phase("trying dreams", count) as step:
            for _ in range(count):
                with torch.enable_grad():
                    loss = -(self._log_probs(batch, rows) * weight).sum()  # over groups: adapters do not touch each other
                    optimizer.zero_grad()
                    loss.backward()
                optimizer.step()
                schedule.step()
                step()
        return lora

    @torch.no_grad()
    def _scores(self, n: int) -> tuple[Tensor, Tensor]:
        """Mean log-probability of the replies to the held-out questions, and share of replies all of whose tokens are the
        likeliest, ``(n,), (n,)``: of each of ``n`` adapters."""
        batch, rows = self._batch([self.questions] * n)
        hidden = flat_hidden(self.backbone.hidden(batch), batch)
        tokens = reply_tokens(rows, hidden.device)
        found = token_scores(hidden, self.head, tokens, CHUNK)
        sums, likeliest, lengths = (
            torch.zeros(len(rows), device=hidden.device).index_add_(0, batch.item_of, one.float())
            for one in (*found, torch.ones_like(batch.item_of))
        )
        return (sums / lengths).view(n, -1).mean(1).cpu(), (likeliest == lengths).float().view(n, -1).mean(1).cpu()

    def _batch(self, groups: Sequence[Sequence[PreparedItem]]) -> tuple[PackedBatch, list[PreparedItem]]:
        """Groups of items, each in rows of its own, and all items in their order."""
        items = [item for group in groups for item in group]
        pad_id, device = self.tokenizer.pad_token_id or 0, self.backbone.device
        if not self.packed:
            return pad_rows(items, pad_id, device), items
        prefix, backbone = min(map(common_prefix, groups)), self.backbone
        return pack_rows(groups, prefix, pad_id, backbone.dtype, device, backbone.reads_masks), items

    def _log_probs(self, batch: PackedBatch, rows: Sequence[PreparedItem]) -> Tensor:
        hidden = flat_hidden(self.backbone.hidden(batch), batch)
        return token_log_probs(hidden, self.head, reply_tokens(rows, hidden.device), CHUNK)


@torch.no_grad()
def prepare_rows(backbone: Backbone, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> list[PreparedItem]:
    """Rows as tokens, with what enters the first expert layer, where layers below it are frozen."""
    items = [PreparedItem(chat_ids(tokenizer, prompt), reply_ids(tokenizer, reply), True) for prompt, reply in rows]
    if backbone.enters_above and items:
        lower = backbone.lower_inputs(pad_rows(items, tokenizer.pad_token_id or 0, backbone.device))
        for row, item in enumerate(items):
            item.lower = lower[row, : len(item.sequence)].clone()
    return items


def reply_tokens(rows: Sequence[PreparedItem], device: torch.device) -> Tensor:
    """Reply tokens of all rows, one after the other."""
    return torch.tensor([token for item in rows for token in item.reply_ids], device=device)
