"""What must hold after each training before anybody uses its weights: all steps were taken, and all numbers are finite.

    trainer.train()
    conclude(trainer, "night 3")     raises unless it holds, and takes off what `accelerate` wrapped round the model

`train` returns as if nothing were wrong where a signal stopped it (``enable_jit_checkpoint``) and where weights are NaN: Trainer
leaves such losses out of its log.  The wrapper, mixed precision's autocast, would go on round the model after the night, and a
run that was resumed does not have it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import make_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sleepkit.errors import SleepkitError
from sleepkit.utils.phases import digest_of

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments

__all__ = ["conclude", "recomputing_here", "require_finite", "settings_digest"]


def conclude(trainer: Trainer, what: str) -> None:
    """Check a training that has returned, and unwrap its model; call it on all ranks.

    Args:
        what: was trained, such as "night 3", for the message.

    Raises:
        SleepkitError: it stopped before its last step, or its last loss or a trained weight is not finite.
    """
    model: Any = trainer.model
    without_autocast(model)
    state = trainer.state
    if state.global_step < state.max_steps:
        raise SleepkitError(
            f"{what} was stopped at step {state.global_step} of {state.max_steps}; the same command goes on from what is saved"
        )
    rate = trainer.args.learning_rate
    losses = [line["loss"] for line in state.log_history if "loss" in line]
    if losses and not math.isfinite(losses[-1]):
        raise SleepkitError(_not_finite(what, "loss", losses[-1], rate))
    require_finite(_trained(model), what, rate)


@contextmanager
def recomputing_here(model: nn.Module) -> Iterator[None]:
    """Let a training in the block have activations recomputed; afterwards ``model`` keeps or recomputes them as it did before."""
    fields = ("gradient_checkpointing", "_gradient_checkpointing_func", "_require_grads_hooks")
    before = [(module, {name: vars(module)[name] for name in fields if name in vars(module)}) for module in model.modules()]
    try:
        yield
    finally:
        for module, values in before:
            for hook in vars(module).get("_require_grads_hooks", ()):
                if hook not in values.get("_require_grads_hooks", ()):
                    hook.remove()
            for name in fields:
                vars(module).pop(name, None)
            vars(module).update(values)


def settings_digest(config: TrainingArguments) -> str:
    """Digest of all fields that decide what a training makes, with its seed."""
    from sleepkit.utils.training_fields import settings

    return digest_of({**settings(make_dataclass("Nothing", ())(), config), "seed": config.seed})


def without_autocast(model: nn.Module) -> None:
    """Take off what `accelerate` wraps round ``forward`` for mixed precision.

    Its own `unwrap_model` takes off transformers' decorators too, which stand below the wrapper.
    """
    original = model.__dict__.pop("_original_forward", None)
    if original is None:
        return
    del model.forward
    if getattr(original, "__func__", None) is not type(model).forward:  # it was somebody's own before
        model.forward = original


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that a training may have changed, and running means and variances, by name."""
    weights: dict[str, Tensor] = {name: values for name, values in model.named_parameters() if values.requires_grad}
    return weights | {name: values for name, values in model.named_buffers() if "running_" in name}


def require_finite(tensors: Mapping[str, Tensor], what: str, learning_rate: float) -> None:
    """Raise `SleepkitError`, naming ``what`` was trained and the first tensor whose sum of squares is not a finite float32.

    That is so where a weight is NaN or infinite, and where one is so large that no product with it can be counted on.
    """
    for name, tensor in tensors.items():
        values = tensor.detach().float()
        if not math.isfinite(values.square().sum().item()):
            wrong = values[~torch.isfinite(values)]
            raise SleepkitError(
                _not_finite(what, name, (wrong[0] if wrong.numel() else values.abs().max()).item(), learning_rate)
            )


def _not_finite(what: str, name: str, value: float, learning_rate: float) -> str:
    return (
        f"{what} has left {name} at {value:g}, so nothing of it is kept; lower learning_rate (it was {learning_rate:g}), or use "
        "float32 where it trains in half precision"
    )
