"""Lets the night's own code write and ask with a model that says the same to everything, and notes what it was asked to do.

    with standing_in(blank) as calls:
        generate(blank.model, tokenizer, prompts, 48)
    calls[0].batches            rows and tokens of each batch, as `generate` has put them together

So the plan counts the prompts, batches, shared beginnings and windows of the code that will run, and not of a copy of it.
Each row is taken to be written to its limit: a batch ends when its longest row does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sleepkit.language.generation.chat import text_ids

if TYPE_CHECKING:
    from sleepkit.language.plan.blank import BlankModel

__all__ = ["Batch", "Call", "standing_in"]

SAID = " and"  # over and over; a reply that is never empty, and passes none of the checks of what the model writes


@dataclass(frozen=True)
class Batch:
    """Tokens of one batch.

    Attributes:
        rows: that are written, or read.
        past: tokens of each row that were read before.
        read: tokens of each row that are read now.
        written: tokens of each row that are written then, one after the other.
        heads: tokens of each row whose logits are computed while it is read.
        compared: tokens of each row whose distributions by two models are compared then.
    """

    rows: int
    past: int
    read: int
    written: int = 0
    heads: int = 1
    compared: int = 0

    @property
    def read_tokens(self) -> int:
        """Tokens that are read, of all rows."""
        return self.rows * self.read

    @property
    def written_tokens(self) -> int:
        """Tokens that are written, of all rows."""
        return self.rows * self.written


@dataclass
class Call:
    """One call of `generate`, or readings for logits between two of them (``is_reading``).

    Attributes:
        shared: what all prompts begin with, read once; None where that is not worth it.
        batches: one after the other.
        is_reading: nothing is written.
    """

    shared: Batch | None = None
    batches: list[Batch] = field(default_factory=list)
    is_reading: bool = False


@contextmanager
def standing_in(blank: BlankModel) -> Iterator[list[Call]]:
    """Let the blank model be asked inside the block; yields the calls, which grow while it is."""
    model: Any = blank.model
    found = _StandIn(model, text_ids(blank.tokenizer, SAID)[-1])
    model.register_parameter("stand_in", nn.Parameter(torch.zeros(0), requires_grad=False))
    model._parameters = {"stand_in": model._parameters["stand_in"], **model._parameters}  # the first says the device: the CPU
    model.generate, model.forward, model.eval = found.generate, found.forward, found.begin
    try:
        yield found.calls
    finally:
        del model.generate, model.forward, model.eval, model._parameters["stand_in"]


class _StandIn:
    """What takes the place of the model's own methods."""

    def __init__(self, model: Any, token: int) -> None:
        self.model, self.token = model, token
        self.vocabulary = model.config.get_text_config().vocab_size
        self.calls: list[Call] = []
        self.shared: Batch | None = None  # of the call that comes

    def begin(self) -> Any:
        """Stand for ``eval``, with which each generation begins once it has read what its prompts share."""
        self.calls.append(Call(self.shared))
        self.shared = None
        return self.model

    def generate(self, input_ids: Tensor, past_key_values: Any = None, max_new_tokens: int = 0, **options: Any) -> Any:
        """Say the same, and note the batch."""
        rows, width = input_ids.shape
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if options.get("return_dict_in_generate"):  # a hybrid is asked whether it pads exactly: planned as one that does
            return SimpleNamespace(logits=[torch.zeros(rows, self.vocabulary)] * max_new_tokens)
        self.calls[-1].batches.append(Batch(rows, past, width - past, max_new_tokens))
        return torch.cat([input_ids, torch.full((rows, max_new_tokens), self.token)], dim=1)

    def forward(self, input_ids: Tensor, past_key_values: Any = None, logits_to_keep: int = 1, **_: Any) -> Any:
        """Note what is read; a cache then holds as many tokens, of one number each."""
        rows, width = input_ids.shape
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        batch = Batch(rows, past, width, 0, logits_to_keep)
        if past_key_values is None:
            self._reading().batches.append(batch)
        else:
            for k in range(len(past_key_values.layers)):
                past_key_values.update(torch.zeros(rows, 1, width, 1), torch.zeros(rows, 1, width, 1), k)
            if past or (self.calls and not self.calls[-1].batches):  # rows that are alike are read once
                self.calls[-1].batches.append(batch)
            else:
                self.shared = batch
        return SimpleNamespace(logits=torch.zeros(1, 1, 1).expand(rows, logits_to_keep, self.vocabulary))

    def _reading(self) -> Call:
        """The call that readings without a cache belong to."""
        if not self.calls or not self.calls[-1].is_reading:
            self.calls.append(Call(is_reading=True))
        return self.calls[-1]
