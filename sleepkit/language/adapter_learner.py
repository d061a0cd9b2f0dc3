"""A learner whose fast level is a LoRA that another trainer trains awake, on rows of tokens; a night moves it into an expert.

    awake     somebody's `Trainer` trains the LoRA on rows (prompt, reply)
    asleep    teacher p( . | x, y_<t)  LoRA on;   student q( . | x, y_<t)  LoRA off, tonight's expert on            for these rows
    test      exp(mean log q(y_t))     of rows, LoRA off: mean probability of a token, from 0 to 1

Rows are tokens as they were trained on, not chats: a prompt ends where the first label begins; without a prompt the first token
is one.  Rows of earlier nights are replayed.  The test asks about rows that the night learns, as the LoRA is reset afterwards and
what is held out would be lost: it says how much of it the expert has taken over.

Ours: all of it; the night is that of seeding/fast_adapter.py.  Left out: dreams, and replies in several parts (of chats whose
user turns carry no loss, all between the first and the last label is one reply).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from sleepkit.language.config import LearnerConfig
from sleepkit.language.data.experience import Size, word_count
from sleepkit.language.day import Day
from sleepkit.language.generation.chat import reply_log_probs
from sleepkit.language.learner import LanguageLearner
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.questions.words import matching_words
from sleepkit.language.rehearsal import Rehearsal
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.language.seeding.fast_adapter import AdapterSeedingTrainer
from sleepkit.language.seeding.packing import PreparedItem
from sleepkit.language.seeding.preparation import Preparation
from sleepkit.language.seeding.trainer import KnowledgeSeedingTrainer
from sleepkit.language.self_test import QUIZ_ITEMS, Answer, SelfTest
from sleepkit.utils.digests import digest
from sleepkit.utils.phases import digest_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import TrainerCallback

__all__ = ["AdapterLearner", "Row", "rows_of_batch"]

Row = tuple[str, str]  # prompt and reply, with their marks; an empty prompt: all of the row is learned
STYLE = "row"
IGNORED = -100  # the label of a token that carries no loss


def rows_of_batch(tokenizer: PreTrainedTokenizerBase, batch: Mapping[str, Tensor]) -> list[Row]:
    """The rows of a batch of a `Trainer`, in order.

    Args:
        batch: ``input_ids`` and ``labels`` ``(rows, time)``, and ``attention_mask`` of the same shape, or ``position_ids`` where
            several rows are packed into one.
    """
    ids, labels = batch["input_ids"].tolist(), batch["labels"].tolist()
    mask = batch["attention_mask"].tolist() if batch.get("attention_mask") is not None else [[1] * len(row) for row in ids]
    positions = batch.get("position_ids")
    starts = [[k for k, p in enumerate(row) if p == 0] for row in positions.tolist()] if positions is not None else []
    rows = []
    for number, (row, label, seen) in enumerate(zip(ids, labels, mask, strict=True)):
        edges = [*(starts[number] if starts else [0]), len(row)]
        for start, end in zip([0, *edges[1:-1]], edges[1:], strict=True):
            kept = [k for k in range(start, end) if seen[k]]
            learned = [k for k in kept if label[k] != IGNORED]
            if not learned or learned[-1] == kept[0]:
                continue
            first = learned[0] if learned[0] > kept[0] + 1 else kept[0]  # the first token never has a loss
            prompt = [row[k] for k in kept if k < first]
            reply = [row[k] for k in kept if first <= k <= learned[-1]]
            rows.append((_text(tokenizer, prompt) if prompt else "", _text(tokenizer, reply)))
    return rows


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _tokens(tokenizer: PreTrainedTokenizerBase, item: SyntheticExample) -> tuple[list[int], list[int]]:
    """Prompt and reply of a row, the first token for a prompt where there is none."""
    prompt, reply = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (item.prompt, item.reply))
    return (prompt, reply) if prompt else (reply[:1], reply[1:])


class _RowPreparation(Preparation):
    """Rows as they are; general prompts are chats."""

    def tokenised(self, item: SyntheticExample) -> PreparedItem:
        if item.style == "general":
            return super().tokenised(item)
        return PreparedItem(*_tokens(self.tokenizer, item), item.is_learned)


class _RowTrainer(KnowledgeSeedingTrainer):
    preparation_class = _RowPreparation

    def teacher_prompt(self, item: SyntheticExample) -> list[int]:
        """Return the tokens of the prompt that the student reads too: the teacher has the LoRA and needs no context."""
        return super().teacher_prompt(item) if item.style == "general" else _tokens(self.chat_tokenizer, item)[0]


class _AdapterRowTrainer(_RowTrainer, AdapterSeedingTrainer):
    """Teach rows to an expert; the teacher is the model with the LoRA on."""


class _RowRehearsal(Rehearsal):
    """Rows without a prompt outdate none but themselves."""

    def current(self, items: Iterable[SyntheticExample], tonight: Sequence[SyntheticExample] = ()) -> list[SyntheticExample]:
        rows = [item for item in tonight if item.style == STYLE]
        again = {(item.prompt, item.reply) for item in rows}
        others = (item for item in items if (item.prompt, item.reply) not in again)
        return super().current(others, [item for item in rows if item.prompt])


@dataclass
class _DayOfRows(Day):
    """The rows that the LoRA has learned since the last night."""

    rows: list[SyntheticExample] = field(default_factory=list)

    def words(self) -> set[str]:
        return {word for item in self.rows for word in matching_words(f"{item.prompt} {item.reply}")}


class _RowTest(SelfTest):
    """Test of rows by how likely the model holds them."""

    def answered(self, items: Sequence[SyntheticExample]) -> list[Answer]:
        """Return no words, and the mean probability of a token of each row."""
        return [("", math.exp(-loss)) for loss in losses(self.model, self.tokenizer, items)]


def losses(model: nn.Module, tokenizer: PreTrainedTokenizerBase, items: Sequence[SyntheticExample]) -> list[float]:
    """Mean negative log-likelihood of each row's reply, nats per token, of a model as it is now."""
    pairs = [_tokens(tokenizer, item) for item in items]
    training = model.training
    model.eval()
    found = [-row.mean().item() for row in reply_log_probs(model, tokenizer, pairs)]
    model.train(training)
    return found


class AdapterLearner(LanguageLearner):
    """Learner whose fast level is a LoRA that another trainer trains awake; a night moves what it knows into an expert.

    Args:
        adapted: model with the LoRA, whose base grows experts here.
        tokenizer: its tokenizer.
        seeding, config, general_prompts, callbacks: as `LanguageLearner` takes them.
    """

    day: _DayOfRows
    rehearsal_class = _RowRehearsal
    trainer_class = _RowTrainer

    def __init__(
        self,
        adapted: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        seeding: KnowledgeSeedingConfig,
        config: LearnerConfig,
        general_prompts: Sequence[str],
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        super().__init__(adapted.get_base_model(), tokenizer, seeding, config, general_prompts, callbacks=callbacks)
        self.adapted = adapted
        self.self_test = _RowTest(self.model, tokenizer, config)
        self.day = _DayOfRows()

    def meet(self, rows: Iterable[Row]) -> None:
        """Take the rows that the LoRA has learned since the last night, in place of those before; order does not matter."""
        items = [SyntheticExample(prompt, reply, "", STYLE) for prompt, reply in sorted(set(rows))]
        words = sum(word_count(item.prompt) + word_count(item.reply) for item in items)
        self.day = _DayOfRows(size=Size(len(items), words), rows=items)

    def loss(self, items: Sequence[SyntheticExample]) -> list[float]:
        """Mean negative log-likelihood of each row's reply, nats per token, of the model as it is now."""
        return losses(self.model, self.tokenizer, items)

    def sample(self) -> list[SyntheticExample]:
        """At most `QUIZ_ITEMS` of tonight's rows, spread evenly."""
        return self.day.rows[:: math.ceil(len(self.day.rows) / QUIZ_ITEMS)]

    def identity(self, night: int) -> dict[str, Any]:
        """Return what decides the night, with the rows and what the LoRA has made of them."""
        lora = {name: values.detach() for name, values in self.model.named_parameters() if ".lora_" in name}
        return super().identity(night) | {"rows": digest_of(self.day.rows), "adapter": digest(lora)[:16]}

    def _consolidate(self, items: Sequence[SyntheticExample], night: int, folder: Path) -> dict[str, Any]:
        slot = self.levels.take(night)
        return self._teach(partial(_AdapterRowTrainer, self.adapted), items, night, folder / "checkpoints", slot=slot)

    def _night_items(self, night: int, folder: Path) -> tuple[list[SyntheticExample], list[SyntheticExample]]:
        """All rows are learned; those of the test too."""
        items = self.written(folder / "examples.jsonl", self.tonight, lambda: self._all_items(night))
        self.rehearsal.general = self.rehearsal.general or [item for item in items if item.style == "general"]
        return items, self.sample()

    def write_items(self, night: int) -> list[SyntheticExample]:
        """Return the rows that the LoRA has learned since the last night."""
        return self.day.rows
