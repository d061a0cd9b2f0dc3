"""`SleepConfig`: every option of a life of nights, put together of what its parts need."""

from __future__ import annotations

from dataclasses import dataclass

from sleepkit.cycle.gate import RetentionGate
from sleepkit.errors import SleepkitError
from sleepkit.language.config import DataConfig, EngineConfig, HubConfig, LearnerConfig, LoadingConfig
from sleepkit.language.dreaming.config import DreamingConfig
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.utils.options import RunConfig, check_numbers, option, require
from sleepkit.utils.training_fields import refuse_zero3

__all__ = ["GateConfig", "SleepConfig"]


@dataclass
class GateConfig:
    """Options of the gate, which says when a night is kept; the limits are those of `RetentionGate`."""

    gate: bool = option(True, "Roll a night back exactly if it fails the limits below; False keeps every night.")
    gate_anchor_kl: float = option(
        RetentionGate.max_anchor_kl, "Highest KL to the model before any sleep on the retention set, nats per token."
    )
    gate_anchor_drop: float = option(
        RetentionGate.max_anchor_drop,
        "Highest drop of accuracy on the retention set since before any sleep; four answers may be lost by chance.",
    )
    gate_min_gain: float = option(RetentionGate.min_gain, "A night's gain on own questions held out of training must exceed it.")
    gate_retention_drop: float = option(
        RetentionGate.max_retention_drop, "Highest drop in one night on self-written questions of earlier nights."
    )

    def __post_init__(self) -> None:
        check_numbers(self)
        limits = ("gate_anchor_kl", "gate_anchor_drop", "gate_retention_drop")
        require(self, limits, lambda value: value >= 0, "a number of at least 0")

    @property
    def limits(self) -> tuple[float, float, float, float]:
        """The limits in the order in which `RetentionGate` takes them."""
        return self.gate_anchor_kl, self.gate_anchor_drop, self.gate_min_gain, self.gate_retention_drop


@dataclass(repr=False)  # that of transformers shows no token
class SleepConfig(
    KnowledgeSeedingConfig,
    LearnerConfig,
    DreamingConfig,
    DataConfig,
    GateConfig,
    LoadingConfig,
    EngineConfig,
    HubConfig,
    RunConfig,
):
    """Options of a [`SleepTrainer`]: a `transformers.TrainingArguments` with all that a night needs.

    Each option is also one of `sleepkit sleep`, and a key of its recipes; ``sleepkit sleep --help`` lists all of them with a line
    of help.  Options of `transformers.TrainingArguments` that mean nothing in a night are refused.

    Args:
        output_dir (`str`, defaults to `"runs/sleep"`):
            Folder of the run: results, report, slept model, and what a later day goes on from.
        seed (`int`, defaults to 42):
            Draws everything: the same seed and data give the same nights.
        num_train_epochs (`float`, defaults to 8):
            How often a night takes each of the items that it has written.
        max_steps (`int`, defaults to -1):
            Optimizer steps of a night; -1 goes by ``num_train_epochs``.
        min_steps (`int`, defaults to 240):
            Steps that a short night by epochs has at least, unless it has taken each item 20 times: gates need them to learn when
            to be silent.
        learning_rate (`float`, defaults to 5e-3):
            Initial learning rate of tonight's expert.
        per_device_train_batch_size (`int`, defaults to 12):
            Items in a step on each device.
        expert_slots (`int`, defaults to 8):
            Experts in a layer, one a night; in a longer life the oldest are merged.
        expert_width (`int`, *optional*):
            Hidden units of an expert.
        expert_layers (`str` or list of `int`, defaults to `"last_quarter"`):
            Layers with experts: ``"all"``, ``"last_half"``, ``"last_quarter"``, or their indices.
        passages_per_night (`int`, *optional*):
            Texts that one night learns together; without it all of a day that have no questions, up to 2,000 words, or one.
        gate (`bool`, defaults to `True`):
            Undo a night, bit for bit, that forgets more or gains less than the limits ``gate_*`` allow.
        dream_rounds (`int`, defaults to 0):
            Rounds of dreaming in each night.
        push_to_hub_repo (`str`, *optional*):
            Repository that the command uploads to at its end, and that [`SleepTrainer.push_to_hub`] takes by default.

    Raises:
        SleepkitError: a value out of range, or options that do nothing together; the message names both and the remedy.

    Example:

        >>> from sleepkit import SleepConfig
        >>> args = SleepConfig(output_dir="runs/notes", expert_width=64, dtype="bfloat16")
    """

    def __post_init__(self) -> None:
        for options in (LearnerConfig, DreamingConfig, DataConfig, LoadingConfig, EngineConfig, GateConfig, HubConfig):
            options.__post_init__(self)
        super().__post_init__()
        if self.dream_rounds:
            refuse_zero3("dream_rounds tries many LoRAs", "or dream_rounds 0")
        if self.sender == "adapter":
            refuse_zero3("sender 'adapter' trains a LoRA", "or sender context")
        if self.push_to_hub_dreams_repo is not None and not self.dreams:
            raise SleepkitError(
                "push_to_hub_dreams_repo is given and there are no dreams; give dream_rounds too, or leave it out"
            )

    @property
    def dreams(self) -> bool:
        """Whether nights dream, or rehearse dreams that others published."""
        return bool(self.dream_rounds or self.dream_set)
