"""A night that takes seconds: items, a configuration and a trainer for the models of `tiny`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny import tiny_model, tiny_tokenizer
from torch import nn

from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.units import ExpertBankConfig
from sleepkit.language.questions.examples import SyntheticExample
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.language.seeding.trainer import KnowledgeSeedingTrainer
from sleepkit.trainers.config import SleepConfig

FACTS = [
    ("who keeps the light?", "mira keeps the light.", "the light is kept by mira"),
    ("where is the boat?", "the boat is in orta.", "orta holds the boat"),
    ("when did it open?", "it opened in 1921.", "1921: it opened"),
    ("what sings?", "the kettle sings.", "a kettle that sings"),
    ("how deep is the lake?", "it is 70 metres deep.", "70 metres of lake"),
]
_DEFAULTS = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "warmup_steps": 0,
    "learning_rate": 1e-2,
    "top_k": 0,
    "general_share": 0.25,
    "num_generations": 3,
    "rollout_prompts": 3,
    "rollout_every": 2,
    "max_completion_length": 8,
    "logging_steps": 1,
    "use_cpu": True,
    "disable_tqdm": True,
}
GENERAL = [("what is two and two?", "four."), ("name a colour.", "blue."), ("say hello.", "hello there.")]


def tiny_items() -> list[SyntheticExample]:
    """Five new items, two general ones and a replayed one."""
    items = [SyntheticExample(prompt, reply, memory, "wh", "tale") for prompt, reply, memory in FACTS]
    items += [SyntheticExample(prompt, reply, "", "general") for prompt, reply in GENERAL[:2]]
    return [*items, SyntheticExample(*GENERAL[2], "", "replay")]


def tiny_config(output_dir: str | Path, **options: Any) -> KnowledgeSeedingConfig:
    """A night of few steps on the CPU."""
    return KnowledgeSeedingConfig(output_dir=str(output_dir), **{**_DEFAULTS, **options})


def tiny_sleep(output_dir: str | Path, **options: Any) -> SleepConfig:
    """The options of a `SleepTrainer` whose nights take seconds."""
    return SleepConfig(output_dir=str(output_dir), **{**_DEFAULTS, **options})


def tiny_grown(family: str = "llama", layers: Any = "last_half", slots: int = 3, **model: Any) -> tuple[nn.Module, ExpertBank]:
    """A grown tiny model with no expert in use."""
    grown = tiny_model(family, **model)
    return grown, ExpertBank.grow(grown, ExpertBankConfig(slots=slots, width=8, layers=layers))


def tiny_trainer(
    output_dir: str | Path,
    family: str = "llama",
    model: nn.Module | None = None,
    layers: Any = "last_half",
    kept: dict[SyntheticExample, Any] | None = None,
    **options: Any,
) -> KnowledgeSeedingTrainer:
    """A trainer whose model has just taken a new expert."""
    args = tiny_config(output_dir, **options)
    model = model or tiny_grown(family, layers)[0]
    slot = ExpertBank.of(model).activate(seed=args.seed)
    return KnowledgeSeedingTrainer(model, args, tiny_items(), tiny_tokenizer(), slot, kept=kept)


def losses(trainer: KnowledgeSeedingTrainer) -> list[float]:
    """Losses by step of a finished trainer."""
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]
