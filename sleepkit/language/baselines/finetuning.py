"""Baselines of knowledge seeding: other ways to a model that has read the documents, on the same cycle and measures.

    no_sleep              nothing happens at night                                                   (floor)
    in_context            after its night an experience is asked with its own document in the prompt (ceiling)
    in_window             asked with all that was read in the prompt, cut from its beginning to what the window holds
    finetune_passage      next-token loss on the raw documents
    finetune_edits        the same on documents and what others wrote about them (``completions``), five texts each: SEAL's
                          continued pretraining with its published self-edits
    finetune_qa           next-token loss on the replies of the self-written items
    context_distillation  forward KL to the model with the document in view, on the same items and replies
    lora                  all of knowledge seeding: examples, general prompts, replay, objective
    trl_distillation      TRL's DistillationTrainer: on-policy, and a second copy of the model as teacher

The last five train, in place of an expert, a LoRA beside the linear layers, ``W + 2 B A`` with rank 32, alpha 64 and
learning rate 1e-3 (SEAL, arXiv 2506.10943), and merge it into the weights in the morning, as SEAL does.  They see
the same passages in the same order, take as many optimizer steps as knowledge seeding (``max_steps``), and batches of
the same number of items; `finetune_passage` takes one chunk of a document a step, which is about as many tokens, and
``--max_steps -1 --num_train_epochs 10`` is SEAL's own budget.  Results record seconds and train tokens of each.

Ours: the common budget; `lora` sits in the layers that would carry experts, the others in all.  Left out: a gate (each
night is kept), resuming inside a night, and weights that ZeRO splits, for merging needs them whole.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Trainer
from transformers.utils import logging

from sleepkit.errors import SleepkitError
from sleepkit.language.data.experience import Experience, Question
from sleepkit.language.generation.chat import chat_ids, decode, text_ids, window_of
from sleepkit.language.learner import Evaluation, LanguageLearner
from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.document_view import IN_CONTEXT
from sleepkit.language.questions.examples import SyntheticExample
from sleepkit.language.seeding.lora import (
    LEARNING_RATE,
    add_lora,
    chat_rows,
    document_rows,
    finetune,
    linear_maps,
    night_settings,
    trl_settings,
)
from sleepkit.language.seeding.trainer import KnowledgeSeedingTrainer
from sleepkit.utils.files import read_json, replacing, write_json
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training import require_finite

if TYPE_CHECKING:
    from peft import PeftModel

    from sleepkit.language.config import LearnerConfig
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

logger = logging.get_logger(__name__)
MERGED = "merged.safetensors"
SLACK = 64  # tokens that another question may be longer than the longest by its letters
EDITS = 5  # of a passage, as in SEAL's continued pretraining
NO_SLOT = -1  # no expert is ever taken: the bank stays empty, and an empty bank changes nothing


class Baseline(LanguageLearner):
    """A learner without experts; arguments as for `LanguageLearner`.

    Attributes:
        layers: where a LoRA goes, as `ExpertBankConfig.layers`; None takes the layers that would carry experts.
    """

    layers: str | None = "all"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        seeding: KnowledgeSeedingConfig,
        config: LearnerConfig,
        general_prompts: Sequence[str],
    ) -> None:
        # The bank stays empty, which changes nothing; trainer and retention set ask it which layers change.
        layers: Any = self.layers or config.expert_layers
        empty = dataclasses.replace(config, expert_slots=1, expert_width=1, expert_layers=layers, chain=[1])
        super().__init__(model, tokenizer, seeding, empty, general_prompts)


class NoSleep(Baseline):
    """Baseline that never learns: the model stays as it is."""

    def sleep(self, night: int, output_dir: Path) -> dict[str, Any]:
        """Train nothing, and return a log that says so."""
        return {"train_tokens": 0}


class InContext(NoSleep):
    """Never learns, always looks it up: of all that it has met, it is handed the right document (perfect retrieval)."""

    met: tuple[str, ...] = ()
    awake_with: str = ""

    def sleep(self, night: int, output_dir: Path) -> dict[str, Any]:
        """Keep the document at hand."""
        self.met = (*self.met, self.awake_with)
        return super().sleep(night, output_dir)

    def wake(self, experience: Experience) -> None:
        """Read an experience, and note its name."""
        super().wake(experience)
        self.awake_with = experience.name

    def asked(self, experience: Experience, question: Question, in_context: bool) -> str | list[dict[str, str]]:
        """Return the prompt for a question: with its document once that was met, closed book before."""
        return super().asked(experience, question, in_context or experience.name in self.met)

    def save(self, folder: Path) -> None:
        """Write the state of the learner, and the names of what was met."""
        super().save(folder)
        if self.is_main:
            write_json(folder / "met.json", self.met)

    def load(self, folder: Path) -> None:
        """Read what `save` has written."""
        super().load(folder)
        self.met = tuple(read_json(Path(folder) / "met.json"))


class InWindow(InContext):
    """Never learns, has its whole life in the prompt; what the window cannot hold is gone, the oldest first."""

    life: str = ""

    def evaluate(self, experiences: Sequence[Experience], in_context: bool = False) -> list[Evaluation]:
        """Answer all questions with one text in view: what the window holds of everything read so far."""
        read = "\n\n".join(document for one in experiences if one.name in self.met for document in one.documents)
        longest = max((question.question for one in experiences for question in one.questions), key=len, default="")
        asked = len(chat_ids(self.tokenizer, IN_CONTEXT.format(text="", question=longest))) + SLACK
        kept = window_of(self.model) - asked - self.config.max_new_tokens
        tokens = text_ids(self.tokenizer, read)
        if len(tokens) > kept:
            logger.warning(f"the window holds the last {kept} of {len(tokens)} tokens that were read")
            read = decode(self.tokenizer, tokens[-int(kept) :])
        self.life = read
        return super().evaluate(experiences, in_context)

    def asked(self, experience: Experience, question: Question, in_context: bool) -> str | list[dict[str, str]]:
        """Return the prompt for a question: with its own document for the ceiling, else with everything read so far."""
        if in_context or not self.life:
            return LanguageLearner.asked(self, experience, question, in_context)
        return IN_CONTEXT.format(text=self.life, question=question.question)


class LoraLearner(Baseline, ABC):
    """A LoRA every night, merged in the morning; what it is trained on is up to `train`."""

    @abstractmethod
    def train(self, student: PeftModel, night: int, folder: Path, items: list[SyntheticExample]) -> dict[str, Any]:
        """Train tonight's LoRA, which is merged afterwards.

        Args:
            student: the model with a fresh LoRA.
            night: its number, from 1.
            folder: of the night, for checkpoints.
            items: what `examples` has returned.

        Returns:
            ``history`` (rows ``{step, loss, ...}``) and ``train_tokens``.
        """

    def examples(self, night: int, folder: Path) -> list[SyntheticExample]:
        """Write the examples to train on: the new items of the night, the very ones that knowledge seeding would write."""
        return [item for item in self._night_items(night, folder)[0] if item.role == "new"]

    def sleep(self, night: int, output_dir: Path) -> dict[str, Any]:
        """Write the examples, train, merge."""
        folder = Path(output_dir) / f"night_{night:02d}"
        self._begin(night)
        items = self.examples(night, folder)
        start = time.perf_counter()
        student = add_lora(self.model, self.bank.layers, derive_seed(self.seeding.seed, "lora", night))
        outcome = self.train(student, night, folder, items)
        student.merge_and_unload()  # in place: self.model is as it was, with other weights
        self.model.eval()
        require_finite(self._weights(), f"night {night}", LEARNING_RATE)
        outcome |= {"items": len(items), "seconds_writing": self.seconds_writing}
        return outcome | {"train_seconds": time.perf_counter() - start}

    def _weights(self) -> dict[str, Tensor]:
        """Weights that a LoRA is merged into."""
        maps = linear_maps(self.model, self.bank.layers)
        return {name: cast(Tensor, module.weight) for name, module in maps.items()}

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of all weights that are merged into."""
        return {name: weight.detach().cpu().clone() for name, weight in self._weights().items()}

    @torch.no_grad()
    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Undo a night, bit for bit."""
        for name, weight in self._weights().items():
            weight.copy_(snapshot[name])

    def save(self, folder: Path) -> None:
        """Write the state of the learner, and the merged weights beside it."""
        super().save(folder)
        if self.is_main:
            with replacing(Path(folder) / MERGED) as draft:
                save_file(self.snapshot(), draft)

    def load(self, folder: Path) -> None:
        """Read what `save` has written."""
        super().load(folder)
        path = Path(folder) / MERGED
        try:
            self.restore(load_file(path))
        except Exception as error:
            raise SleepkitError(f"{path} cannot be read ({error}); start anew with --overwrite true") from error


class FinetunePassage(LoraLearner):
    """Next-token loss on the raw documents, one chunk a step."""

    def examples(self, night: int, folder: Path) -> list[SyntheticExample]:
        """Return no items: it trains on the documents themselves."""
        return []

    def train(self, student: PeftModel, night: int, folder: Path, items: list[SyntheticExample]) -> dict[str, Any]:
        """Train on the documents as they are, one chunk a step."""
        rows = document_rows(self.tokenizer, self.texts())
        return finetune(
            student,
            self.tokenizer,
            rows,
            trl_settings(self.seeding, night, folder) | {"per_device_train_batch_size": 1},
            what=f"night {night}",
        )

    def texts(self) -> list[Chunk]:
        """Return the texts to train on: the chunks of tonight's documents."""
        return self.day.texts()


class FinetuneEdits(FinetunePassage):
    """Next-token loss on the documents and on texts that others wrote about them, one text a step."""

    edits: tuple[Chunk, ...] = ()

    def wake(self, experience: Experience) -> None:
        """Take the edits too.  Raises `SleepkitError` if there are none."""
        super().wake(experience)
        titles = experience.titles or [experience.name] * len(experience.documents)
        written = [(title, text) for title, texts in zip(titles, experience.edits, strict=False) for text in texts[:EDITS]]
        self.edits = tuple(Chunk(text, title, 0, len(text_ids(self.tokenizer, text))) for title, text in written)
        if not self.edits:
            raise SleepkitError(
                f"{experience.name} has no edits to train on; give rows with completions, or another baseline than finetune_edits"
            )

    def texts(self) -> list[Chunk]:
        """Return the texts to train on: the chunks of tonight's documents, then their edits."""
        return [*self.day.texts(), *self.edits]


class FinetuneQa(LoraLearner):
    """Next-token loss on the replies of the self-written items."""

    def train(self, student: PeftModel, night: int, folder: Path, items: list[SyntheticExample]) -> dict[str, Any]:
        """Train on each item as a chat of one turn, whose prompt carries no loss."""
        options = trl_settings(self.seeding, night, folder)
        return finetune(student, self.tokenizer, chat_rows(self.tokenizer, items), options, what=f"night {night}")


class ContextDistillation(LoraLearner):
    """Offline: forward KL to the model with the document in view, on given replies; nothing for retention."""

    def train(self, student: PeftModel, night: int, folder: Path, items: list[SyntheticExample]) -> dict[str, Any]:
        """Train with the divergence of knowledge seeding alone, without rollouts."""
        args = night_settings(self.seeding, night, folder)
        args.lmbda = args.lmbda_start = 0.0
        return LoraSeedingTrainer(student, args, items, self.tokenizer, NO_SLOT).run(f"night {night}")


class Lora(LoraLearner):
    """Knowledge seeding in all but the expert: a LoRA in the same layers, always on."""

    layers = None

    def examples(self, night: int, folder: Path) -> list[SyntheticExample]:
        """Write new, general and replayed items, and keep the new ones for rehearsal."""
        items, held_out = self._night_items(night, folder)
        self.rehearsal.remember(items, held_out, night)
        return items

    def train(self, student: PeftModel, night: int, folder: Path, items: list[SyntheticExample]) -> dict[str, Any]:
        """Train with the full objective of knowledge seeding."""
        args = night_settings(self.seeding, night, folder)
        return LoraSeedingTrainer(student, args, items, self.tokenizer, NO_SLOT).run(f"night {night}")


class TrlDistillation(LoraLearner):
    """TRL's on-policy distillation from a second copy of the model, which has the document in its prompt."""

    def train(self, student: PeftModel, night: int, folder: Path, items: list[SyntheticExample]) -> dict[str, Any]:
        """Train by TRL's distillation, with as many prompts a step as knowledge seeding has items."""
        from sleepkit.language.baselines.trl_distillation import distil

        ours = self.seeding
        options = trl_settings(self.seeding, night, folder) | {
            "beta": {"forward_kl": 0.0, "reverse_kl": 1.0}.get(ours.divergence, ours.beta),
            "max_completion_length": ours.max_completion_length,
            "temperature": ours.temperature,
        }
        teacher = copy.deepcopy(student).unload()
        return distil(student, teacher, self.tokenizer, items, options, f"night {night}")


class LoraSeedingTrainer(KnowledgeSeedingTrainer):
    """Knowledge seeding into a LoRA: the teacher is the same model with the LoRA off."""

    def teacher_view(self) -> AbstractContextManager[None]:
        """Turn the LoRA off: inside, the model is the teacher."""
        return self.model.disable_adapter()  # type: ignore[union-attr,operator]

    unslept_view = teacher_view  # a LoRA that was merged cannot be taken out again

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make an optimizer with one group of parameters: there are no gates."""
        return Trainer.create_optimizer(self)
