"""A key-value cache with room to spare: what is new is written in place, instead of copying all that is there each step.

With a batch of 64 rows on a CPU that copy took a quarter of the time of decoding.  Layers with sliding windows are left as
transformers makes them, and so is all of a model with layers of other kinds.  For inference: no gradient flows through what is
written in place.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from sleepkit.language.models.decoder import reach

SPARE = 64  # tokens


def growing_cache(model: nn.Module) -> DynamicCache | None:
    """An empty cache for a model; None where it is left to the model to make one, as not all its layers are attention."""
    if not reach(model):
        return None
    cache = DynamicCache(config=model.config)  # type: ignore[arg-type]
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class GrowingLayer(DynamicLayer):
    """Keys and values are views of larger tensors, as long as nobody replaces them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rooms: dict[str, Tensor] = {}

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """Append states ``(rows, heads, new, d)``; returns all, ``(rows, heads, time, d)``."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = self._append("keys", self.keys, key_states), self._append("values", self.values, value_states)
        return self.keys, self.values

    def _append(self, name: str, old: Tensor | None, new: Tensor) -> Tensor:
        n = old.shape[-2] if old is not None and old.numel() else 0
        end = n + new.shape[-2]
        room = self.rooms.get(name)
        if room is None or old is None or n == 0 or room.shape[-2] < end or room.data_ptr() != old.data_ptr():
            room = self.rooms[name] = new.new_empty(*new.shape[:-2], end + SPARE, new.shape[-1])
            if old is not None and n:
                room[..., :n, :] = old
        room[..., n:end, :] = new
        return room[..., :end, :]
