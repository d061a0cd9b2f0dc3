"""`SleepCallback`: a `Trainer` trains a LoRA awake, and every so many steps a night moves what it learned into an expert.

    step 1 .. every           the LoRA learns                                             awake
    night 1                   teacher with the LoRA -> a new expert without it            asleep    (language/adapter_learner.py)
    the gate                  kept: the LoRA and its optimizer state are reset            undone: the LoRA goes on as it was
    step every + 1 ..         the LoRA learns, the experts say what they know

A checkpoint of the trainer gets a folder ``sleep/`` with experts, rehearsal buffer and the rows since the last night, so a
training that is resumed equals one that was not stopped: nights come before a checkpoint of the same step, and draw nothing
from the trainer's random numbers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType, gather_object, set_seed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sleepkit.cycle.gate import RetentionGate, Verdict, require_finite_measures
from sleepkit.errors import SleepkitError
from sleepkit.language.adapter_learner import AdapterLearner, Row, rows_of_batch
from sleepkit.language.config import LearnerConfig, part_of
from sleepkit.language.models.base_model import keep_folder
from sleepkit.language.models.loading import let_experts_train
from sleepkit.language.retention import RetentionSet, read_prompts
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.reporting.live import progress
from sleepkit.trainers.config import SleepConfig
from sleepkit.trainers.outputs import Night
from sleepkit.utils.files import read_json, read_jsonl, write_json, write_jsonl
from sleepkit.utils.ranks import main_only
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training import recomputing_here

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = ["SleepCallback"]

FOLDER, ROWS, NIGHTS = "sleep", "rows.jsonl", "nights.json"


class SleepCallback(TrainerCallback):
    """Lets a `Trainer` that trains a LoRA sleep: every ``every`` steps what the LoRA learned becomes an expert of the base model.

    A night learns the rows that the trainer has taken since the last one, is judged by the gate of ``args``, and, if it is kept,
    resets the LoRA. After the last step comes a last night. The slept model is written to ``<args.output_dir>/model``.

    Needs a [`~peft.PeftModel`] with one LoRA, as [`~trl.SFTTrainer`] makes of ``peft_config``, and whole weights: no ZeRO and no
    FSDP. A checkpoint is resumed from the trainer's own ``output_dir``.

    Args:
        args ([`SleepConfig`], *optional*):
            Options of the nights: experts, gate, ``num_train_epochs`` or ``max_steps`` of a night, ``output_dir``.  Options of
            data, dreams and documents, and ``reply_weight``, are not used: the LoRA alone teaches.
        every (`int`, defaults to 500):
            Optimizer steps between two nights.
        general_prompts (`str`, `Path` or `list`, *optional*):
            As for [`SleepTrainer`].
        anchors (`str`, `Path` or `list`, *optional*):
            As for [`SleepTrainer`].

    Attributes:
        nights (`list[Night]`):
            Nights so far, each with ``kept``, ``reason`` and ``metrics``; among these ``loss_base``, ``loss_adapter`` and
            ``loss_expert``, nats per token on tonight's rows: before the night without and with the LoRA, and after it without.

    Raises:
        SleepkitError: a model without a LoRA, split weights, dreams, or a checkpoint without its nights.

    Example:

        >>> from peft import LoraConfig
        >>> from sleepkit import SleepCallback, SleepConfig
        >>> from trl import SFTConfig, SFTTrainer
        >>> sleep = SleepCallback(SleepConfig(output_dir="runs/nights"), every=500)
        >>> trainer = SFTTrainer(
        ...     model="Qwen/Qwen3-0.6B",
        ...     args=SFTConfig(output_dir="runs/sft"),
        ...     train_dataset=dataset,
        ...     peft_config=LoraConfig(),
        ...     callbacks=[sleep],
        ... )
        >>> trainer.train()
        >>> sleep.nights[0].metrics["loss_expert"]
    """

    def __init__(
        self,
        args: SleepConfig | None = None,
        every: int = 500,
        general_prompts: str | Path | Sequence[Any] | None = None,
        anchors: str | Path | Sequence[Any] | None = None,
    ) -> None:
        self.args = SleepConfig() if args is None else args
        if every < 1:
            raise SleepkitError(f"every is {every}; give the steps between two nights, at least 1")
        if self.args.dreams:
            raise SleepkitError("dream_rounds and dream_set are for nights on documents; leave them out of a SleepCallback")
        self.every = every
        self.general_prompts = [row["prompt"] for row in read_prompts(general_prompts, "general_prompts")]
        self.anchors = RetentionSet(read_prompts(anchors, "anchors"))
        self.nights: list[Night] = []
        self.learner: AdapterLearner | None = None
        self._rows: dict[Row, None] = {}  # since the last night, on this process
        self._hook: Any = None

    # -- the trainer's events -----------------------------------------------------------------------------------------
    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check the model and grow its experts, before the optimizer is made."""
        adapted, tokenizer = kwargs["model"], kwargs["processing_class"]
        _check(adapted)
        if args.load_best_model_at_end:
            raise SleepkitError("load_best_model_at_end would take back the LoRA and not its nights; leave it out")
        with _undisturbed():
            seeding = part_of(self.args, KnowledgeSeedingConfig)
        seeding.bf16, seeding.fp16, seeding.use_cpu = args.bf16, args.fp16, args.use_cpu  # a night computes as the day
        seeding.reply_weight = 0.0  # the LoRA alone teaches: it has learned the replies
        trained = _trainable(adapted)
        let_experts_train(adapted.get_base_model())
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        with _undisturbed():
            self.learner = AdapterLearner(adapted, tokenizer, seeding, part_of(self.args, LearnerConfig), self.general_prompts)
        _train_only(adapted, trained)
        self._start = self.learner.snapshot()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start anew, or take up the nights of the checkpoint that is resumed."""
        learner, adapted = self._learner, kwargs["model"]
        self._rows, self.nights = {}, []
        if self._hook is not None:
            self._hook.remove()  # of a training that was stopped
        with _asleep(adapted), _undisturbed():
            learner.restore(self._start)
            if state.global_step:
                self._load(_checkpoint(args, state))
            self.anchors.prepare(learner.model, learner.tokenizer, learner.bank)
        self._hook = adapted.register_forward_pre_hook(self._see, with_kwargs=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Sleep a night after every ``every``-th step."""
        if state.global_step % self.every == 0:
            self._night(kwargs["model"], kwargs["optimizer"], state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write what a resumed training needs into the checkpoint."""
        folder = _checkpoint(args, state)
        self._learner.save(folder)  # on all processes
        rows = sorted(set(gather_object(list(self._rows))))
        nights = [asdict(night) for night in self.nights]
        main_only(lambda: write_jsonl(folder / ROWS, [{"prompt": prompt, "reply": reply} for prompt, reply in rows]))
        main_only(lambda: write_json(folder / NIGHTS, nights))  # last: where it is, the folder is whole

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A last night for what the LoRA has learned since, and the slept model."""
        if state.global_step % self.every:
            self._night(kwargs["model"], kwargs["optimizer"], state.global_step)
        self._hook.remove()
        self.save_model()

    def _see(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Note the rows of a training step."""
        if module.training and kwargs.get("labels") is not None:
            self._rows |= dict.fromkeys(rows_of_batch(self._learner.tokenizer, kwargs))

    # -- a night --------------------------------------------------------------------------------------------------------
    def _night(self, adapted: PeftModel, optimizer: Any, step: int) -> None:
        learner, number = self._learner, len(self.nights) + 1
        rows = [(prompt, reply) for prompt, reply in gather_object(list(self._rows))]
        if not rows:
            return
        progress.say(f"step {step}: night {number} begins, with {len(set(rows))} rows")
        folder = Path(str(self.args.output_dir))
        learner.meet(rows)
        with _undisturbed(), progress.shown(plain=bool(self.args.disable_tqdm)):
            set_seed(derive_seed(self.args.seed, "night", number))
            losses = {"loss_adapter": _mean(learner.loss(learner.sample()))}
            with _asleep(adapted):
                losses["loss_base"] = _mean(learner.loss(learner.sample()))
                snapshot = learner.snapshot()
                log = learner.sleep(number, folder)
                losses["loss_expert"] = _mean(learner.loss(learner.sample()))
                measures = self.anchors.measure(learner.model, learner.tokenizer, learner.bank)
                before = {"anchor_accuracy": self.anchors.accuracy_before, **log["before"]}
                verdict = self._decide(before, {**measures, **log["after"]}, number)
                if not verdict.commit:
                    learner.restore(snapshot)
            if verdict.commit:
                _reset(adapted, optimizer, derive_seed(self.args.seed, "lora", number))
                self._rows = {}
        numbers = {name: value for name, value in log.items() if isinstance(value, (int, float))}
        metrics = {
            **losses,
            **measures,
            **numbers,
            "held_out_before": before["held_out"],
            "held_out_after": log["after"]["held_out"],
        }
        self.nights.append(Night(number, f"steps to {step}", verdict.commit, verdict.reason, metrics))
        progress.say(f"night {number}: {'kept' if verdict.commit else 'rolled back'} ({verdict.reason})")

    def _decide(self, before: dict[str, float], after: dict[str, float], number: int) -> Verdict:
        if not self.args.gate:
            require_finite_measures(after, f"night {number}")
            return Verdict(True, "no gate")
        before = {name: value for name, value in before.items() if value == value}
        return gather_object([RetentionGate(*self.args.limits).decide(before, after)])[0]  # the main process judges

    @property
    def _learner(self) -> AdapterLearner:
        if self.learner is None:
            raise SleepkitError("this SleepCallback belongs to no trainer yet; give it to one in `callbacks`")
        return self.learner

    # -- keeping ----------------------------------------------------------------------------------------------------------
    def save_model(self, folder: str | Path | None = None) -> None:
        """Write the experts of the base model, without the LoRA; ``<args.output_dir>/model`` by default.

        `load_model` loads them with the base; to a base that was built in code, `ExpertBank.load(model, folder)` adds them.  Call
        it on all processes.
        """
        learner = self._learner
        target = Path(str(self.args.output_dir)) / "model" if folder is None else Path(folder)
        learner.bank.save(target, publish=folder is None)
        if folder is None:
            main_only(lambda: keep_folder(learner.model, target.parent))

    def _load(self, folder: Path) -> None:
        if not (folder / NIGHTS).is_file():
            raise SleepkitError(
                f"{folder.parent} has no {FOLDER}/ with its nights; resume from another checkpoint of this trainer"
            )
        self._learner.load(folder)
        self.nights = [Night(**night) for night in read_json(folder / NIGHTS)]
        if PartialState().is_main_process:
            self._rows = {(row["prompt"], row["reply"]): None for row in read_jsonl(folder / ROWS)}


def _check(adapted: Any) -> None:
    """Raise `SleepkitError` unless ``adapted`` is a model with one LoRA, whose weights are whole."""
    from peft import LoraConfig, PeftModel

    if PartialState().distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP):
        raise SleepkitError("a SleepCallback needs whole weights on each device; launch the training without DeepSpeed and FSDP")
    if not isinstance(adapted, PeftModel):
        raise SleepkitError(
            f"the model is a {type(adapted).__name__} without a LoRA; give the trainer `peft_config=LoraConfig(...)`"
        )
    configs = list(adapted.peft_config.values())
    if len(configs) != 1 or not isinstance(configs[0], LoraConfig):
        raise SleepkitError(f"the model has the adapters {', '.join(adapted.peft_config)}; a SleepCallback moves one LoRA")
    if configs[0].modules_to_save or configs[0].bias != "none" or configs[0].init_lora_weights not in (True, "gaussian"):
        raise SleepkitError("the LoRA trains more than its own matrices, or starts from others than zero; use a plain LoraConfig")


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / FOLDER


def _trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _train_only(model: torch.nn.Module, chosen: Sequence[torch.nn.Parameter]) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad_(True)


@contextmanager
def _asleep(adapted: PeftModel) -> Iterator[None]:
    """Run the block with the LoRA off, activations kept and the model in evaluation; afterwards all is as it was."""
    tuner: Any = adapted.base_model
    trained, training = _trainable(adapted), adapted.training
    tuner.disable_adapter_layers()
    adapted.eval()
    try:
        with recomputing_here(adapted):
            for module in adapted.modules():
                if hasattr(module, "gradient_checkpointing"):  # nights have an option of their own
                    module.gradient_checkpointing = False  # type: ignore[assignment]
            yield
    finally:
        tuner.enable_adapter_layers()
        _train_only(adapted, trained)
        adapted.train(training)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let another training run in the block; random numbers and what accelerate shares between trainers are restored."""
    import numpy

    shared = [kind._shared_state for kind in (PartialState, AcceleratorState, GradientState)]
    before = [dict(values) for values in shared]
    python, arrays = random.getstate(), numpy.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(arrays)
            for values, saved in zip(shared, before, strict=True):
                values.clear()
                values.update(saved)


def _reset(adapted: PeftModel, optimizer: Any, seed: int) -> None:
    """A fresh LoRA, which changes nothing, and an optimizer that has never seen it."""
    from peft.tuners.lora import LoraLayer

    ((name, config),) = adapted.peft_config.items()
    set_seed(seed)
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            module.reset_lora_parameters(name, config.init_lora_weights)  # type: ignore[attr-defined]
    for parameter in _trainable(adapted):
        optimizer.state.pop(parameter, None)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
