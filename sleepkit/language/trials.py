"""Trials of dreams: how much better does the model answer after learning one dream, on an isolated view of itself?

    tau(model)  = mean over held-out questions of log p(reply | question) per token, nothing in the context
    reward      = tau(model + LoRA trained on the dream) - tau(model),  mean over seeds

All dreams of a round are tried at once: one `BatchedLora` on the shared base, one group of rows for each dream.  Layers
below the first expert are frozen and run once per row for all steps.  A trial whose loss or score is not finite is marked
as failed and earns nothing; when memory runs out, the round is tried in halves.

LoRA rank, alpha, learning rate and epochs as in SEAL (arXiv 2506.10943: 32, 64, 1e-3, 10); log-probability instead of a
judge's verdict is ours: it is deterministic, needs no generation, and tells small gains from none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from sleepkit.language.batched_lora import BatchedLora
from sleepkit.language.chat import chat_ids, text_ids
from sleepkit.language.divergence import OutputHead, token_log_probs
from sleepkit.language.expert_bank import ExpertBank
from sleepkit.language.lora import ALPHA, LEARNING_RATE, RANK, linear_maps
from sleepkit.language.packing import Backbone, PackedBatch, PreparedItem, flat_hidden, pad_rows

Row = tuple[str, str]  # (prompt, reply)
CHUNK = 64  # tokens whose logits exist at one time


@dataclass
class TrialResult:
    """``reward`` in nats per token, None if the trial failed, and why."""

    reward: float | None
    failed: str = ""


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
        self.before = float(self._scores(1)[0])

    def run(self, dreams: Sequence[Sequence[PreparedItem]], seeds: Sequence[int] = (0,)) -> list[TrialResult]:
        """One result for each dream (its rows, from `prepare_rows`), in their order."""
        found = [self._try(list(dreams), seed) for seed in seeds]
        gains = [sum(scores[k] - self.before for scores in found) / len(found) for k in range(len(dreams))]
        return [TrialResult(gain) if math.isfinite(gain) else TrialResult(None, "not finite") for gain in gains]

    def _try(self, dreams: list[Sequence[PreparedItem]], seed: int) -> list[float]:
        """Scores after training, NaN where it failed; in halves if memory runs out."""
        try:
            return self._train(dreams, seed)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
                raise
        if len(dreams) == 1:
            return [math.nan]
        half = len(dreams) // 2
        return self._try(dreams[:half], seed) + self._try(dreams[half:], seed)

    def _train(self, dreams: list[Sequence[PreparedItem]], seed: int) -> list[float]:
        n, q = len(dreams), max(map(len, dreams))
        rows = [items[k % len(items)] for items in dreams for k in range(q)]  # short dreams repeat their rows
        batch = pad_rows(rows, self.tokenizer.pad_token_id or 0, self.backbone.device)
        group = batch.item_of // q  # (tokens,)
        weight = (1 / torch.bincount(group, minlength=n))[group]
        lora = BatchedLora(self.maps, n, self.rank, ALPHA / RANK * self.rank, seed)
        optimizer = torch.optim.AdamW(lora.parameters(), lr=self.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        with lora.on():
            for _ in tqdm(range(self.steps), desc="trials", leave=False):
                with torch.enable_grad():
                    loss = -(self._log_probs(batch, rows) * weight).sum()  # over groups: adapters do not touch each other
                    optimizer.zero_grad()
                    loss.backward()
                optimizer.step()
                schedule.step()
            return self._scores(n).tolist()

    @torch.no_grad()
    def _scores(self, n: int) -> Tensor:
        """Mean log-probability of the replies to the held-out questions, ``(n,)``: of each of ``n`` adapters."""
        total = torch.zeros(n)
        for item in self.questions:
            rows = [item] * n
            batch = pad_rows(rows, self.tokenizer.pad_token_id or 0, self.backbone.device)
            total += self._log_probs(batch, rows).view(n, -1).mean(1).float().cpu()
        return total / len(self.questions)

    def _log_probs(self, batch: PackedBatch, rows: Sequence[PreparedItem]) -> Tensor:
        hidden = flat_hidden(self.backbone.hidden(batch), batch)
        return token_log_probs(hidden, self.head, reply_tokens(rows, hidden.device), CHUNK)


@torch.no_grad()
def prepare_rows(backbone: Backbone, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> list[PreparedItem]:
    """Rows as tokens, with what enters the first expert layer, where layers below it are frozen."""
    end = [tokenizer.eos_token_id]
    items = [PreparedItem(chat_ids(tokenizer, prompt), text_ids(tokenizer, reply) + end, True) for prompt, reply in rows]
    if backbone.first and items:
        lower = backbone.lower_inputs(pad_rows(items, tokenizer.pad_token_id or 0, backbone.device))
        for row, item in enumerate(items):
            item.lower = lower[row, : len(item.sequence)].clone()
    return items


def reply_tokens(rows: Sequence[PreparedItem], device: torch.device) -> Tensor:
    """Reply tokens of all rows, one after the other."""
    return torch.tensor([token for item in rows for token in item.reply_ids], device=device)
