"""Continuing prompts in batches, on one process: what is common is read once, and each row is drawn by a seed of its own.

    read       P                        what all prompts begin with, once                                     (1, p)
    per batch  P a | P b                what groups of its prompts begin with, once each                      (groups, p + g)
    decode     P a x | P a y | P b z    all its rows, from copies of those keys and values                    (rows, ...)

Both savings only where all layers are attention to all tokens, and reading as often as a process needs it is allowed (not under
ZeRO-3).  chat.py deals prompts out to processes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LogitsProcessorList, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from sleepkit.language.generation.batches import Room, batches, common, pads_exactly
from sleepkit.language.generation.cache import growing_cache
from sleepkit.language.generation.prompts import PromptFormat, until
from sleepkit.language.generation.sampling import SeededSampler
from sleepkit.language.models.decoder import reach
from sleepkit.language.models.zero3 import is_zero3

if TYPE_CHECKING:
    from transformers.generation.streamers import BaseStreamer

MIN_SHARED_PREFIX = 32


@dataclass(frozen=True)
class Decoding:
    """How prompts are continued.

    Attributes:
        max_new_tokens: of each.
        temperature: 0 decodes greedily.
        top_p: share of the probability that sampling draws from.
        stop: texts that end a continuation and are no part of it.
        streamer: takes the tokens of a single prompt as they come.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: Sequence[str] = ()
    streamer: BaseStreamer | None = None


def passes_of(model: nn.Module, prompts: Sequence[Sequence[int]], chosen: Sequence[int], new: int, room: Room) -> list[list[int]]:
    """Put prompts together that are decoded at once.

    Args:
        model: that continues them.
        prompts: token ids.
        chosen: places of the prompts, those side by side that begin alike.
        new: tokens that each is continued by.
        room: for a batch.
    """
    shared = len(_prefix(model, [prompts[i] for i in chosen]))
    lengths = [len(prompts[i]) - shared + new for i in chosen]
    return [[chosen[k] for k in batch] for batch in batches(lengths, shared, room, not pads_exactly(model))]


@torch.no_grad()
def continued(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    how: Decoding,
    passes: Sequence[Sequence[int]],
    step: Callable[[int], object] = lambda _: None,
) -> dict[int, list[int]]:
    """Continue some of the prompts on this process, and return the new tokens of each, without end of turn and padding.

    Args:
        model: that continues.
        tokenizer: its tokenizer.
        prompts: token ids.
        seeds: of each prompt, for what is drawn.
        how: they are continued.
        passes: places of prompts that are decoded together.
        step: is told how many are done.
    """
    prefix = _prefix(model, [prompts[i] for batch in passes for i in batch])
    cache = _cached(model, prefix) if prefix else None
    done: dict[int, list[int]] = {}
    was_training = model.training
    model.eval()
    for batch in passes:
        rows = [tuple(prompts[i][len(prefix) :]) for i in batch]
        found = _decoded(model, tokenizer, prefix, cache, rows, [seeds[i] for i in batch], how)
        done.update(zip(batch, found, strict=True))
        step(len(batch))
    model.train(was_training)
    return done


def _decoded(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prefix: list[int],
    cache: DynamicCache | None,
    rows: Sequence[tuple[int, ...]],
    seeds: Sequence[int],
    how: Decoding,
) -> list[list[int]]:
    """New tokens of one batch."""
    ends, stops = ends_of(model, tokenizer), stops_at(tokenizer, how)
    ids, mask, past = _read_beginnings(model, tokenizer.pad_token_id, prefix, cache, rows)
    width = ids.shape[1]
    options: dict[str, Any] = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": ends}
    if how.temperature > 0:
        sampler = SeededSampler(how.temperature, how.top_p, seeds, width, how.max_new_tokens)
        options["logits_processor"] = LogitsProcessorList([sampler])
    if stops:
        options["stopping_criteria"] = StoppingCriteriaList([_TextStop(tokenizer, stops, width)])
    with contiguous_head(model):
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=past,
            max_new_tokens=how.max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            streamer=how.streamer,
            synced_gpus=is_zero3(),
            **options,
        )
    return [until_end(tokenizer, tokens, ends, stops) for tokens in output[:, width:].tolist()]


def _read_beginnings(
    model: nn.Module, pad: int, prefix: list[int], cache: DynamicCache | None, rows: Sequence[tuple[int, ...]]
) -> tuple[Tensor, Tensor, DynamicCache | None]:
    """Token ids and mask of a batch, ``(rows, time)``, and a cache of what is read already."""
    stems = _stems(rows) if caches_exactly(model) else list(rows)
    kinds = list(dict.fromkeys(stems)) if caches_exactly(model) else stems
    past = growing_cache(model) if cache is None else copy.deepcopy(cache)
    if cache is not None and past is not None:
        past.batch_repeat_interleave(len(kinds))
    device = next(model.parameters()).device
    before, seen = ([list(prefix)] * len(kinds), [[1] * len(prefix)] * len(kinds))
    if len(kinds) == len(rows):
        before, seen = _padded(before, seen, rows, pad)
        return torch.tensor(before, device=device), torch.tensor(seen, device=device), past
    before, seen = _padded(before, seen, kinds, pad)
    assert past is not None  # all layers are attention
    if len(before[0]) > past.get_seq_length():
        read(model, torch.tensor(before, device=device), torch.tensor(seen, device=device), past)
    copies = [kinds.index(stem) for stem in stems]
    past.batch_select_indices(torch.tensor(copies, device=device))
    rests = [row[len(stem) :] for row, stem in zip(rows, stems, strict=True)]
    before, seen = _padded([before[k] for k in copies], [seen[k] for k in copies], rests, pad)
    return torch.tensor(before, device=device), torch.tensor(seen, device=device), past


def _padded(
    before: Sequence[list[int]], seen: Sequence[list[int]], rows: Sequence[tuple[int, ...]], pad: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Rows behind what stands before them, left-padded, with their masks."""
    width = max(map(len, rows))
    gaps = [width - len(row) for row in rows]
    ids = [[*start, *[pad] * gap, *row] for start, gap, row in zip(before, gaps, rows, strict=True)]
    return ids, [[*start, *[0] * gap, *[1] * len(row)] for start, gap, row in zip(seen, gaps, rows, strict=True)]


def _stems(rows: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """What each row begins with that a neighbour begins with too, for at least half of it; a token is left to each row."""
    stems = [row[:-1] for row in rows]
    start = 0
    for end in range(1, len(rows) + 1):
        if end < len(rows) and 2 * common(rows[start : end + 1]) >= max(map(len, rows[start : end + 1])):
            continue
        alike = min(common(rows[start:end]), min(map(len, rows[start:end])) - 1)
        stems[start:end] = [row[:alike] for row in rows[start:end]]
        start = end
    return stems


class _TextStop(StoppingCriteria):
    """Ends a row when one of some texts stands in what was generated, whatever tokens it is made of.

    Args:
        stops: the texts.
        start: tokens of the prompt.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], start: int) -> None:
        self.tokenizer, self.stops, self.start = tokenizer, stops, start
        self.width = max(map(len, stops)) + 1  # tokens that may hold the longest of them

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Any:
        """Return which rows end, ``(rows,)``."""
        last = input_ids[:, max(self.start, input_ids.shape[1] - self.width) :]
        texts = self.tokenizer.batch_decode(last)
        return torch.tensor([any(stop in text for stop in self.stops) for text in texts], device=input_ids.device)


def until_end(tokenizer: PreTrainedTokenizerBase, tokens: list[int], ends: Sequence[int], stops: Sequence[str]) -> list[int]:
    """The tokens of a continuation before its end; a token that holds the first of a text that ends it is cut.

    Args:
        tokenizer: decodes.
        tokens: that were generated.
        ends: tokens that end it, as `ends_of` returns them.
        stops: texts that end it, as `stops_at` returns them.
    """
    tokens = tokens[: next((k for k, token in enumerate(tokens) if token in ends), len(tokens))]
    text = str(tokenizer.decode(tokens))
    said = until(text, stops)
    if said == text:
        return tokens
    kept = next(k for k in range(len(tokens), -1, -1) if said.startswith(before := str(tokenizer.decode(tokens[:k]))))
    return [*tokens[:kept], *PromptFormat.of(tokenizer).text(said[len(before) :])]


def ends_of(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end a continuation, padding among them, in ascending order."""
    return sorted({*stops_of(model), *PromptFormat.of(tokenizer).stop_ids, tokenizer.pad_token_id} - {None})


def stops_at(tokenizer: PreTrainedTokenizerBase, how: Decoding) -> list[str]:
    """Texts that end a continuation: those of the prompt format, and those that were asked for."""
    return [*PromptFormat.of(tokenizer).stop_strings, *how.stop]


def stops_of(model: nn.Module) -> list[int]:
    """Tokens at which the generation configuration of a model stops."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


@contextmanager
def contiguous_head(model: nn.Module) -> Iterator[None]:
    """Give the output head contiguous hidden states inside the block.

    Of the last tokens of a batch, a strided view, `torch.matmul` makes a batched product with a copy of a frozen head for
    each row: 32 copies of SmolLM2's took 10 seconds and 1.8 GB on one core.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    try:
        yield
    finally:
        handle.remove()


def _prefix(model: nn.Module, prompts: Sequence[Sequence[int]]) -> list[int]:
    """The tokens that all prompts begin with, where it is worth it and exact to read them once."""
    prefix = list(prompts[0][: common([prompt[:-1] for prompt in prompts])]) if len(prompts) > 2 else []
    return prefix if len(prefix) >= MIN_SHARED_PREFIX and caches_exactly(model) else []


def _cached(model: nn.Module, prefix: Sequence[int]) -> DynamicCache:
    cache = growing_cache(model)
    assert cache is not None  # all layers are attention
    ids = torch.tensor([prefix], device=next(model.parameters()).device)
    read(model, ids, torch.ones_like(ids), cache)
    return cache


def caches_exactly(model: nn.Module) -> bool:
    """Whether tokens may be read before `generate` is called, as often as this rank needs it: where all layers keep keys and
    values of each token, and nothing else."""
    return reach(model) == math.inf and not is_zero3()


def read(model: nn.Module, ids: Tensor, mask: Tensor, cache: DynamicCache) -> None:
    """Add the keys and values of left-padded tokens ``(rows, time)`` to a cache that holds the first of them."""
    known = cache.get_seq_length()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, known:]
    options: dict[str, Any] = {"use_cache": True, "logits_to_keep": 1}
    with contiguous_head(model):
        model(ids[:, known:], attention_mask=mask, position_ids=positions, past_key_values=cache, **options)
