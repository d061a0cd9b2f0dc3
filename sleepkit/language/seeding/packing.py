"""From items to one row of tensors, with nothing computed twice that could be kept.

Three savings, each exact and each checked against the plain computation before the first step (`check_shortcuts`):

    shared prefix     all chat prompts begin with the same tokens (system message, user header); they stand once per row
    packing           the items follow one another in a row; a mask lets each see the prefix and itself, nothing else,
                      and attention is computed for these blocks alone (attention.py)
    frozen layers     no parameter below the first expert layer trains, so what enters that layer is kept per item

With prefix P and items a, b the row is ``P a a a b b b``, positions ``0..p-1 p.. p..``, and token i sees token j if
j <= i and (j in P or item(i) == item(j)).  That is said by a mask, so packing is for models all of whose layers are attention;
where attention slides, the window must hold an item.

Left out: flash attention's variable-length kernels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.models.decoder import find_decoder, find_decoder_layers, reach, without_adapter
from sleepkit.language.seeding.attention import TAKEN, Blocks, attend_in_blocks, bind, blocks_of, placeholder
from sleepkit.language.seeding.divergence import TeacherTargets
from sleepkit.utils.precision import close

T = TypeVar("T")


@dataclass
class PreparedItem:
    """An item as tokens, with what the teacher said about its reply.

    The student's sequence is ``prompt_ids + reply_ids[:-1]``; its last ``len(reply_ids)`` positions predict the reply.
    """

    prompt_ids: list[int]
    reply_ids: list[int]
    is_learned: bool
    teacher: TeacherTargets | None = None
    lower: Tensor | None = None  # (len(sequence), d): input of the first expert layer
    first_token: int = 0  # reply tokens before it carry no loss
    old_log_probs: Tensor | None = None  # (len(reply),) for rollouts
    advantage: float | None = None

    @property
    def sequence(self) -> list[int]:
        """Tokens that the student reads: the prompt, and the reply up to its last token."""
        return self.prompt_ids + self.reply_ids[:-1]


@dataclass
class PackedBatch:
    """Tensors of one step.  ``rows`` is 1 when packed."""

    ids: Tensor  # (rows, time)
    positions: Tensor  # (rows, time)
    mask: Tensor  # (rows, 1, time, time) additive when packed (or one number, where blocks are enough), else (rows, time)
    lower: Tensor | None  # (rows, time, d)
    predicts: Tensor  # (n,) flat index of the positions that predict a reply token
    item_of: Tensor  # (n,) index of the item of each of them
    learned_tokens: Tensor  # (rows, time) bool: belongs to an item that is learned
    other_tokens: Tensor  # (rows, time) bool: belongs to a general or replayed item, or to the prefix
    blocks: Blocks | None = None  # of a packed row

    @property
    def n_tokens(self) -> int:
        """Tokens that pass through the model."""
        return int((self.learned_tokens | self.other_tokens).sum())


def common_prefix(items: Sequence[PreparedItem]) -> int:
    """Number of tokens that all prompts share at their beginning (at least one token is left to each)."""
    return len(os.path.commonprefix([item.prompt_ids[:-1] for item in items]))


def pack(items: Sequence[PreparedItem], prefix: int, dtype: torch.dtype, device: torch.device, dense: bool = True) -> PackedBatch:
    """All items in one row behind their common prefix; arguments as for `pack_rows`."""
    return pack_rows([items], prefix, 0, dtype, device, dense)


def pack_rows(
    groups: Sequence[Sequence[PreparedItem]],
    prefix: int,
    pad_id: int,
    dtype: torch.dtype,
    device: torch.device,
    dense: bool = True,
) -> PackedBatch:
    """The items of each group in a row of their own behind its common prefix, right-padded.

    Args:
        groups: items of each row.
        prefix: tokens that all of them begin with.
        pad_id: fills rows up.
        dtype: of the mask.
        device: of all tensors.
        dense: write the mask out, ``time`` squared; False where attention goes by blocks alone.
    """
    lengths = [[len(item.sequence) - prefix for item in items] for items in groups]
    time = prefix + max(map(sum, lengths))
    ids = torch.full((len(groups), time), pad_id)
    positions = torch.zeros(len(groups), time, dtype=torch.int64)
    owner = torch.full((len(groups), time), -1)  # 0: the prefix, from 1: an item, -1: padding
    learned = torch.zeros(len(groups), time, dtype=torch.bool)
    predicts: list[int] = []
    item_of: list[int] = []
    for row, items in enumerate(groups):
        sequences = [items[0].prompt_ids[:prefix], *(item.sequence[prefix:] for item in items)]
        used = sum(map(len, sequences))
        ids[row, :used] = torch.tensor([token for sequence in sequences for token in sequence])
        owner[row, :used] = torch.tensor([k for k, sequence in enumerate(sequences) for _ in sequence])
        positions[row, :used] = torch.tensor([*range(prefix), *(prefix + k for s in sequences[1:] for k in range(len(s)))])
        learned[row, :used] = torch.tensor([False, *(item.is_learned for item in items)])[owner[row, :used]]
        end = row * time + prefix
        for item, length in zip(items, lengths[row], strict=True):
            end += length
            kept = len(item.reply_ids) - item.first_token
            predicts += range(end - kept, end)
            item_of += [item_of[-1] + 1 if item_of else 0] * kept
    lower = None
    if groups[0][0].lower is not None:
        parts = [
            torch.cat([items[0].lower[:prefix], *(item.lower[prefix:] for item in items if item.lower is not None)])
            for items in groups
            if items[0].lower is not None
        ]
        lower = nn.utils.rnn.pad_sequence(parts, batch_first=True).to(device)
    return PackedBatch(
        ids=ids.to(device),
        positions=positions.to(device),
        mask=_mask(owner, dtype).to(device) if dense else placeholder(len(groups), time, dtype, device),
        lower=lower,
        predicts=torch.tensor(predicts, device=device),
        item_of=torch.tensor(item_of, device=device),
        learned_tokens=learned.to(device),
        other_tokens=(~learned & (owner >= 0)).to(device),
        blocks=blocks_of(lengths, prefix, dtype, device),
    )


def _mask(owner: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive mask ``(rows, 1, time, time)`` of tokens by whose they are, ``(rows, time)``."""
    order = torch.arange(owner.shape[1])
    seen = ((owner[:, :, None] == owner[:, None]) | (owner[:, None] == 0)) & (order[None] <= order[:, None])
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def pad_rows(items: Sequence[PreparedItem], pad_id: int, device: torch.device) -> PackedBatch:
    """The plain form: one right-padded row per item."""
    sequences = [item.sequence for item in items]
    time = max(map(len, sequences))
    attention = torch.tensor([[1] * len(s) + [0] * (time - len(s)) for s in sequences], device=device)
    predicts, item_of = [], []
    for i, (item, sequence) in enumerate(zip(items, sequences, strict=True)):
        kept = len(item.reply_ids) - item.first_token
        predicts += [i * time + k for k in range(len(sequence) - kept, len(sequence))]
        item_of += [i] * kept
    learned = torch.tensor([item.is_learned for item in items], device=device)[:, None]
    lower = None
    if items[0].lower is not None:
        lower = nn.utils.rnn.pad_sequence([item.lower for item in items if item.lower is not None], batch_first=True).to(device)
    return PackedBatch(
        ids=torch.tensor([s + [pad_id] * (time - len(s)) for s in sequences], device=device),
        positions=torch.arange(time, device=device).expand(len(items), -1),
        mask=attention,
        lower=lower,
        predicts=torch.tensor(predicts, device=device),
        item_of=torch.tensor(item_of, device=device),
        learned_tokens=attention.bool() & learned,
        other_tokens=attention.bool() & ~learned,
    )


class Backbone:
    """The decoder of a grown causal LM, whole or from the first expert layer on.

    Attributes:
        reach: tokens that each of its layers looks back by attention alone.
        first: the first layer with experts.
        shifts: whether the layers from there on are of other kinds than as many layers from the bottom.
        enters_above: whether what enters that layer may stand in for the layers below.
        reads_masks: False once all layers were seen to compute the attention of packed rows by their blocks alone (`agrees`).
    """

    def __init__(self, model: nn.Module, bank: ExpertBank) -> None:
        base = without_adapter(model)
        self.bank, self.reads_masks = bank, True
        self.decoder: Any = find_decoder(base)
        self.reach = reach(base)
        self.dtype: torch.dtype = next(self.decoder.parameters()).dtype
        self.first = bank.layers[0]
        self.all_layers = find_decoder_layers(base)
        self.upper_layers = nn.ModuleList(list(self.all_layers)[self.first :])
        self.holder, self.name = next(
            (module, name) for module in base.modules() for name, child in module.named_children() if child is self.all_layers
        )
        config: Any = self.decoder.config
        kinds: list[str] | None = getattr(config, "layer_types", None)
        self.shifts = kinds is not None and kinds[self.first :] != kinds[: len(kinds) - self.first]
        name = config.attribute_map.get("layer_types", "layer_types")
        self.enters_above = self.first > 0 and (not self.shifts or name in vars(config))

    @property
    def device(self) -> torch.device:
        """Device of the model's weights."""
        return next(self.decoder.parameters()).device

    def without_experts(self) -> AbstractContextManager[None]:
        """Hide all experts inside the block, to compare savings: their gates would make much of bfloat16's rounding."""
        return self.bank.view(())

    def in_blocks(self) -> AbstractContextManager[None]:
        """Compute the attention of packed rows block by block inside the block, backward passes included."""
        return attend_in_blocks(self.decoder.config)

    def packs(self, items: Sequence[PreparedItem]) -> bool:
        """Whether a mask can keep these items apart in one row, by what the layers are."""
        return max(len(item.sequence) for item in items) <= self.reach

    def hidden(self, batch: PackedBatch) -> Tensor:
        """Last hidden states, ``(rows, time, d)``.  A training stands inside `in_blocks`, for its backward passes."""
        inputs = {"input_ids": batch.ids} if batch.lower is None else {"inputs_embeds": batch.lower}
        layers = self.all_layers if batch.lower is None else self.upper_layers
        if batch.mask.ndim == 4:
            bind(batch.mask, batch.blocks)
        with self._layers(layers), self.in_blocks():
            return self.decoder(
                **inputs, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
            ).last_hidden_state

    @torch.no_grad()
    def lower_inputs(self, batch: PackedBatch) -> Tensor:
        """Return what enters the first expert layer, ``(rows, time, d)``."""
        caught: list[Tensor] = []

        def catch(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            caught.append(args[0] if args else kwargs["hidden_states"])

        handle = self.all_layers[self.first].register_forward_pre_hook(catch, with_kwargs=True)
        try:
            with self._layers(nn.ModuleList(list(self.all_layers)[: self.first + 1])):
                self.decoder(input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False)
        finally:
            handle.remove()
        return caught[0]

    @contextmanager
    def _layers(self, layers: nn.ModuleList) -> Iterator[None]:
        if layers is self.all_layers:
            yield
            return
        config: Any = self.decoder.config
        kinds = config.layer_types if layers is self.upper_layers and self.shifts else None
        setattr(self.holder, self.name, layers)
        try:
            if kinds is not None:
                config.layer_types = kinds[self.first :]  # decoders look up masks by the index in the list of layers
            yield
        finally:
            setattr(self.holder, self.name, self.all_layers)
            if kinds is not None:
                config.layer_types = kinds


def flat_hidden(hidden: Tensor, batch: PackedBatch) -> Tensor:
    """Hidden states of the predicting positions, ``(n, d)``."""
    return hidden.reshape(-1, hidden.shape[-1])[batch.predicts]


def agrees(backbone: Backbone, batch: PackedBatch, expected: Tensor) -> bool:
    """True if a batch gives these hidden states ``(n, d)``; False too for a model that cannot take it.

    Of a packed one it is noted whether its mask was read.
    """
    TAKEN.clear()
    try:
        found = backbone.hidden(batch)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return False
    if batch.blocks is not None:
        backbone.reads_masks = len(set(TAKEN)) < len(backbone.upper_layers if batch.lower is not None else backbone.all_layers)
    TAKEN.clear()
    return close(flat_hidden(found, batch), expected)


@torch.no_grad()
def packs_exactly(backbone: Backbone, items: Sequence[PreparedItem], pad_id: int) -> bool:
    """True if packed rows of these items give what padded ones give: by what the layers are, and by trying it."""
    if not backbone.packs(items):
        return False
    packed = pack_rows([items], common_prefix(items), pad_id, backbone.dtype, backbone.device)
    padded = pad_rows(items, pad_id, backbone.device)
    with backbone.without_experts():
        return agrees(backbone, packed, flat_hidden(backbone.hidden(padded), padded))


def through_wrapper(wrapped: nn.Module, method: Callable[[T], Tensor], batch: T) -> Tensor:
    """Run ``method`` inside the forward of DDP, FSDP or DeepSpeed, so that their hooks see it (as Lightning and TRL do)."""
    inner = wrapped.module if hasattr(wrapped, "module") and isinstance(wrapped.module, nn.Module) else None
    if inner is None:
        return method(batch)
    original = inner.forward

    def forward(_: T) -> Tensor:
        inner.forward = original
        return method(batch)

    inner.forward = forward
    try:
        return wrapped(batch)
    finally:
        inner.forward = original
