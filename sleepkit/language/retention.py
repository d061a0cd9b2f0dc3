"""The retention set: has the night changed what it should not have touched?

    anchor_kl        mean over reply tokens of KL(unslept || now), nats; the reply is the unslept model's greedy one
    anchor_accuracy  share of its questions with a gold answer whose reply contains it

The unslept model is a view of the same weights with every expert masked.  The prompts of the set are never trained on.
Each process keeps the states of its share of the replies, and measures those.
Ours: the whole measure; the paper reports no retention.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from sleepkit.errors import SleepkitError
from sleepkit.language.data.columns import text_of
from sleepkit.language.data.given import given_rows
from sleepkit.language.data.row_files import file_rows
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.generation.chat import chat_ids, decode, generate
from sleepkit.language.generation.prompts import PromptFormat
from sleepkit.language.models.zero3 import passes_in_step, split_passes
from sleepkit.language.questions.languages import ENGLISH, language_of
from sleepkit.language.seeding.divergence import OutputHead, TeacherTargets, token_divergence
from sleepkit.language.seeding.packing import Backbone, PreparedItem, flat_hidden, pad_rows
from sleepkit.reporting.scores import contained
from sleepkit.utils.ranks import shares

_EXPECTED = "{prompt, answer?}"


def read_prompts(given: Any, name: str) -> list[dict[str, Any]]:
    """Read prompts, some of them with a gold answer, as rows ``{prompt, answer?}``.

    Args:
        given: a jsonl file, a list of prompts or of such rows, or None for those that come with the package.
        name: of the argument, "general_prompts" or "anchors".

    Raises:
        SleepkitError: unreadable, none, or a row without a prompt, with its line.
    """
    if given is None:
        given = str(files("sleepkit") / "data" / f"{name}.jsonl")
    rows = given_rows(given, name, "prompt")
    if rows is None:
        rows = file_rows(Path(given).expanduser())
    for place, row in rows:
        if not isinstance(row, Mapping):
            raise SleepkitError(f"{place} is a {type(row).__name__}; rows are {_EXPECTED}")
        text_of(row, "prompt", place, _EXPECTED)
        if row.get("answer"):
            text_of(row, "answer", place, _EXPECTED)
    if not rows:
        raise SleepkitError(f"{given} is empty; give at least one prompt")
    return [dict(row) for _, row in rows]


class RetentionSet:
    """Fixed set of general prompts with the unslept model's replies, prepared once and cheap to measure again.

    Args:
        prompts: rows ``{prompt, answer?}``, as `read_prompts` returns them.
        reply_tokens: tokens of a reply at most.
        batch_size: prompts that pass through the model at a time.
        compared_with: experts of the model that is compared with, in place of the unslept one.
    """

    def __init__(
        self,
        prompts: Sequence[dict[str, Any]],
        reply_tokens: int = 40,
        batch_size: int = 16,
        compared_with: Sequence[int] = (),
    ) -> None:
        self.prompts = list(prompts)
        self.reply_tokens = reply_tokens
        self.batch_size = batch_size
        self.compared_with = tuple(compared_with)
        self._items: list[PreparedItem] = []
        self.accuracy_before = float("nan")

    def prepare(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, bank: ExpertBank) -> None:
        """Let the model that is compared with reply, and keep its last hidden states (1 KB a token, not 100 KB of logits).

        Args:
            model: grown; it is asked with the experts ``compared_with`` alone.
            tokenizer: its tokenizer.
            bank: its experts.
        """
        prompts = [chat_ids(tokenizer, row["prompt"]) for row in self.prompts]
        with bank.view(self.compared_with):
            replies = generate(model, tokenizer, prompts, self.reply_tokens, description="anchors")
        end = PromptFormat.of(tokenizer).end
        self.accuracy_before = self._accuracy(tokenizer, replies)
        items = [
            PreparedItem(p, r + (end if len(r) < self.reply_tokens else []), False) for p, r in zip(prompts, replies, strict=True)
        ]
        self._items = sorted((item for item in items if item.reply_ids), key=lambda item: len(item.sequence))
        head, backbone = OutputHead.of(model), Backbone(model, bank)
        with torch.no_grad(), bank.view(self.compared_with):
            for chosen, hidden, item_of in self._hidden(model, tokenizer, backbone, passes_in_step(self._dealt(), self._cut)):
                for k, place in enumerate(chosen):
                    self._items[place].teacher = TeacherTargets.from_hidden(hidden[item_of == k], head)

    @torch.no_grad()
    def measure(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, bank: ExpertBank) -> dict[str, float]:
        """Measure how far the model, as it is now, has moved from the unslept one; arguments as for `prepare`.

        Returns:
            ``anchor_kl`` (nats per token of the unslept replies), ``anchor_accuracy`` (0 to 1) and ``anchor_n``, the number of
            questions that the accuracy is of.
        """
        asked = [chat_ids(tokenizer, row["prompt"]) for row in self.prompts if row.get("answer")]
        if not self._items:
            self.prepare(model, tokenizer, bank)
            if not bank.active:  # the model is the unslept one, which has just been asked
                return {"anchor_kl": 0.0, "anchor_accuracy": self.accuracy_before, "anchor_n": len(asked)}
        head, backbone = OutputHead.of(model), Backbone(model, bank)

        def work(passes: list[list[int]]) -> dict[int, tuple[float, int]]:
            found: dict[int, tuple[float, int]] = {}
            for chosen, hidden, item_of in self._hidden(model, tokenizer, backbone, passes):
                targets = TeacherTargets.cat([target for i in chosen if (target := self._items[i].teacher) is not None])
                divergence = token_divergence(hidden, head, targets)
                found |= {
                    place: (divergence[item_of == k].sum().item(), int((item_of == k).sum())) for k, place in enumerate(chosen)
                }
            return found

        sums = split_passes(self._dealt(), self._cut, work)
        count = sum(tokens for _, tokens in sums)
        replies = generate(model, tokenizer, asked, self.reply_tokens) if asked else []
        return {
            "anchor_kl": sum(total for total, _ in sums) / max(1, count),
            "anchor_accuracy": self._accuracy(tokenizer, replies, only_asked=True),
            "anchor_n": len(asked),
        }

    def _dealt(self) -> list[list[int]]:
        """Places of the replies of each process."""
        return shares([len(item.sequence) for item in self._items])

    def _cut(self, share: Sequence[int]) -> list[list[int]]:
        return [list(share[start : start + self.batch_size]) for start in range(0, len(share), self.batch_size)]

    def _hidden(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, backbone: Backbone, passes: Sequence[list[int]]
    ) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Places of the replies of each pass, hidden states ``(n, d)`` that predict their tokens, and whose each is ``(n,)``."""
        was_training = model.training
        model.eval()
        for chosen in passes:
            batch = pad_rows([self._items[i] for i in chosen], tokenizer.pad_token_id or 0, backbone.device)
            yield chosen, flat_hidden(backbone.hidden(batch), batch), batch.item_of
        model.train(was_training)

    def _accuracy(self, tokenizer: PreTrainedTokenizerBase, replies: Sequence[list[int]], only_asked: bool = False) -> float:
        rows = [row for row in self.prompts if row.get("answer")] if only_asked else self.prompts
        asked = [(row, decode(tokenizer, tokens)) for row, tokens in zip(rows, replies, strict=True) if row.get("answer")]
        hits = [contained(reply, row["answer"], language_of(row["prompt"], ENGLISH)) for row, reply in asked]
        return sum(hits) / len(hits) if hits else float("nan")
