"""What of a night's items is computed before the first step, and once: tokens, the teacher's targets, what frozen layers make.

    prepared = Preparation(model, backbone, head, tokenizer, seeding).prepare(items, drawn, teacher_prompt, teacher_view, unslept)

Targets and frozen layers are computed for the items that the night's batches draw, and for no others; each item by one process,
and known to all then.  The teacher of general items is the unslept model, of all others the one before tonight.  Passes take
rows of similar length.
The shortcuts of packing.py are compared with the plain computation, and used only where they equal it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch
from accelerate import PartialState
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from sleepkit.language.generation.batches import room_of
from sleepkit.language.generation.chat import require_window
from sleepkit.language.generation.prompts import PromptFormat
from sleepkit.language.models.decoder import without_masks
from sleepkit.language.models.zero3 import is_zero3, passes_in_step
from sleepkit.language.questions.examples import SyntheticExample
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.language.seeding.divergence import OutputHead, TeacherTargets, token_log_probs
from sleepkit.language.seeding.packing import (
    Backbone,
    PackedBatch,
    PreparedItem,
    agrees,
    common_prefix,
    flat_hidden,
    pack,
    pad_rows,
)
from sleepkit.reporting.live import progress
from sleepkit.utils.ranks import gathered_rows, shares

PASS_TOKENS = (
    4096  # in one pass without gradients, on a CPU: enough to keep the cores busy, few enough to stay below a step's peak
)
View = Callable[[], AbstractContextManager[None]]
logger = logging.get_logger(__name__)


class Preparation:
    """Makes `PreparedItem`s of items, and batches of those.

    Args:
        seeding: its shortcuts are switched off here where they are not exact.
        keeps_lower: whether frozen layers run once an item, if ``seeding`` wants it; False where they are sharded.
        kept: items as they were prepared before, with the same settings; general ones that are missing are added.
    """

    def __init__(
        self,
        model: nn.Module,
        backbone: Backbone,
        head: OutputHead,
        tokenizer: PreTrainedTokenizerBase,
        seeding: KnowledgeSeedingConfig,
        keeps_lower: bool = True,
        kept: dict[SyntheticExample, PreparedItem] | None = None,
    ) -> None:
        self.model, self.backbone, self.head = model, backbone, head
        self.tokenizer, self.seeding = tokenizer, seeding
        self.keeps_lower = keeps_lower and backbone.enters_above
        self.kept = {} if kept is None else kept
        self.prefix = 0  # tokens that all prompts begin with

    def prepare(
        self,
        items: Sequence[SyntheticExample],
        drawn: Collection[int],
        teacher_prompt: Callable[[SyntheticExample], list[int]],
        teacher_view: View,
        unslept_view: View,
    ) -> list[PreparedItem]:
        """Tokenise items, run the teacher once, and keep what enters the first expert layer; call it on all processes.

        Args:
            items: of the night.
            drawn: indices of those that some batch holds.
            teacher_prompt: returns the tokens that the teacher reads before an item's reply.
            teacher_view: inside it the model is the teacher.
            unslept_view: inside it the model is the unslept one, which teaches general items.

        Returns:
            The items in their order, those that are drawn and all general ones with the teacher's targets.
        """
        prepared = [self.tokenised(item) for item in items]
        if self.seeding.packing and not self.backbone.packs(prepared):
            self._switch_off("packing", _why_not(self.backbone, prepared))
        if self.seeding.cache_frozen_layers and self.backbone.first and not self.backbone.enters_above:
            self._switch_off("cache_frozen_layers", "takes the kind of a layer from its number, so none can be left out")
        wanted = set(drawn)
        self.prefix = common_prefix(prepared) if self.seeding.packing else 0
        for general, view in ((True, unslept_view), (False, teacher_view)):  # apart, so that others change no bit
            chosen = [i for i, item in enumerate(items) if (item.style == "general") == general]
            if not general or wanted.isdisjoint(chosen):  # of general ones all, as they are kept for later nights
                chosen = [i for i in chosen if i in wanted]
            if all(items[i] in self.kept for i in chosen):
                for i in chosen:
                    prepared[i] = self.kept[items[i]]
                continue
            self.run_teacher([prepared[i] for i in chosen], [teacher_prompt(items[i]) for i in chosen], view)
            self.keep_lower([prepared[i] for i in chosen])
            if general:
                self.kept.update((items[i], prepared[i]) for i in chosen)
        return prepared

    def tokenised(self, item: SyntheticExample) -> PreparedItem:
        """Return an item as tokens, without targets."""
        prompts = PromptFormat.of(self.tokenizer)
        prompt, reply = prompts.prompt(item.prompt), prompts.reply(item.reply)
        if item.style == "general":
            reply = reply[: self.seeding.general_tokens]
        if item.style != "general" or len(reply) < self.seeding.general_tokens:
            reply = [*reply, *prompts.end]
        first = min(self.seeding.mask_first_tokens, len(reply) - 1) if item.is_learned else 0
        return PreparedItem(prompt, reply, item.is_learned, first_token=first)

    @torch.no_grad()
    def run_teacher(
        self, prepared: Sequence[PreparedItem], prompts: Sequence[list[int]], view: View, sampled: bool = False
    ) -> None:
        """Note what the model says of each reply after its prompt.

        Where the reply is all that counts (``reply_weight`` 1) the model is not asked.

        Args:
            prepared: items with their replies; the targets are noted at them.
            prompts: tokens that stand before each reply.
            view: inside it the model is the teacher.
            sampled: the replies are the student's own, and nothing of them is mixed into the targets.
        """
        weights = [self.seeding.reply_weight if item.is_learned and not sampled else 0.0 for item in prepared]
        asked = [i for i, weight in enumerate(weights) if weight < 1]
        longest = max((len(prompts[i]) + len(prepared[i].reply_ids) for i in asked), default=0)
        require_window(self.model, longest, "a teacher prompt with its reply")

        def targets(chosen: Sequence[int], hidden: Tensor) -> dict[str, Tensor]:
            items = [prepared[i] for i in chosen]
            leaning = torch.tensor([weights[i] for i in chosen]).repeat_interleave(torch.tensor(list(map(_learned, items))))
            made = TeacherTargets.from_hidden(
                hidden, self.head, self.seeding.top_k, self.seeding.chunk_size, self.reply_tokens(items), leaning
            )
            return (made.leaning() if any(weights) else made).tensors()

        def heard(chosen: Sequence[int]) -> dict[str, Tensor]:
            items = [replace(prepared[i], prompt_ids=prompts[i], lower=None) for i in chosen]
            rows = pad_rows(items, self.pad, self.device)
            return targets(chosen, flat_hidden(self.backbone.hidden(rows), rows))

        def told(chosen: Sequence[int]) -> dict[str, Tensor]:
            """These items use the worked reply only, so their teacher states are never read; zeros stand in their place."""
            shape = sum(_learned(prepared[i]) for i in chosen), self.head.weight.shape[1]
            return targets(chosen, torch.zeros(shape, dtype=self.backbone.dtype, device=self.device))

        lengths = [len(prompt) + len(item.reply_ids) for prompt, item in zip(prompts, prepared, strict=True)]
        counts = list(map(_learned, prepared))
        with self._evaluating(), view():
            with progress.phase(None if sampled else "asking the teacher", len(asked)) as step:
                found = self._of_each(asked, lengths, counts, heard, step)
            found |= self._of_each([i for i, weight in enumerate(weights) if weight == 1], counts, counts, told)
        for i, tensors in found.items():
            prepared[i].teacher = TeacherTargets(**tensors)

    def _of_each(
        self,
        chosen: Sequence[int],
        lengths: Sequence[int],
        counts: Sequence[int],
        run: Callable[[Sequence[int]], dict[str, Tensor]],
        step: Callable[[int], object] = lambda _: None,
    ) -> dict[int, dict[str, Tensor]]:
        """Rows of each chosen item, which one process computes and all know; as views of one tensor, as many small ones among
        large temporaries scatter the heap.

        Args:
            chosen: indices of items.
            lengths: tokens that are read, of all items.
            counts: rows that come out, of all items.
            run: returns rows by name for the items of a pass, those of one after those of another.
            step: is told how many are done.
        """
        if not chosen:
            return {}
        order = sorted(chosen, key=lengths.__getitem__)
        dealt = [[order[k] for k in share] for share in shares([lengths[i] for i in order])]
        of_rank = [sum(counts[i] for i in share) for share in dealt]
        most = self._pass_tokens()
        mine = list(padded_passes(dealt[PartialState().process_index], lengths, most))
        made = []
        for batch in passes_in_step(dealt, lambda share: list(padded_passes(share, lengths, most))):
            made.append(run(batch))
            step(len(batch))
        made = made or [run(order[:1])]  # more processes than items: this one tells what rows are like
        own = made[: len(mine)] or [{name: rows[:0] for name, rows in made[0].items()}]
        found = {name: gathered_rows(torch.cat([rows[name] for rows in own]), of_rank) for name in own[0]}
        order = [i for share in dealt for i in share]
        parts = {name: rows.split([counts[i] for i in order]) for name, rows in found.items()}
        return {i: {name: rows[k] for name, rows in parts.items()} for k, i in enumerate(order)}

    def _pass_tokens(self) -> int:
        """Tokens of a pass: by the memory that is free on a GPU, unless all processes have to run the same passes."""
        return PASS_TOKENS if self.device.type != "cuda" or is_zero3() else room_of(self.model, 1).read

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(was_training)

    @torch.no_grad()
    def keep_lower(self, prepared: Sequence[PreparedItem]) -> None:
        """Keep what enters the first expert layer, if that may be kept."""
        if not (self.keeps_lower and self.seeding.cache_frozen_layers):
            return

        def run(chosen: Sequence[int]) -> dict[str, Tensor]:
            rows = pad_rows([prepared[i] for i in chosen], self.pad, self.device)
            return {"lower": self.backbone.lower_inputs(rows)[rows.learned_tokens | rows.other_tokens]}  # without padding

        lengths = [len(item.sequence) for item in prepared]
        with self._evaluating():
            for i, rows in self._of_each(range(len(prepared)), lengths, lengths, run).items():
                prepared[i].lower = rows["lower"]

    @torch.no_grad()
    def note_log_probs(self, prepared: Sequence[PreparedItem]) -> None:
        """Note how likely the model as it is now holds each token of the replies."""

        def run(chosen: Sequence[int]) -> dict[str, Tensor]:
            items = [prepared[i] for i in chosen]
            batch = self.collate(items)
            hidden = flat_hidden(self.backbone.hidden(batch), batch)
            return {"own": token_log_probs(hidden, self.head, self.reply_tokens(items), self.seeding.chunk_size)}

        lengths, counts = [len(item.sequence) for item in prepared], list(map(_learned, prepared))
        for i, rows in self._of_each(range(len(prepared)), lengths, counts, run).items():
            prepared[i].old_log_probs = rows["own"]

    def check_shortcuts(self, prepared: Sequence[PreparedItem]) -> None:
        """Compare packed rows and cached layers with the plain computation on a few items; use them only if equal."""
        longest = max(prepared, key=lambda item: len(item.sequence))  # the one to leave a sliding window
        sample = [*prepared[:2], longest, *prepared[-2:]]
        plain = pad_rows([replace(item, lower=None) for item in sample], self.pad, self.device)
        with torch.no_grad(), self._evaluating(), self.backbone.without_experts():
            expected = flat_hidden(self.backbone.hidden(plain), plain)
            for shortcut in ("cache_frozen_layers", "packing"):
                if not getattr(self.seeding, shortcut):
                    continue
                batch = self.collate(sample) if shortcut == "packing" else pad_rows(sample, self.pad, self.device)
                if not agrees(self.backbone, batch, expected):
                    if shortcut == "cache_frozen_layers":
                        for item in prepared:
                            item.lower = None
                        self.kept.clear()
                    self._switch_off(shortcut, "gives other numbers than rows of their own")

    def _switch_off(self, shortcut: str, why: str) -> None:
        setattr(self.seeding, shortcut, False)
        logger.warning(f"{shortcut} is off: {type(self.backbone.decoder).__name__} {why}")

    def collate(self, items: Sequence[PreparedItem]) -> PackedBatch:
        """Return the items of one step as tensors."""
        if self.seeding.packing:
            return pack(items, self.prefix, self.backbone.dtype, self.device, self.backbone.reads_masks)
        return pad_rows(items, self.pad, self.device)

    def reply_tokens(self, items: Sequence[PreparedItem]) -> Tensor:
        """Those that carry a loss, of all items, ``(n,)``."""
        return torch.tensor([t for item in items for t in item.reply_ids[item.first_token :]], device=self.device)

    @property
    def pad(self) -> int:
        """Id of the padding token; 0 where the tokenizer has none."""
        return self.tokenizer.pad_token_id or 0

    @property
    def device(self) -> torch.device:
        """Device of the model's weights."""
        return self.backbone.device


def _why_not(backbone: Backbone, items: Sequence[PreparedItem]) -> str:
    """What about the layers forbids packing these items."""
    if backbone.reach:
        longest = max(len(item.sequence) for item in items)
        return f"has layers that look back {backbone.reach:g} tokens, and the longest item has {longest}"
    return f"{without_masks(backbone.decoder)}, which no mask keeps apart"


def _learned(item: PreparedItem) -> int:
    """Reply tokens that carry a loss."""
    return len(item.reply_ids) - item.first_token


def padded_passes(order: Sequence[int], lengths: Sequence[int] | Mapping[int, int], most: int) -> Iterator[list[int]]:
    """Cut items in the order of their lengths, so many at a time that rows padded to the longest hold ``most`` tokens."""
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * lengths[i] > most:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
