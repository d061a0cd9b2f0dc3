"""A language learner: reads while awake, consolidates while asleep, answers questions with nothing in its context.

    wake      documents go into the context memory (and, with the adapter sender, train a fast LoRA)
    sleep     write material -> take a new expert -> teach it -> (gate, elsewhere) ; each phase leaves a file and is
              skipped when the file is there, so a night that was killed goes on where it was
    evaluate  closed book, or with the documents in the prompt (the ceiling)

What a night leaves behind for later nights are its expert and a few of its own items for replay; both are small.
"""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from sleepkit.errors import SleepkitError
from sleepkit.language.chat import chat_ids, generate
from sleepkit.language.context_memory import ContextMemory, MemoryChunk
from sleepkit.language.expert_bank import ExpertBank, ExpertBankConfig
from sleepkit.language.knowledge_seeding_config import KnowledgeSeedingConfig
from sleepkit.language.knowledge_seeding_trainer import KnowledgeSeedingTrainer
from sleepkit.language.material import SeedItem, load_items, save_items, write_material
from sleepkit.language.scoring import contained, token_f1
from sleepkit.stream import Experience

if TYPE_CHECKING:
    from sleepkit.arguments import SleepArguments

IN_CONTEXT = "Read this text and answer the question.\n\nText: {text}\n\nQuestion: {question}"


@dataclass
class Evaluation:
    """Scores on one experience, shares from 0 to 1, and the answers in the order of the questions."""

    contained: float
    token_f1: float
    answers: list[str]
    n: int


class LanguageLearner:
    """See the module's docstring.

    Args:
        model: causal LM; grown here unless it has an expert bank.
        tokenizer: its tokenizer, with a chat template.
        seeding: how a night is trained.
        sleep: the run's arguments (memory, experts).
        general_prompts: prompts for retention, answered by the unslept model.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        seeding: KnowledgeSeedingConfig,
        sleep: SleepArguments,
        general_prompts: Sequence[str],
    ) -> None:
        self.model, self.tokenizer, self.seeding, self.args = model, tokenizer, seeding, sleep
        self.general_prompts = list(general_prompts)
        try:
            self.bank = ExpertBank.of(model)
        except SleepkitError:
            layers: Any = sleep.expert_layers
            config = ExpertBankConfig(slots=sleep.expert_slots, width=sleep.expert_width, layers=layers, gate=sleep.expert_gate)
            self.bank = ExpertBank.grow(model, config)
        self.memory = ContextMemory(tokenizer, sleep.memory_max_tokens, sleep.memory_overlap)
        self.replay: list[SeedItem] = []
        self.general: list[SeedItem] = []
        self.is_main = PartialState().is_main_process

    # -- awake ------------------------------------------------------------------------------------------------------
    def wake(self, experience: Experience) -> None:
        """Take the experience's documents into the context memory, which holds one day."""
        self.memory.clear()
        for number, document in enumerate(experience.documents):
            title = experience.name if len(experience.documents) == 1 else f"{experience.name} ({number + 1})"
            self.memory.add_document(document, title)

    def evaluate(self, experience: Experience, in_context: bool = False) -> Evaluation:
        """Ask the experience's questions; the answers are decoded greedily."""
        questions = experience.questions
        if not questions:
            return Evaluation(float("nan"), float("nan"), [], 0)
        prompts = [q.question for q in questions]
        if in_context:
            texts = [experience.documents[q.document] for q in questions]
            prompts = [IN_CONTEXT.format(text=t, question=question) for t, question in zip(texts, prompts, strict=True)]
        ids = [chat_ids(self.tokenizer, prompt) for prompt in prompts]
        rows = generate(self.model, self.tokenizer, ids, self.args.max_new_tokens)
        answers = [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]
        hits = [contained(answer, q.answer) for answer, q in zip(answers, questions, strict=True)]
        f1 = [token_f1(answer, q.answer) for answer, q in zip(answers, questions, strict=True)]
        return Evaluation(sum(hits) / len(hits), sum(f1) / len(f1), answers, len(hits))

    # -- asleep -----------------------------------------------------------------------------------------------------
    def sleep(self, night: int, output_dir: Path) -> dict[str, Any]:
        """One night on what the memory holds; returns history, counts and seconds of each phase."""
        folder = Path(output_dir) / f"night_{night:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        items = self._material(night, folder)
        seconds_writing = time.perf_counter() - start
        slot = self._expert(night)
        args = copy.copy(self.seeding)
        args.output_dir = str(folder / "checkpoints")
        args.seed = self.seeding.seed + night
        trainer = KnowledgeSeedingTrainer(self.model, args, items, self.tokenizer, slot)
        outcome = trainer.run()
        self.bank.train_only(None)
        self._remember(items, night)
        outcome["items"] = len(items)
        outcome["items_by_style"] = {style: sum(i.style == style for i in items) for style in sorted({i.style for i in items})}
        outcome["seconds_writing"] = seconds_writing
        outcome["seconds"] = time.perf_counter() - start
        return outcome

    def _material(self, night: int, folder: Path) -> list[SeedItem]:
        path = folder / "material.jsonl"
        if not path.is_file():
            items = write_material(
                self.model, self.tokenizer, self._chunks(), self.seeding.styles, self.seeding.cues_per_span, self.seeding.seed + night
            )
            items += self._general_items() + self._replay_items(night)
            if self.is_main:
                save_items(items, path)
            PartialState().wait_for_everyone()
        return load_items(path)

    def _chunks(self) -> list[MemoryChunk]:
        chunks = list(self.memory.chunks())
        if not chunks:
            raise SleepkitError("the context memory is empty; call wake() with an experience before sleep()")
        return chunks

    def _general_items(self) -> list[SeedItem]:
        """General prompts with the unslept model's greedy replies; written once, on the first night."""
        if not self.general and self.seeding.general_items:
            rng = random.Random(self.seeding.seed)
            prompts = rng.sample(self.general_prompts, min(self.seeding.general_items, len(self.general_prompts)))
            with self.bank.view(()):
                ids = [chat_ids(self.tokenizer, prompt) for prompt in prompts]
                rows = generate(self.model, self.tokenizer, ids, self.seeding.general_tokens, description="general prompts")
            replies = [self.tokenizer.decode(row, skip_special_tokens=True) for row in rows]
            self.general = [SeedItem(p, r, "", "general") for p, r in zip(prompts, replies, strict=True) if r.strip()]
        return self.general

    def _replay_items(self, night: int) -> list[SeedItem]:
        """A fixed number of items of earlier nights, so that the cost of a night does not grow."""
        rng = random.Random(self.seeding.seed * 31 + night)
        return rng.sample(self.replay, min(self.seeding.replay_items, len(self.replay)))

    def _remember(self, items: Sequence[SeedItem], night: int) -> None:
        fresh = [SeedItem(i.prompt, i.reply, "", "replay", i.source) for i in items if i.is_memory]
        rng = random.Random(self.seeding.seed * 37 + night)
        self.replay += rng.sample(fresh, min(self.seeding.replay_items, len(fresh)))

    def _expert(self, night: int) -> int:
        if not self.args.expansion and self.bank.active:
            slot = self.bank.active[-1]
            self.bank.train_only(slot)
            return slot
        return self.bank.activate(seed=self.seeding.seed + night)

    # -- keeping ----------------------------------------------------------------------------------------------------
    def snapshot(self) -> dict[str, Tensor]:
        """Copies of all that a night may change: active experts and the list of slots."""
        return {**self.bank.state_dict(), "active": torch.tensor(self.bank.active, dtype=torch.int64)}

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Undo a night, bit for bit."""
        wanted = snapshot["active"].tolist()
        for slot in [slot for slot in self.bank.active if slot not in wanted]:
            self.bank.deactivate(slot)
        self.bank.load_state_dict({k: v for k, v in snapshot.items() if k != "active"}, wanted)

    def save(self, folder: Path) -> None:
        """Experts (safetensors + JSON) and the items for later nights (jsonl)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.bank.save(folder)
        save_items(self.replay, folder / "replay.jsonl")
        save_items(self.general, folder / "general.jsonl")
        (folder / "learner.json").write_text(json.dumps({"replay": len(self.replay), "general": len(self.general)}) + "\n")

    def load(self, folder: Path) -> None:
        """The inverse of `save`, into the same base model."""
        from safetensors.torch import load_file

        from sleepkit.language.expert_bank import WEIGHTS_NAME, read_bank_config

        folder = Path(folder)
        document = read_bank_config(folder)
        self.bank.load_state_dict(load_file(folder / WEIGHTS_NAME) if document["active"] else {}, document["active"])
        self.replay = load_items(folder / "replay.jsonl")
        self.general = load_items(folder / "general.jsonl")
