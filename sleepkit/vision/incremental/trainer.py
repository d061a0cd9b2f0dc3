"""`transformers.Trainer` for images that are in memory: the loss is a function of the learner, batches are slices of tensors.

Logging, schedules, DDP and DeepSpeed up to ZeRO-2 are Trainer's.  What is ours keeps the cost of a step near that of a plain
loop: a batch is one indexing operation (`__getitems__`), not one per image.

Left out: checkpoints inside a night (a killed night is trained again from the weights before it), and ZeRO-3, which the
configurations refuse: the learner uses the model between two nights, when its weights would be split.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from sleepkit.reporting.live.observer import observe
from sleepkit.utils.files import open_to_all, writable
from sleepkit.utils.phases import PhaseFolder
from sleepkit.utils.ranks import main_finds, main_only
from sleepkit.utils.training import conclude

__all__ = ["IncrementalTrainer", "TensorRows", "trained_once"]

Loss = Callable[[nn.Module, Tensor, Tensor, int], Tensor]


class TensorRows(Dataset[dict[str, Tensor]]):
    """Rows of ``pixel_values`` and ``labels``; a batch is taken at once.

    With ``length``, the rows are gone through again and again until there are so many.
    """

    def __init__(self, pixel_values: Tensor, labels: Tensor, length: int | None = None) -> None:
        self.pixel_values, self.labels = pixel_values, labels
        self.length = len(labels) if length is None else length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return self.__getitems__([row])

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        wrapped = [row % len(self.labels) for row in rows]
        return {"pixel_values": self.pixel_values[wrapped], "labels": self.labels[wrapped]}


class IncrementalTrainer(Trainer):
    """Trains a model for one night on rows of tensors.

    Args:
        model: all of it whose parameters require a gradient.
        loss: of the (wrapped) model, a batch of pixels and labels, and the step.
        args: the run's configuration; the night has its own seed and folder.
        rows: what to train on.
        seed, folder: of the night.
        callbacks: see transformers.
        what: is trained, such as "night 3", for a message.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        args: TrainingArguments,
        rows: TensorRows,
        seed: int,
        folder: Path,
        callbacks: Sequence[TrainerCallback] = (),
        what: str = "training",
    ) -> None:
        args = dataclasses.replace(  # anew, as DeepSpeed takes a plugin once only
            args, seed=seed, output_dir=str(folder), hub_token=None, logging_nan_inf_filter=False
        )
        self.loss, self.what = loss, what
        form = getattr(model, "config", None)
        cached = hasattr(form, "use_cache")
        with writable(folder):  # which it makes
            super().__init__(model=model, args=args, train_dataset=rows, data_collator=_as_it_is, callbacks=list(callbacks))
        if (
            form is not None and not cached
        ):  # Trainer's mark would tell a model that this process trained from one that it read back
            vars(form).pop("use_cache", None)
        self.model_accepts_loss_kwargs = False
        observe(self, "training")

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Return the learner's loss of a batch."""
        return self.loss(model, inputs["pixel_values"], inputs["labels"], self.state.global_step)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write the model for `save_model`: safetensors and JSON, without the pickle of arguments that Trainer leaves beside."""
        model: Any = self.accelerator.unwrap_model(self.model)
        folder = str(output_dir or self.args.output_dir)
        model.save_pretrained(folder, state_dict=state_dict, is_main_process=self.args.should_save)
        open_to_all(folder)

    def run(self) -> dict[str, Any]:
        """Train to the end; returns ``history``, ``steps`` and ``train_seconds``.

        Raises:
            SleepkitError: it was stopped before its last step, or weights are not finite.
        """
        start = time.perf_counter()
        self.train()
        seconds = time.perf_counter() - start
        if self.is_deepspeed_enabled:
            engine: Any = self.model_wrapped
            engine.destroy()
        assert isinstance(self.model, nn.Module)
        conclude(self, self.what)
        renew(self.model)
        history = [line for line in self.state.log_history if "loss" in line]
        return {"history": history, "steps": self.state.global_step, "train_seconds": seconds}


def _as_it_is(batch: Any) -> Any:
    return batch


def renew(model: nn.Module) -> None:
    """Give a model new parameters of the same values: what DDP and DeepSpeed have hung on the old ones is gone."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)


def trained_once(
    folder: Path, identity: Mapping[str, Any], model: PreTrainedModel, work: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Do ``work``, which trains the model, and keep the model; or take over what an earlier call has kept.  Returns the log.

    Args:
        identity: what decides the result; what was trained with another one is trained again (utils/phases.py).

    Returns:
        What ``work`` returned, with ``cpu_seconds``; and ``taken_over``, whether that was in an earlier call.
    """
    phase = PhaseFolder(folder, identity)
    log = main_finds(phase.read)
    if log is not None:
        model.load_state_dict(type(model).from_pretrained(folder).state_dict())
        return {**log, "taken_over": True}
    start = time.process_time()
    log = work()
    log["cpu_seconds"] = time.process_time() - start
    main_only(lambda: phase.write(model.save_pretrained, log))
    return {**log, "taken_over": False}
