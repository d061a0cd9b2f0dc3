"""What one pass through a model costs, found by running the model's own code on the meta device (dry_run.py).

    passes = Passes(blank)
    passes.flops(batch)                   FLOPs of tokens that are read and written
    passes.step(batch, nights, args)      FLOPs and peak memory of one training step

A token costs ``a`` FLOPs, and ``b`` for each token that it is compared with: both are solved from passes of two lengths.  Masked
pairs count, as they are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

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
FEW = 4  # layers, of which hybrids have every kind
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
        self.steps: dict[tuple[Any, ...], Cost] = {}  # of batches of one shape

    @cached_property
    def whole(self) -> PerToken:
        """All layers."""
        return PerToken.solved(lambda n: _dry(lambda: self.backbone.decoder(input_ids=_ids(1, n), use_cache=False)).flops)

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
        ids = _ids(batch.rows, batch.read)

        def read() -> Any:
            hidden = self.backbone.decoder(input_ids=ids, use_cache=False).last_hidden_state
            return hidden[:, -batch.heads :].reshape(-1, self.width) @ self.head.weight.t() if batch.heads else hidden

        with self._few_layers():
            activations = _dry(read).peak_bytes
        return activations + (self._cache_peak(batch, batch.past + batch.read) if batch.written else 0)

    def writing_peak(self, batch: Batch) -> int:
        """Bytes at one time while the last token of a batch is written: keys and values with their room, and the sampler's."""
        rows = batch.rows

        def sample() -> Any:
            logits = torch.empty(rows, self.vocabulary, dtype=self.backbone.dtype, device=META)
            scores = logits.to(copy=True, dtype=torch.float32)  # as transformers does
            scaled = scores / 1.0  # and on as `SeededSampler`
            drawn = scaled.topk(min(CANDIDATES, self.vocabulary)).indices[:, :1]
            return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)

        return self._cache_peak(batch, batch.past + batch.read + batch.written) + _dry(sample).peak_bytes

    def _cache_peak(self, batch: Batch, tokens: int) -> int:
        """Bytes of the cache of a batch: with room to spare, and a layer that is copied as its room is full."""
        return int(batch.rows * self.cached_bytes * (tokens + SPARE + tokens / self.n_layers))

    def divergence_peak(self, tokens: int, chunk_size: int) -> int:
        """Bytes at one time while the full distributions over so many tokens are compared, as the retention set does."""
        hidden = torch.empty(tokens, self.width, dtype=self.backbone.dtype, device=META)
        return _dry(lambda: token_divergence(hidden, self.head, TeacherTargets(hidden=hidden), chunk_size=chunk_size)).peak_bytes

    # -- learning -----------------------------------------------------------------------------------------------------
    def targets_peak(self, rows: PackedBatch, args: KnowledgeSeedingConfig) -> int:
        """Bytes at one time while the teacher reads padded rows, and its targets are made."""
        n = len(rows.predicts)
        hidden = torch.empty(n, self.width, dtype=self.backbone.dtype, device=META)

        def note() -> Any:
            tokens = torch.zeros(n, dtype=torch.int64, device=META)
            return TeacherTargets.from_hidden(hidden, self.head, args.top_k, args.chunk_size, tokens, args.reply_weight)

        with self._few_layers():
            reading = _dry(lambda: flat_hidden(self.backbone.hidden(rows), rows)).peak_bytes
        return max(reading, rows.ids.numel() * self.width * self.item + hidden.nbytes + _dry(note).peak_bytes)

    def step(self, batch: PackedBatch, nights: int, args: KnowledgeSeedingConfig) -> Cost:
        """Cost of a forward and backward pass of the student over one batch, with its loss.

        Args:
            batch: on the meta device.
            nights: experts in use, of which the last one trains.
            args: settings of the loss.
        """
        key = tuple(batch.ids.shape), len(batch.predicts), min(nights, self.blank.bank.config.slots), batch.lower is None
        if key not in self.steps:
            self.steps[key] = self._step(batch, nights, args)
        return self.steps[key]

    def _step(self, batch: PackedBatch, nights: int, args: KnowledgeSeedingConfig) -> Cost:
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

    @contextmanager
    def _few_layers(self) -> Iterator[None]:
        """Without gradients one layer after the other needs the same memory, so a few are enough."""
        holder, name, layers = self.backbone.holder, self.backbone.name, self.backbone.all_layers
        setattr(holder, name, nn.ModuleList(list(layers)[:FEW]))
        try:
            yield
        finally:
            setattr(holder, name, layers)


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
