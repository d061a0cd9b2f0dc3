"""The dreamer: a LoRA that is on only while the model dreams, and learns from the rewards of its dreams.

    rest_em   SFT on the dreams with reward > 0, each round from a fresh LoRA          ReST-EM (arXiv 2312.06585)
    grpo      clipped policy gradient, advantage = (reward - mean) / std of a context's dreams   GRPO (arXiv 2402.03300)

The prompt, with the context in view, carries no loss and is most of what is read, so a step reads it once for all its dreams of
one style.  Logits exist a chunk at a time.  SEAL (arXiv 2506.10943) and "Language Models Need Sleep" (arXiv 2606.03979) train
the dreamer by ReST-EM.  From a fresh LoRA, as ReST-EM's authors do: one that learned on in the second round knew its own dreams
by heart (loss .10), and dreamed of new passages no better than at first.  Left out: a KL term to the first dreamer.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, Trainer

from sleepkit.errors import SleepkitError, first_line
from sleepkit.language.dreaming.dreams import Context, Dream
from sleepkit.language.dreaming.trials import CHUNK, reply_tokens
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.generation.chat import chat_ids, reply_ids
from sleepkit.language.models.decoder import find_decoder_layers
from sleepkit.language.seeding.divergence import OutputHead, token_log_probs
from sleepkit.language.seeding.imitation import clipped_surrogate, group_advantages
from sleepkit.language.seeding.lora import linear_maps
from sleepkit.language.seeding.packing import (
    Backbone,
    PackedBatch,
    PreparedItem,
    common_prefix,
    flat_hidden,
    pack,
    packs_exactly,
    pad_rows,
    through_wrapper,
)
from sleepkit.reporting.live.observer import observe
from sleepkit.utils.files import writable
from sleepkit.utils.ranks import shares, split
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training import recomputing_here

if TYPE_CHECKING:
    from peft import PeftModel

    from sleepkit.language.dreaming.config import DreamingConfig
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

BATCH = 4  # dreams of an optimizer step, on all processes together


class DreamPolicyTrainer(Trainer):
    """Trains the dreamer on a round of dreams.

    Args:
        model: the model with the dreamer's LoRA, trainable.
        args: from `policy_settings`.
        items: prompts with dreams as replies; with ``advantage`` by policy gradient, without by SFT.
    """

    def __init__(
        self,
        model: PeftModel,
        args: KnowledgeSeedingConfig,
        items: Sequence[PreparedItem],
        processing_class: PreTrainedTokenizerBase,
    ) -> None:
        self.backbone, self.head = Backbone(model, ExpertBank.of(model)), OutputHead.of(model)
        self.pad_id = processing_class.pad_token_id or 0
        self.items = list(items)
        largest = max(by_prompt(items), key=len)
        self.packed = packs_exactly(self.backbone, largest[:2], self.pad_id)
        args.max_steps = math.ceil(args.num_train_epochs) * math.ceil(len(self.items) / BATCH)
        with writable(str(args.output_dir)):  # which it makes
            super().__init__(
                model=model,
                args=args,
                train_dataset=self.items,
                processing_class=processing_class,
            )
        self.model_accepts_loss_kwargs = False
        observe(self, "learning to dream")
        unknown = [item for item in items if item.advantage is not None and item.old_log_probs is None]
        with torch.no_grad():
            for item, found in zip(unknown, self._before(unknown), strict=True):
                item.old_log_probs = found.to(self.backbone.device)

    def _before(self, items: Sequence[PreparedItem]) -> list[Tensor]:
        """Log-probabilities of the reply tokens of each item before the training, each of which one process finds."""
        dealt = shares([len(item.sequence) for item in items])
        model: Any = self.model
        return split(dealt, lambda mine: [self._log_probs(model, [[items[i]]]).cpu() for i in mine])

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of `BATCH` dreams, of which each process takes a slice; accelerate must not split them again."""
        args = self.args
        plan = DreamBatches(len(self.items), args.num_train_epochs, args.seed, args.process_index, args.world_size)
        return DataLoader(self.items, batch_sampler=plan, collate_fn=self._collated)  # type: ignore[arg-type]

    def _collated(self, chosen: Sequence[PreparedItem]) -> dict[str, Any]:
        """A slice as inputs; where it is empty, a dream that does not count, as all processes take part in each step."""
        return {"items": list(chosen) or self.items[:1], "counts": bool(chosen)}

    def _log_probs(self, model: nn.Module, groups: Sequence[Sequence[PreparedItem]]) -> Tensor:
        """Return the log-probabilities of the reply tokens, ``(n,)``; a group has one prompt."""
        device, dtype = self.backbone.device, self.backbone.dtype
        batches = [
            pack(group, common_prefix(group), dtype, device, self.backbone.reads_masks)
            if self.packed and len(group) > 1
            else pad_rows(group, self.pad_id, device)
            for group in groups
        ]
        hidden = through_wrapper(model, self._hidden, batches)
        tokens = reply_tokens([item for group in groups for item in group], hidden.device)
        return token_log_probs(hidden, self.head, tokens, CHUNK)

    def _hidden(self, batches: Sequence[PackedBatch]) -> Tensor:
        """Return the hidden states ``(n, d)`` of the positions that predict reply tokens."""
        return torch.cat([flat_hidden(self.backbone.hidden(batch), batch) for batch in batches])

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean over dreams, and over the tokens of each, of the negative log-probability, or of the clipped surrogate.

        Args:
            model: as the trainer has wrapped it.
            inputs: with the ``items`` of this process's slice of a batch, and whether they count.
            return_outputs: return ``(loss, {})``.
            num_items_in_batch: of `transformers.Trainer`, which is not used.
        """
        groups = by_prompt(inputs["items"])
        items = [item for group in groups for item in group]
        log_probs = self._log_probs(model, groups)
        lengths = torch.tensor([len(item.reply_ids) for item in items], device=log_probs.device)
        if items[0].advantage is None:
            losses = -log_probs
        else:
            old = torch.cat([item.old_log_probs for item in items if item.old_log_probs is not None])
            advantage = torch.tensor([item.advantage for item in items], device=old.device).repeat_interleave(lengths)
            losses = clipped_surrogate(log_probs, old, advantage)
        number = torch.tensor(len(items) if inputs.get("counts", True) else 0, device=log_probs.device)
        every = self.accelerator.reduce(number, "sum") / self.args.world_size
        loss = (losses / lengths.repeat_interleave(lengths)).sum() * (number > 0) / every
        return (loss, {}) if return_outputs else loss

    def train(self, *args: Any, **options: Any) -> Any:
        """Train; later trainings recompute activations only if they are told to."""
        with self.backbone.in_blocks(), recomputing_here(self.accelerator.unwrap_model(self.model)):
            return super().train(*args, **options)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: operations are not estimated, as inputs are items."""
        return 0


class DreamBatches:
    """Places of the dreams of each step on one process: every epoch in another order, `BATCH` a step on all processes together.

    Args:
        count: dreams.
        epochs: how often each is taken.
        seed: of the orders.
        rank, world: this process, and how many there are.
    """

    def __init__(self, count: int, epochs: float, seed: int, rank: int, world: int) -> None:
        self.count, self.epochs, self.seed = count, math.ceil(epochs), seed
        self.rank, self.world = rank, world
        self.batch_size, self.drop_last = BATCH, False

    def __len__(self) -> int:
        return self.epochs * math.ceil(self.count / BATCH)

    def __iter__(self) -> Iterator[list[int]]:
        for epoch in range(self.epochs):
            order = random.Random(derive_seed(self.seed, "epoch", epoch)).sample(range(self.count), self.count)
            for start in range(0, self.count, BATCH):
                yield order[start : start + BATCH][self.rank :: self.world]


def by_prompt(items: Iterable[PreparedItem]) -> list[list[PreparedItem]]:
    """Items in groups of one prompt each, in the order in which these come."""
    groups: defaultdict[tuple[int, ...], list[PreparedItem]] = defaultdict(list)
    for item in items:
        groups[tuple(item.prompt_ids)].append(item)
    return list(groups.values())


def policy_items(
    dreams: Sequence[Dream], contexts: Sequence[Context], tokenizer: PreTrainedTokenizerBase, dreamer: str
) -> list[PreparedItem]:
    """What the dreamer learns from: rewarded dreams, or all that were tried with their advantages.

    Args:
        contexts: that were dreamed of.
        dreamer: "rest_em" or "grpo".
    """
    judged = [one for one in dreams if one.reward is not None]
    of_name = {context.name: context for context in contexts}
    advantages: dict[int, float] = {}
    if dreamer == "grpo":
        groups = defaultdict(list)
        for one in judged:
            groups[one.context].append(one)
        for group in groups.values():
            found, keep = group_advantages(torch.tensor([[one.reward for one in group]]))
            if bool(keep[0]):
                advantages |= {id(one): float(value) for one, value in zip(group, found[0], strict=True)}
        judged = [one for one in judged if id(one) in advantages]
    else:
        judged = [one for one in judged if one.reward is not None and one.reward > 0]
    return [
        PreparedItem(
            chat_ids(tokenizer, of_name[one.context].prompt(one.style)),
            reply_ids(tokenizer, one.text),
            True,
            advantage=advantages.get(id(one)),
        )
        for one in judged
    ]


def policy_settings(seeding: KnowledgeSeedingConfig, config: DreamingConfig, folder: Path, seed: int) -> KnowledgeSeedingConfig:
    """Return the run's own settings (devices, precision, logging) with the dreamer's learning rate and epochs.

    Args:
        seeding: the settings of the run.
        config: those of the dreamer.
        folder: for what the trainer writes.
        seed: of the training.
    """
    return replace(
        seeding,
        hub_token=None,
        output_dir=str(folder),
        seed=seed,
        save_strategy="no",
        learning_rate=config.dreamer_learning_rate,
        num_train_epochs=config.dreamer_epochs,
        max_steps=-1,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=1,
        warmup_steps=0,
        logging_nan_inf_filter=False,
        activation_checkpointing=True,  # all layers learn, with the context in view
    )


@contextmanager
def new_dreamer(model: nn.Module, rank: int, seed: int = 0) -> Iterator[Any]:
    """Run the block with a fresh, trainable dreamer on, which is taken off again exactly.

    It is a LoRA beside all linear maps, of so much ``rank``, with twice as much alpha, as in SEAL; ``seed`` draws its weights.
    """
    from accelerate.utils import set_seed
    from peft import LoraConfig, get_peft_model

    names = list(linear_maps(model, range(len(find_decoder_layers(model)))))
    set_seed(seed)  # PEFT draws from the global generator, which a resumed run finds in another state
    adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names, task_type="CAUSAL_LM"))
    try:
        yield adapted
    finally:
        adapted.unload()


@contextmanager
def dreaming_with(model: nn.Module, folder: Path, trainable: bool = False) -> Iterator[Any]:
    """Run the block with a saved dreamer on, which is taken off again exactly.

    Args:
        model: that it was trained on.
        folder: where it is.
        trainable: let it learn on.

    Raises:
        SleepkitError: it cannot be read, or is another model's.
    """
    from peft import PeftModel

    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except (RuntimeError, ValueError, OSError, SafetensorError) as error:
        raise SleepkitError(f"the dreamer in {folder} does not fit ({first_line(error)}); give one of this model") from error
    try:
        yield adapted
    finally:
        adapted.unload()
