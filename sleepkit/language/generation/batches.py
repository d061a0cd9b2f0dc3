"""Which prompts are decoded together: by what they begin with and by length, and as many as there is memory for.

    in_order(prompts)        prompts that begin alike stand side by side, so that a batch reads their beginning once
    batches(...)             consecutive prompts, as many as there is `Room` for: on a CPU by constants, on a GPU by free memory

Padding on the left is hidden by the mask of attention.  A layer with a state of its own (Mamba, linear attention, convolutions)
must leave padding out by itself; whether it does is measured once a model, as it differs from family to family.  Where it does
not, only prompts of one length are decoded together.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from sleepkit.language.models.decoder import reach, text_config, without_adapter
from sleepkit.utils.precision import close

_MEASURED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
STEPS = 3  # tokens that are decoded to see: some families go wrong after the first
CACHED_AT_ONCE = 65536  # on a CPU: tokens whose keys and values are held, with what prompts share, of which each row has a copy
TOKENS_AT_ONCE = 8192  # on a CPU: tokens that are read at once; attention over long rows needs memory by the square
USED = 0.6  # share of a GPU's free memory that a batch may take, a third of it each for the caches, for reading, and for logits
COPIES = 4  # of a row's logits while a token is chosen, and of a token's widest activations while it is read

Prompts = Sequence[Sequence[int]]


class Room(NamedTuple):
    """How much may be in a batch: rows, tokens that are read, and tokens whose keys and values are held."""

    rows: int
    read: int
    held: int


def room_of(model: nn.Module, rows: int, places: int = 1) -> Room:
    """Return what a batch may hold: on a CPU by constants, on a GPU as much as fits into what is free of its memory.

    Args:
        model: that reads.
        rows: at most, on a CPU.
        places: of a row of which there are logits at once.
    """
    weights = next(model.parameters())
    if weights.device.type != "cuda":
        return Room(rows, TOKENS_AT_ONCE, CACHED_AT_ONCE)
    free, _ = torch.cuda.mem_get_info(weights.device)
    free += torch.cuda.memory_reserved(weights.device) - torch.cuda.memory_allocated(weights.device)  # torch keeps it for us
    part = USED * free / 3
    cached, read, logits = _bytes_of(text_config(model), weights.element_size())
    return Room(*(max(1, int(part / size)) for size in (places * logits, read, cached)))


def _bytes_of(config: Any, size: int) -> tuple[int, int, int]:
    """Bytes of a token's keys and values, of its activations while it is read, and of a row's logits.

    Args:
        config: of a decoder.
        size: bytes of a number.
    """
    heads = config.num_attention_heads
    hidden = config.hidden_size
    head = getattr(config, "head_dim", None) or hidden // heads
    of_keys = getattr(config, "num_key_value_heads", None) or heads
    widest = max(getattr(config, "intermediate_size", None) or 4 * hidden, heads * head)
    return 2 * config.num_hidden_layers * of_keys * head * size, COPIES * (hidden + widest) * size, COPIES * config.vocab_size * 4


def common(rows: Prompts) -> int:
    """Number of tokens that all rows begin with."""
    lists: list[Any] = list(rows)
    return len(os.path.commonprefix(lists))


def in_order(prompts: Prompts) -> list[list[int]]:
    """Places of the prompts in groups of those that begin alike for at least half of their length, the shortest group first.

    What all prompts begin with does not count.
    """
    skip = common(prompts)
    groups: list[list[int]] = []
    stem: list[int] = []
    for place in sorted(range(len(prompts)), key=lambda i: list(prompts[i])):
        own = list(prompts[place][skip:])
        alike = common([stem, own])
        longest = max(len(own), len(prompts[groups[-1][-1]]) - skip if groups else 0)
        if groups and 2 * alike >= longest:
            groups[-1].append(place)
            stem = stem[:alike]
        else:
            groups.append([place])
            stem = own
    return sorted(groups, key=lambda group: (max(len(prompts[i]) for i in group), group))


def costs_of(prompts: Prompts, groups: Sequence[Sequence[int]], new: int) -> list[int]:
    """Tokens that pass through the model for each prompt of each group in turn; what a group begins with counts once.

    Args:
        prompts: all of them.
        groups: of `in_order`.
        new: tokens that each is continued by.
    """
    skip = common(prompts)
    found: list[int] = []
    for group in groups:
        alike = common([prompts[i] for i in group])
        found += [len(prompts[i]) - (alike if k else skip) + new for k, i in enumerate(group)]
    return found


def batches(lengths: Sequence[int], shared: int, room: Room, of_one_length: bool) -> list[list[int]]:
    """Places of consecutive prompts that are decoded together.

    Args:
        lengths: tokens of each prompt and its continuation, without what all share.
        shared: tokens that all share.
        room: for a batch.
        of_one_length: put no prompts of different lengths together.
    """
    return list(_batches(lengths, shared, room, of_one_length))


def _batches(lengths: Sequence[int], shared: int, room: Room, of_one_length: bool) -> Iterator[list[int]]:
    order = sorted(range(len(lengths)), key=lengths.__getitem__) if of_one_length else range(len(lengths))
    batch: list[int] = []
    for place in order:
        rows, longest = len(batch) + 1, max(lengths[i] for i in [*batch, place])
        fits = rows <= room.rows and rows * longest <= room.read and rows * (shared + longest) <= room.held
        if batch and (not fits or (of_one_length and lengths[place] != lengths[batch[0]])):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def pads_exactly(model: nn.Module) -> bool:
    """Whether prompts of different lengths may be decoded together; measured once where layers carry states."""
    if reach(model):
        return True
    key = without_adapter(model)
    if key not in _MEASURED:
        _MEASURED[key] = _same_with_padding(model)
    return _MEASURED[key]


@torch.no_grad()
def _same_with_padding(model: Any) -> bool:
    """Decode a short prompt alone and beside a longer one, and compare its logits."""
    long, short = [k % model.config.get_text_config().vocab_size for k in range(11, 23)], [7, 5, 6, 9, 8]
    padding = [1] * (len(long) - len(short))
    ids = torch.tensor([long, padding + short], device=model.device)
    mask = torch.tensor([[1] * len(long), [0] * len(padding) + [1] * len(short)], device=model.device)
    was_training = model.training
    model.eval()
    found = [
        model.generate(
            input_ids=rows,
            attention_mask=seen,
            max_new_tokens=STEPS,
            do_sample=False,
            pad_token_id=1,
            output_logits=True,
            return_dict_in_generate=True,
        )
        for rows, seen in ((ids, mask), (ids[1:, len(padding) :], mask[1:, len(padding) :]))
    ]
    model.train(was_training)
    beside, alone = (torch.stack(one.logits[:STEPS])[:, -1] for one in found)  # (steps, vocab)
    steps = min(len(beside), len(alone))  # one of the two may have come to its end
    return close(beside[:steps], alone[:steps])
