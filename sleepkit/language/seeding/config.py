"""Configuration of knowledge seeding: the fields that :class:`~transformers.TrainingArguments` does not have.

Names follow the papers: ``lmbda`` is GKD's lambda (arXiv 2306.13649), ``alpha``, ``gamma`` and ``z0`` are those of
"Language Models Need Sleep" (arXiv 2606.03979).  Every ablation of its Table 1 is a value here: no imitation ``alpha=1``,
no semantic reward ``gamma=0``, off-policy only ``lmbda=0 lmbda_start=0``; no expansion is ``expansion=False`` of the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from sleepkit.errors import SleepkitError
from sleepkit.language.questions.items import QUESTION_WRITERS, STYLES
from sleepkit.language.seeding.divergence import DIVERGENCES
from sleepkit.utils.options import option, require, require_choice
from sleepkit.utils.training_fields import DDP_TIMEOUT, DDP_TIMEOUT_HELP, check_launch, check_training

REHEARSE_AS_NEW = ("none", "notes", "all")

_SHARES = ("alpha", "beta", "gamma", "lmbda", "lmbda_start", "general_share", "reply_weight")
_FROM_ONE = (
    *("questions_per_span", "general_tokens", "chunk_size", "num_generations", "rollout_prompts", "rollout_every"),
    *("max_completion_length", "min_steps"),
)
_FROM_ZERO = (
    *("top_k", "mask_first_tokens", "general_items", "replay_items", "notes_kept", "gate_penalty", "gate_lr_scale", "z0"),
)
_UNUSED = (
    *("per_device_eval_batch_size", "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_prefetch_factor"),
)


@dataclass(repr=False)  # that of transformers shows no token
class KnowledgeSeedingConfig(TrainingArguments):
    """Arguments of [`KnowledgeSeedingTrainer`]: a `transformers.TrainingArguments` of one night.

    Each field has a line of help, which ``sleepkit sleep --help`` lists; fields of `transformers.TrainingArguments` that mean
    nothing in a night are refused.

    Args:
        output_dir (`str`, defaults to `"runs/sleep"`): folder of the run.
        learning_rate (`float`, defaults to 5e-3): initial learning rate of the expert.
        num_train_epochs (`float`, defaults to 8): how often a night takes each of its new items.
        max_steps (`int`, defaults to -1): optimizer steps of a night; -1 goes by ``num_train_epochs``.
        styles (list of `str`): styles of the synthetic questions and statements.
        general_share (`float`, defaults to 0.5): share of each batch that is general, replayed and rehearsed items, in turn.
        divergence (`str`, defaults to `"forward_kl"`): between teacher and student, nats per token.
        lmbda (`float`, defaults to 0): share of student rollouts at the end, from 0 to 1.

    Raises:
        SleepkitError: a value out of range, or one that means nothing in a night; the message names it and the remedy.

    Example:

        >>> KnowledgeSeedingConfig(output_dir="runs/night", max_steps=100, styles=["question", "wh"])
    """

    learning_rate: float = field(default=5e-3, metadata={"help": "Initial learning rate of the expert."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule, as in transformers."})
    warmup_steps: float = field(default=10, metadata={"help": "Steps (or share of all steps, if below 1) of linear warm-up."})
    adam_beta2: float = field(default=0.99, metadata={"help": "Adam's second beta; short nights want a short average."})
    num_train_epochs: float = field(default=8, metadata={"help": "How often a night takes each of its new items."})
    max_steps: int = field(default=-1, metadata={"help": "Optimizer steps of a night; -1 goes by num_train_epochs."})
    min_steps: int = field(
        default=240, metadata={"help": "Steps that a short night by epochs has at least, up to 20 epochs: gates need them."}
    )
    per_device_train_batch_size: int = field(default=12, metadata={"help": "Items (packed into one row) per step and device."})
    ddp_timeout: int = field(default=DDP_TIMEOUT, metadata={"help": DDP_TIMEOUT_HELP})
    save_strategy: str = field(default="no", metadata={"help": "Checkpoints inside a night: 'no' or 'steps'."})
    logging_steps: float = field(default=20, metadata={"help": "Steps between two lines of the log."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay False: items are packed by the trainer."})
    output_dir: str | None = field(default="runs/sleep", metadata={"help": "Folder of the run."})

    # examples
    styles: list[str] = option(
        ("question", "wh", "paraphrase", "keywords", "about"), f"Styles of self-written examples, any of {', '.join(STYLES)}."
    )
    question_writer: str = option(
        "auto",
        f"Who writes questions, one of {', '.join(QUESTION_WRITERS)}: rules (of these styles), the model itself, in any "
        "language, or both; auto tries the model on a few sentences.",
    )
    questions_per_span: int = field(
        default=3, metadata={"help": "Rule-made questions for each possible answer in the documents."}
    )
    general_items: int = field(
        default=128, metadata={"help": "General prompts, answered by the model before any sleep, that are rehearsed."}
    )
    general_tokens: int = field(default=32, metadata={"help": "Tokens of a reply to a general prompt."})
    general_share: float = field(
        default=0.5, metadata={"help": "Share of each batch that is general, replayed and rehearsed items, in turn."}
    )
    replay_items: int = field(default=256, metadata={"help": "Items of earlier nights that are replayed; the cost stays."})
    notes_kept: int = field(
        default=2, metadata={"help": "Given examples of each label, or task of written answers, kept for later nights."}
    )
    rehearse_as_new: str = option(
        "none",
        f"What of earlier nights is learned again beside tonight's, one of {', '.join(REHEARSE_AS_NEW)}: labels of different "
        "nights, or facts that are asked alike, are told apart by what has seen both. The rest is replayed, and closed to the "
        "new expert.",
    )

    # objective
    divergence: str = field(default="forward_kl", metadata={"help": f"One of {', '.join(DIVERGENCES)}; teacher first."})
    beta: float = field(default=0.5, metadata={"help": "Weight of the teacher in the JSD, between 0 and 1."})
    top_k: int = field(
        default=32, metadata={"help": "Cached teacher classes per token, the rest as one tail; 0: full vocabulary."}
    )
    chunk_size: int = field(default=64, metadata={"help": "Tokens whose logits exist at one time."})
    reply_weight: float = field(
        default=0.7, metadata={"help": "Weight of the worked reply's own tokens in the teacher's targets; 0: teacher alone."}
    )
    mask_first_tokens: int = field(default=0, metadata={"help": "First reply tokens that are left out of the divergence."})
    gate_penalty: float = field(default=0.5, metadata={"help": "Weight of an expert's openness on general text: keeps it shut."})
    gate_lr_scale: float = field(
        default=40.0, metadata={"help": "Learning rate of what decides where an expert is open, relative to that of the rest."}
    )

    # on-policy half
    lmbda: float = field(default=0.0, metadata={"help": "Share of student rollouts at the end (GKD's lambda), 0 to 1."})
    lmbda_start: float = field(default=0.0, metadata={"help": "The same at the start; annealed linearly in between."})
    alpha: float = field(default=0.5, metadata={"help": "On rollouts: weight of the divergence; 1 - alpha weighs the reward."})
    gamma: float = field(default=0.5, metadata={"help": "Weight of the semantic reward; 1 - gamma weighs the edit distance."})
    z0: float = field(default=0.5, metadata={"help": "Edit distance limit, relative to the longer side if below 1."})
    judge: str = field(
        default="token_f1",
        metadata={"help": "Semantic judge: 'token_f1', 'number' (the last must be right) or 'model'."},
    )
    num_generations: int = field(default=4, metadata={"help": "Rollouts per prompt, one group of advantages."})
    rollout_prompts: int = field(default=16, metadata={"help": "Prompts in one round of rollouts."})
    rollout_every: int = field(default=50, metadata={"help": "Steps between two rounds of rollouts."})
    max_completion_length: int = field(default=40, metadata={"help": "Tokens of a rollout at most."})
    temperature: float = field(default=1.0, metadata={"help": "Sampling temperature of rollouts."})
    clip_range: float = field(default=0.2, metadata={"help": "Clip of the policy ratio."})

    # speed
    packing: bool = field(
        default=True, metadata={"help": "Put a batch in one row behind the prompt prefix that all items share."}
    )
    cache_frozen_layers: bool = field(
        default=True, metadata={"help": "Run the layers below the experts once per item, not per step."}
    )

    def __post_init__(self) -> None:
        check_training(self, dict.fromkeys(_UNUSED, "a night takes its batches and answers its questions itself; leave it out"))
        super().__post_init__()
        check_launch(self)
        require(self, _SHARES, lambda value: 0 <= value <= 1, "a number from 0 to 1")
        require(self, _FROM_ONE, lambda value: value >= 1, "at least 1")
        require(self, _FROM_ZERO, lambda value: value >= 0, "at least 0")
        require(self, ("temperature",), lambda value: value > 0, "a number above 0")
        require(self, ("clip_range",), lambda value: 0 < value < 1, "a number above 0 and below 1")
        require_choice(self, "divergence", DIVERGENCES)
        require_choice(self, "rehearse_as_new", REHEARSE_AS_NEW)
        require_choice(self, "question_writer", QUESTION_WRITERS)
        require_choice(self, "judge", ("token_f1", "number", "model"))
        require_choice(self, "save_strategy", ("no", "steps"))
        unknown = sorted(set(self.styles) - set(STYLES))
        if unknown or not self.styles:
            raise SleepkitError(f"styles has {(unknown or ['nothing'])[0]!r}; use any of {', '.join(STYLES)}")
        if self.divergence == "jsd" and not 0 < self.beta < 1:
            raise SleepkitError(f"beta is {self.beta}; the JSD needs 0 < beta < 1 (or use forward_kl or reverse_kl)")
        if self.on_policy and self.num_generations < 2 and self.alpha < 1:
            raise SleepkitError("num_generations is 1; rewards are compared within a group, give at least 2 (or alpha 1)")
        if self.on_policy and self.save_strategy == "steps" and self.save_steps % self.rollout_every:
            raise SleepkitError(
                f"save_steps is {self.save_steps}; with rollouts it must be a multiple of rollout_every "
                f"({self.rollout_every}), so that a resumed night draws the same rollouts"
            )

    @property
    def on_policy(self) -> bool:
        """True if any student rollouts are drawn."""
        return max(self.lmbda, self.lmbda_start) > 0

    def lmbda_at(self, step: int, steps: int) -> float:
        """Share of rollouts at a step, linear from ``lmbda_start`` to ``lmbda``."""
        return self.lmbda_start + (self.lmbda - self.lmbda_start) * step / max(1, steps - 1)
