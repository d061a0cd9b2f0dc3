"""Plans of whole runs, from their options: before a run, from names alone, and at its start, from the model that is there.

plan_of(name, config, material, "8x80")            what `sleepkit plan` prints
plan_inside(model, tokenizer, config, material)    what a run records beside what is seen of it
beside(plan, seen, peak)                           the two, by phase
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sleepkit.errors import first_line
from sleepkit.language.config import LearnerConfig, LoadingConfig, part_of
from sleepkit.language.dreaming.config import DreamingConfig
from sleepkit.language.generation.chat import require_room
from sleepkit.language.models.zero3 import is_zero3
from sleepkit.language.plan.blank import BlankModel
from sleepkit.language.plan.machines import Machine
from sleepkit.language.plan.plan import Material, RunPlan, planned
from sleepkit.language.plan.remedies import remedies
from sleepkit.reporting.live import progress
from sleepkit.utils.ranks import alone

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["beside", "plan_inside", "plan_of"]

GIGA = 1e9


def plan_of(name: str, config: Any, material: Material, gpus: str | None = None) -> RunPlan:
    """Plan a run from config.json and tokenizer of its model, and from what it reads.

    Args:
        name: of the model, as `load_model` takes it.
        config: options of the run, as `SleepConfig` has them.
        material: what it reads.
        gpus: number and gigabytes of GPUs, such as ``8x80``; None: the CPU of this machine.

    Raises:
        SleepkitError: the configuration cannot be read, or the run would be refused for what it reads.
    """
    machine = Machine.of(gpus)
    blank = BlankModel.named(name, part_of(config, LoadingConfig), part_of(config, LearnerConfig), machine.device)
    require_room(blank.model, config.context_max_tokens, config.max_new_tokens)
    plan = _planned(blank, machine, material, config, libraries_bytes() if machine.device == "cpu" else int(machine.context))
    plan.change = remedies(plan, blank, config)
    return plan


def plan_inside(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: Any, material: Material, libraries: int
) -> dict[str, Any]:
    """Plan a run whose model is there already, as JSON; without numbers, and with the reason, where that cannot be done.

    Args:
        model: loaded, on its device.
        tokenizer: its tokenizer, with its prompt format.
        config: options of the run, as `SleepConfig` has them.
        material: what it reads.
        libraries: bytes that this process held before the model was loaded.
    """
    if is_zero3():
        return {"reason": "ZeRO-3 would split the model that is planned with"}
    try:
        machine = _here(config)
        shape = copy.deepcopy(model.config)
        if hasattr(shape, "quantization_config"):
            del shape.quantization_config
        held: Any = str(model.dtype).removeprefix("torch.")
        loading = replace(part_of(config, LoadingConfig), dtype=held)
        blank = BlankModel.of(
            shape, tokenizer, loading, part_of(config, LearnerConfig), machine.device, model.generation_config, is_fitted=True
        )
        return _planned(
            blank, machine, material, config, libraries if machine.device == "cpu" else int(machine.context)
        ).to_dict()
    except Exception as error:  # of families that need values, or code of their own: a run does not end for its plan
        return {"reason": first_line(error)}


def beside(plan: Mapping[str, Any], seen: Mapping[str, Any], peak_bytes: int) -> dict[str, Any]:
    """A plan with what was seen of the run: FLOPs are those of a planned token, as often as there were tokens.

    Args:
        plan: as `plan_inside` returns it.
        seen: as `meter.Seen.to_dict` returns it.
        peak_bytes: highest memory of the process, or of its GPU.
    """
    tokens: dict[str, int] = dict.fromkeys(("read", "written", "trained"), 0)
    for kinds in seen["tokens"].values():
        tokens = {kind: tokens[kind] + kinds.get(kind, 0) for kind in tokens}
    flops = 0.0
    for cost in plan.get("phases", ()):
        was_planned = sum(cost[kind] for kind in tokens)
        passed = sum(seen["tokens"].get(cost["phase"], {}).values())
        flops += cost["flops"] * passed / was_planned if was_planned else 0.0
    return {**plan, "seen": {"peak_bytes": peak_bytes, "tokens": tokens, "flops": flops, "by_phase": dict(seen)}}


def libraries_bytes() -> int:
    """Bytes of RAM that this process holds now, before it has a model: Python, torch, and whatever a run imports later."""
    import psutil
    from accelerate.utils import is_deepspeed_available

    with progress.hidden():
        for name in ("transformers.trainer", "matplotlib.figure", *(["deepspeed"] if is_deepspeed_available() else [])):
            importlib.import_module(name)
    return int(psutil.Process().memory_info().rss)


def _planned(blank: BlankModel, machine: Machine, material: Material, config: Any, libraries: int) -> RunPlan:
    learner, dreaming = part_of(config, LearnerConfig), part_of(config, DreamingConfig)
    with progress.hidden(), alone():
        return planned(blank, machine, material, config, learner, dreaming, libraries)


def _here(config: Any) -> Machine:
    """The machine that this process runs on."""
    import torch

    if config.device.type == "cpu":
        return Machine.of(None)
    memory = torch.cuda.get_device_properties(config.device).total_memory / GIGA
    return Machine.of(f"{config.world_size}x{memory:.0f}")
