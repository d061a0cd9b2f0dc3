"""What one pass through a model costs, found by running the model's own code on the meta device (dry_run.py).

    passes = Passes(blank)
    passes.flops(batch)                   FLOPs of tokens that are read and written
    passes.reading_peak(batch)            bytes at one time
    passes.step(batch, nights, args)      FLOPs and peak memory of one training step

A dry run takes half a second for SmolLM2, so few are made.  A token costs ``a`` FLOPs, and ``b`` for each token that it is
compared with: both are solved from passes of two lengths.  Masked pairs count, as they are computed.  Without gradients one layer
after the other needs the same memory, which grows with the number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sleepkit.language.generation.cache import SPARE, growing_cache
from sleepkit.language.generation.sampling import CANDIDATES
from sleepkit.language.plan.dry_run import Cost, counted
from sleepkit.language.plan.stand_in import Batch
from sleepkit.language.seeding.divergence import OutputHead, TeacherTargets, token_divergence
from sleepkit.language.seeding.packing import Backbone, PackedBatch, flat_hidden

if TYPE_CHECKING:
    from sleepkit.language.plan.blank import BlankModel
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

__all__ = ["Passes", "PerToken"]

LENGTHS = (32, 96)  # tokens of the two passes
META = torch.device("meta")


@dataclass(frozen=True)
class PerToken:
    """FLOPs of a token, and of each pair of it with a token that it is compared with."""

    alone: float
    pair: float

    @classmethod
    def solved(cls, flops_of: Callable[[int], int]) -> PerToken:
        """Solve it from the FLOPs of rows of two lengths, ``n alone + n^2 pair``."""
        (short, few), (long, many) = ((n, flops_of(n) / n) for n in LENGTHS)
        pair = (many - few) / (long - short)
        return cls(few - short * pair, max(0.0, pair))

    def flops(self, rows: float, read: float, past: float = 0) -> float:
        """FLOPs of ``rows`` of ``read`` tokens, each row behind ``past`` tokens."""
        return rows * read * (self.alone + self.pair * (past + read))


class Passes:
    """Costs of passes through one model.

    Args:
        blank: the model.
    """

    def __init__(self, blank: BlankModel) -> None:
        self.blank = blank
        self.backbone, self.head = Backbone(blank.model, blank.bank), OutputHead.of(blank.model)
        self.vocabulary, self.width = self.head.weight.shape
        self.item = self.head.weight.element_size()  # bytes of an activation
        self.n_layers = len(self.backbone.all_layers)
        self.first = self.backbone.first
        self._compared: dict[tuple[int, int], int] = {}  # bytes by tokens and size of a chunk
        self._noted: dict[tuple[Any, ...], int] = {}  # bytes of a chunk by settings

    @cached_property
    def _read(self) -> dict[int, Cost]:
        """Costs of single rows of two lengths through all layers."""
        return {n: _dry(lambda n=n: self.backbone.decoder(input_ids=_ids(1, n), use_cache=False)) for n in LENGTHS}  # type: ignore[misc]

    @cached_property
    def whole(self) -> PerToken:
        """All layers."""
        return PerToken.solved(lambda n: self._read[n].flops)

    @cached_property
    def lower(self) -> PerToken:
        """The layers below the experts."""
        return PerToken.solved(lambda n: _dry(lambda: self.backbone.lower_inputs(_rows(1, n))).flops)

    @property
    def per_logit_row(self) -> int:
        """FLOPs of the logits of one token."""
        return 2 * self.vocabulary * self.width

    @cached_property
    def cached_bytes(self) -> float:
        """Bytes of keys and values of one token, in all layers; 0 for a model that keeps states of its own."""
        cache = growing_cache(self.blank.model)
        if cache is None:
            return 0.0
        n = LENGTHS[0]
        _dry(lambda: self.backbone.decoder(input_ids=_ids(1, n), past_key_values=cache, use_cache=True))
        layers: Any = cache.layers
        return sum(int(layer.keys.nbytes + layer.values.nbytes) for layer in layers if layer.is_initialized) / n

    # -- reading and writing ------------------------------------------------------------------------------------------
    def flops(self, batch: Batch) -> float:
        """FLOPs of a batch that is read and written."""
        steps = max(0, batch.written - 1)
        decoded = steps * self.whole.flops(batch.rows, 1, batch.past + batch.read + (steps - 1) / 2)
        heads = batch.rows * ((batch.heads if batch.read else 0) + 2 * batch.compared + steps)
        return self.whole.flops(batch.rows, batch.read, batch.past) + decoded + heads * self.per_logit_row

    def reading_peak(self, batch: Batch) -> int:
        """Bytes at one time while a batch is read: activations, logits, and keys and values if it is to be written on."""
        heads = batch.rows * batch.heads
        logits = heads * (self.width + self.vocabulary) * self.item
        activations = self._activations(batch.rows * batch.read, logits)
        return activations + (self._cache_peak(batch, batch.past + batch.read) if batch.written else 0)

    def _activations(self, tokens: int, after: int) -> int:
        """Bytes at one time while tokens pass through the layers, and ``after`` bytes are made of their hidden states."""
        longest = LENGTHS[1]
        return max(tokens * self._read[longest].peak_bytes // longest, tokens * self.width * self.item + after)

    def writing_peak(self, batch: Batch) -> int:
        """Bytes at one time while the last token of a batch is written: keys and values with their room, and the sampler's."""
        return self._cache_peak(batch, batch.past + batch.read + batch.written) + batch.rows * self._sampled_bytes

    @cached_property
    def _sampled_bytes(self) -> int:
        """Bytes at one time while a token of one row is drawn."""

        def sample() -> Any:
            logits = torch.empty(1, self.vocabulary, dtype=self.backbone.dtype, device=META)
            scores = logits.to(copy=True, dtype=torch.float32)  # as transformers does
            scaled = scores / 1.0  # and on as `SeededSampler`
            drawn = scaled.topk(min(CANDIDATES, self.vocabulary)).indices[:, :1]
            return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)

        return _dry(sample).peak_bytes

    def _cache_peak(self, batch: Batch, tokens: int) -> int:
        """Bytes of the cache of a batch: with room to spare, and a layer that is copied as its room is full."""
        return int(batch.rows * self.cached_bytes * (tokens + SPARE + tokens / self.n_layers))

    def divergence_peak(self, tokens: int, chunk_size: int) -> int:
        """Bytes at one time while the full distributions over so many tokens are compared, as the retention set does."""
        if (tokens, chunk_size) not in self._compared:
            hidden = torch.empty(tokens, self.width, dtype=self.backbone.dtype, device=META)
            targets = TeacherTargets(hidden=hidden)
            cost = _dry(lambda: token_divergence(hidden, self.head, targets, chunk_size=chunk_size))
            self._compared[tokens, chunk_size] = cost.peak_bytes
        return self._compared[tokens, chunk_size]

    # -- learning -----------------------------------------------------------------------------------------------------
    def targets_peak(self, padded: int, told: int, args: KnowledgeSeedingConfig) -> int:
        """Bytes at one time while the teacher reads padded rows, and its targets are made.

        Args:
            padded: tokens of the rows, padding included.
            told: tokens that have targets.
            args: settings of the loss.
        """
        key = args.top_k, args.chunk_size, args.reply_weight
        if key not in self._noted:
            hidden = torch.empty(args.chunk_size, self.width, dtype=self.backbone.dtype, device=META)
            tokens = torch.zeros(args.chunk_size, dtype=torch.int64, device=META)
            self._noted[key] = _dry(
                lambda: TeacherTargets.from_hidden(hidden, self.head, args.top_k, args.chunk_size, tokens, args.reply_weight)
            ).peak_bytes
        chunk = self._noted[key] * min(told, args.chunk_size) // args.chunk_size
        kept = max(0, told - args.chunk_size) * self.target_bytes(args)
        return self._activations(padded, told * self.width * self.item + chunk + kept)

    def target_bytes(self, args: KnowledgeSeedingConfig) -> int:
        """Bytes of the teacher's targets of one token."""
        return min(args.top_k, self.vocabulary) * (4 + 8) if args.top_k else self.width * self.item

    def step(self, batch: PackedBatch, nights: int, args: KnowledgeSeedingConfig) -> Cost:
        """Cost of a forward and backward pass of the student over one batch, with its loss.

        Args:
            batch: on the meta device.
            nights: experts in use, of which the last one trains.
            args: settings of the loss.
        """
        targets = self._targets_of(len(batch.predicts), args)
        bank = self.blank.bank
        with self.blank.asleep(nights) as slot:

            def learn() -> None:
                with torch.enable_grad(), self.backbone.in_blocks(), bank.watch_gates(slot) as layers:
                    flat = flat_hidden(self.backbone.hidden(batch), batch)
                    loss = token_divergence(flat, self.head, targets, args.divergence, args.beta, args.chunk_size).sum()
                    gates = [layer.gates.mean() for layer in layers if layer.gates is not None]
                    (loss + args.gate_penalty * torch.stack([*gates, loss * 0]).sum()).backward()
                for parameter in bank.parameters(slot):
                    parameter.grad = None

            cost = _dry(learn)
        gradients = 4 * self.blank.sizes.trained  # which are counted with the optimizer
        return Cost(cost.flops, max(0, cost.peak_bytes - gradients))

    def _targets_of(self, n: int, args: KnowledgeSeedingConfig) -> TeacherTargets:
        if args.top_k == 0:
            return TeacherTargets(hidden=torch.empty(n, self.width, dtype=self.backbone.dtype, device=META))
        shape = n, min(args.top_k, self.vocabulary)
        indices = torch.zeros(shape, dtype=torch.int64, device=META)
        return TeacherTargets(log_probs=torch.empty(shape, device=META), indices=indices)


def _dry(run: Callable[[], Any]) -> Cost:
    with counted() as cost, torch.no_grad():
        run()
    return cost


def _ids(rows: int, tokens: int) -> Tensor:
    return torch.zeros(rows, tokens, dtype=torch.int64, device=META)


def _rows(rows: int, tokens: int) -> PackedBatch:
    """Padded rows of equal length, as `pad_rows` makes them."""
    ids = _ids(rows, tokens)
    return PackedBatch(ids, ids, torch.ones_like(ids), None, ids[0], ids[0], ids.bool(), ids.bool())
