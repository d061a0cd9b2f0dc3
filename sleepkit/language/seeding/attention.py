"""Attention of packed rows, block by block: each item sees its row's prefix and itself, and nothing else is computed.

    row P a a a b b b    ->    queries (blocks, longest), keys (blocks, prefix + longest);   P is a block of its own
    cost                 blocks * longest * (prefix + longest), summed over groups of blocks of about one length,
                         in place of time^2

Registered as an attention implementation of transformers, on only inside `attend_in_blocks` and only for models that
use "sdpa".  The blocks belong to the row's dense mask, which says the same: a layer that is run again in the backward pass
(activation checkpointing) gets that mask again, and so takes the same way; whatever runs with another mask takes SDPA.  A
training is inside `attend_in_blocks` from its first step to its last.  Where all layers are seen to go by blocks, nobody reads
the mask, and one number stands for all of it (`placeholder`).

Left out: softcaps and attention sinks, for which such models use other implementations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "sleepkit_blocks"
LONG = 256  # tokens from which on PyTorch's kernel is faster on a CPU
UNEVEN = 1.5  # a block this much longer than its group's shortest begins the next group


@dataclass
class BlockGroup:
    """Blocks that are computed together; places count through all rows, ``row * time + position``.

    Attributes:
        heads: ``(blocks * prefix,)`` places of the prefix that each block sees.
        tokens: ``(blocks * longest,)`` place of each token of each block; padding repeats the block's first.
        mask: ``(blocks, 1, longest, prefix + longest)`` additive.
    """

    heads: Tensor
    tokens: Tensor
    mask: Tensor


@dataclass
class Blocks:
    """Ranges of the blocks in packed rows.

    Attributes:
        groups: all blocks, from the shortest to the longest.
        places: ``(rows * time,)`` where each token is among those of all groups, one after another; padding repeats the row's
            first, so that rows have nothing to do with another.
    """

    groups: list[BlockGroup]
    places: Tensor


TAKEN: deque[nn.Module] = deque(maxlen=1024)  # layers of attention that went by blocks, the last ones
_OF_MASKS: WeakValueDictionary[int, Blocks] = WeakValueDictionary()  # by the address of the mask's values


def bind(mask: Tensor, blocks: Blocks | None) -> None:
    """Let attention with this mask, or with a view of it, go by ``blocks`` as long as the mask lives; by the mask, for None."""
    mask.sleepkit_blocks = blocks  # type: ignore[attr-defined]  # keeps them for as long
    address = mask.untyped_storage().data_ptr()
    if blocks is None:
        _OF_MASKS.pop(address, None)
    else:
        _OF_MASKS[address] = blocks


def placeholder(rows: int, time: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A mask ``(rows, 1, time, time)`` for `bind`, of one number in memory."""
    return torch.zeros(1, dtype=dtype, device=device).expand(rows, 1, time, time)


def blocks_of(lengths: Sequence[Sequence[int]], prefix: int, dtype: torch.dtype, device: torch.device) -> Blocks:
    """The blocks of rows that hold ``prefix`` tokens and then items of these lengths."""
    time = prefix + max(map(sum, lengths))
    blocks = []  # (row, start, length) of each, its prefix first in a row
    for row, sizes in enumerate(lengths):
        begins = [prefix + sum(sizes[:k]) for k in range(len(sizes))]
        blocks += [(row, 0, prefix)] * bool(prefix) + [(row, begin, size) for begin, size in zip(begins, sizes, strict=True)]
    groups, places, before = [], torch.full((len(lengths) * time,), -1), 0
    for alike in _of_one_length(blocks):
        row, start, length = torch.tensor(alike).T
        inside = torch.arange(int(length.max())) < length[:, None]
        longest, first = inside.shape[1], (row * time + start)[:, None]
        tokens = torch.where(inside, first + torch.arange(longest), first)  # (blocks, longest)
        places[tokens[inside]] = before + inside.flatten().nonzero()[:, 0]
        before += tokens.numel()
        causal = torch.ones(longest, longest, dtype=torch.bool).tril()
        seen = torch.cat([torch.ones(longest, prefix, dtype=torch.bool), causal], dim=1).repeat(len(alike), 1, 1)
        if prefix:
            seen[start == 0, :, :prefix] = False  # a prefix sees itself among its own tokens
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]
        heads = (row * time)[:, None] + torch.arange(prefix)
        groups.append(BlockGroup(heads.flatten().to(device), tokens.flatten().to(device), mask.to(device)))
    places = torch.where(places < 0, places[::time].repeat_interleave(time), places)
    return Blocks(groups, places.to(device))


def _of_one_length(blocks: Sequence[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    """Blocks (row, start, length) in groups, the longest of which is at most `UNEVEN` times as long as the shortest."""
    groups: list[list[tuple[int, int, int]]] = []
    for block in sorted(blocks, key=lambda block: block[2]):
        if not groups or block[2] > UNEVEN * groups[-1][0][2]:
            groups.append([])
        groups[-1].append(block)
    return groups


@contextmanager
def attend_in_blocks(config: PretrainedConfig) -> Iterator[None]:
    """Let a model of this configuration compute the attention of packed rows block by block, inside the block."""
    if config._attn_implementation != "sdpa":
        yield
        return
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"


def block_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Signature of transformers' attention functions: heads second in, ``(rows, time, heads, d)`` out."""
    blocks = None if attention_mask is None else _OF_MASKS.get(attention_mask.untyped_storage().data_ptr())
    rows, heads, time, _ = query.shape
    if blocks is None or rows * time != len(blocks.places):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **options)
    TAKEN.append(module)
    flat = [states.transpose(1, 2).flatten(0, 1) for states in (query, key, value)]  # (rows * time, heads, d)

    def attended(group: BlockGroup) -> Tensor:
        n = len(group.mask)

        def cut(states: Tensor, places: Tensor) -> Tensor:  # (rows * time, heads, d) -> (blocks, heads, each, d)
            return states.index_select(0, places).view(n, len(places) // n, *states.shape[1:]).transpose(1, 2)

        def with_prefix(states: Tensor) -> Tensor:
            found = torch.cat([cut(states, group.heads), cut(states, group.tokens)], dim=2)
            return found.repeat_interleave(heads // states.shape[1], dim=1)

        q, k, v = flat
        found = _attend(cut(q, group.tokens), with_prefix(k), with_prefix(v), group.mask, dropout, scaling)
        return found.transpose(1, 2).flatten(0, 1)

    found = torch.cat([attended(group) for group in blocks.groups])
    return found.index_select(0, blocks.places).view(rows, time, heads, -1), None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: float, scaling: float | None) -> Tensor:
    """SDPA; for short blocks on a CPU spelled out, where its kernel's backward pass takes two to four times as long.

    Long ones are faster by the kernel, which does not keep the scores, of which there are ``longest`` squared.
    """
    if query.device.type != "cpu" or dropout or query.shape[2] >= LONG:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling) + mask
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype) @ value


AttentionInterface.register(NAME, block_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
