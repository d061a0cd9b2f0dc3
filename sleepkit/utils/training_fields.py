"""Which fields of `transformers.TrainingArguments` mean something in a night, and what their values may be.

    check_training(config)    in each configuration's `__post_init__`: a field that is not used here must have its default
    check_launch(config)      at the end of it: what the launcher asks for and no training here can do
    check_machinery(config)   when a command is parsed: what transformers itself would refuse after the first evaluation

A night is no training of its own: sleepkit measures, keeps and publishes, so transformers' fields for that would do something
else than they say.  Fields that are in neither table, such as those of later versions, are refused too.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from sleepkit.errors import SleepkitError, first_line
from sleepkit.utils.options import check_numbers, require, require_choice, require_seed, shown

if TYPE_CHECKING:
    from transformers import TrainingArguments

__all__ = [
    "DDP_TIMEOUT",
    "DDP_TIMEOUT_HELP",
    "REFUSED",
    "USED",
    "check_launch",
    "check_machinery",
    "check_training",
    "one_device",
    "own_fields",
    "refuse_zero3",
    "settings",
]

USED = frozenset(
    # fmt: off
    # steps and optimizer
    "per_device_train_batch_size num_train_epochs max_steps gradient_accumulation_steps learning_rate lr_scheduler_type "
    "lr_scheduler_kwargs warmup_steps optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm "
    # devices and precision
    "bf16 fp16 tf32 use_cpu per_device_eval_batch_size torch_empty_cache_steps local_rank ddp_find_unused_parameters "
    "ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout dataloader_num_workers "
    "dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor activation_checkpointing "
    "activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs "
    # seeds, places and logs
    "seed full_determinism output_dir save_strategy save_steps save_total_limit save_on_each_node hub_token hub_private_repo "
    "logging_strategy logging_steps logging_first_step logging_nan_inf_filter log_level log_level_replica log_on_each_node "
    "disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id".split()
    # fmt: on
)

DDP_TIMEOUT = 2 * 60 * 60  # an error of one process ends the others at once: this is for what the first does alone
DDP_TIMEOUT_HELP = "Seconds that processes wait for one another; the first may upload a large model meanwhile."

_PUSH = "give push_to_hub_repo with owner/name, which uploads what slept, privately, at the end"
_MEASURES = "a run measures between its nights and never inside one; leave it out"
_GATE = "the gate judges nights and keeps or undoes them (gate, gate_min_gain, gate_anchor_kl); leave it out"
_LAUNCH = "give it to the launcher: accelerate launch --config_file accelerate_configs/<name>.yaml"
_OWN_LOSS = "a night has its own loss, which it does not reach; leave it out"
_RESUMES = "a run that was stopped goes on by the same command (resume); leave it out"
_PLAN = "a night plans its batches itself; leave it out"

REFUSED: dict[str, str] = {
    **dict.fromkeys(("push_to_hub", "hub_model_id", "hub_strategy", "hub_always_push", "hub_revision"), _PUSH),
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model", "greater_is_better"), _GATE),
    **dict.fromkeys(
        ("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "eval_do_concat_batches", "eval_use_gather_object"),
        _MEASURES,
    ),
    **dict.fromkeys(
        ("eval_accumulation_steps", "include_for_metrics", "batch_eval_metrics", "prediction_loss_only", "do_eval", "do_predict"),
        _MEASURES,
    ),
    **dict.fromkeys(
        ("resume_from_checkpoint", "ignore_data_skip", "restore_callback_states_from_checkpoint", "save_only_model"), _RESUMES
    ),
    "enable_jit_checkpoint": "it would end a night early and take it for whole; stop a run with Ctrl-C or SIGTERM instead",
    "do_train": "a run always trains; leave it out",
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed", "accelerator_config", "parallelism_config"), _LAUNCH),
    **dict.fromkeys(
        ("label_smoothing_factor", "use_liger_kernel", "liger_kernel_config", "average_tokens_across_devices", "label_names"),
        _OWN_LOSS,
    ),
    **dict.fromkeys(("auto_find_batch_size", "train_sampling_strategy", "length_column_name", "dataloader_drop_last"), _PLAN),
    **dict.fromkeys(("dataloader_in_order", "dataloader_multiprocessing_context", "remove_unused_columns"), _PLAN),
    "data_seed": "one seed draws everything; give seed",
    **dict.fromkeys(("bf16_full_eval", "fp16_full_eval"), "weights are measured as they are; give bf16, or load them with dtype"),
    **dict.fromkeys(
        ("torch_compile", "torch_compile_backend", "torch_compile_mode"),
        "a night changes the model, which would be compiled again at each step; leave it out",
    ),
    "use_cache": "answers are generated with a cache and trained without; leave it out",
    "neftune_noise_alpha": "noise in the embeddings would reach the teacher too; leave it out",
    "optim_target_modules": "it is for optimizers that a night cannot use; leave it out",
    "include_num_input_tokens_seen": "tokens are counted anyway (train_tokens in results.json); leave it out",
    "skip_memory_metrics": "its numbers would go nowhere; leave it out",
    "debug": "it leaves hooks on the model; use --traceback",
}

_UNUSABLE_OPTIMIZERS = ("lomo", "galore", "apollo", "schedule_free")  # they step while gradients are made, or average weights
_COUNTS = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "ddp_timeout")
_OPTIONAL_COUNTS = ("save_total_limit", "torch_empty_cache_steps", "dataloader_prefetch_factor", "ddp_bucket_cap_mb")
_ABOVE_ZERO = ("num_train_epochs", "learning_rate", "adam_epsilon")
_FROM_ZERO = ("weight_decay", "max_grad_norm", "dataloader_num_workers")
_BACKENDS = (None, "nccl", "gloo", "mpi", "ccl", "hccl", "cncl", "mccl")


def check_training(config: TrainingArguments, unused: Mapping[str, str] | None = None) -> None:
    """Raise `SleepkitError` for a field that is not used here and has not its default, or for a value out of range.

    Args:
        config: before `TrainingArguments.__post_init__`, which would fill in other fields.
        unused: further fields that this configuration does not use, and what to do instead.
    """
    from transformers import TrainingArguments

    own = {item.name: item for item in dataclasses.fields(config)}
    for item in dataclasses.fields(TrainingArguments):
        why = {**REFUSED, **(unused or {})}.get(item.name)
        if item.name in USED and why is None:
            continue
        value = getattr(config, item.name)
        if not _is_default(item.name, value, own[item.name]):
            raise SleepkitError(f"{item.name} is {shown(value)}; {why or 'it does nothing here, leave it out'}")
    check_numbers(config)
    _check_values(config)
    _recompute_with_gradients(config)
    if config.trackio_space_id or config.trackio_bucket_id:
        config.hub_private_repo = True  # by which trackio makes its Space


def check_launch(config: TrainingArguments) -> None:
    """Take one device for this process, and refuse what the launcher asks for and no training here can do.

    Args:
        config: after `TrainingArguments.__post_init__`, which reads what the launcher has said.

    Raises:
        SleepkitError: FSDP, or DeepSpeed in half precision, which casts all weights that train.
    """
    one_device(config)
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1"):
        raise SleepkitError(
            "FSDP splits weights that a night writes and answers with, whole, on each process; launch with "
            "accelerate_configs/multi_gpu.yaml, and load a model that does not fit on one GPU with load_in_4bit"
        )
    options = config.deepspeed_plugin.deepspeed_config if config.deepspeed_plugin is not None else {}
    for name in ("bf16", "fp16"):
        if str(options.get(name, {}).get("enabled", False)).lower() == "true":
            raise SleepkitError(
                f"DeepSpeed is launched in {name}, in which it would train too; launch with mixed_precision 'no', as "
                "accelerate_configs/ has it: frozen weights stay in the type that dtype says, what trains is float32"
            )


def one_device(args: TrainingArguments) -> None:
    """Let a process use one GPU: `Trainer` would wrap a model in `nn.DataParallel` for several, and take so many batches."""
    args._n_gpu = min(1, args.n_gpu)


def refuse_zero3(what: str, instead: str = "") -> None:
    """Raise `SleepkitError` under ZeRO-3.

    Args:
        what: needs whole weights, as the beginning of a sentence: "dream_rounds tries many LoRAs".
        instead: another remedy than another launch, such as "or dream_rounds 0".
    """
    from transformers.integrations import is_deepspeed_zero3_enabled  # type: ignore[attr-defined]

    if is_deepspeed_zero3_enabled():
        remedy = f"use ZeRO-2 or less, or accelerate_configs/multi_gpu.yaml{f', {instead}' if instead else ''}"
        raise SleepkitError(f"{what} on whole weights, which ZeRO-3 splits; {remedy}")


def _is_default(name: str, value: Any, item: dataclasses.Field[Any]) -> bool:
    """Whether a field has its default, as it stands in the class or as transformers has filled it in (of a copy)."""
    default = item.default_factory() if callable(item.default_factory) else item.default
    if value is None or value == default:
        return True
    if name == "accelerator_config":
        from transformers.trainer_pt_utils import AcceleratorConfig

        return bool(value == AcceleratorConfig())
    return _is_off(value) and _is_off(default)


def _is_off(value: Any) -> bool:
    """Empty texts and lists, False, None and "no" say the same."""
    return not value or value == "no"


def _check_values(config: Any) -> None:
    from transformers import IntervalStrategy, SchedulerType
    from transformers.trainer_utils import SaveStrategy
    from transformers.training_args import OptimizerNames

    require_seed("seed", config.seed)
    require(config, _COUNTS, lambda value: value >= 1, "a whole number of at least 1")
    require(config, _OPTIONAL_COUNTS, lambda value: value is None or value >= 1, "a whole number of at least 1")
    require(config, ("max_steps",), lambda value: value == -1 or value >= 1, "at least 1, or -1 to go by num_train_epochs")
    require(config, _ABOVE_ZERO, lambda value: value > 0, "a number above 0")
    require(config, _FROM_ZERO, lambda value: value >= 0, "a number of at least 0")
    require(config, ("adam_beta1", "adam_beta2"), lambda value: 0 <= value < 1, "a number from 0 to 1, below 1")
    wanted = "a whole number of steps, or a share of them below 1"
    require(config, ("warmup_steps",), lambda value: 0 <= value < 1 or value == int(value) > 0, wanted)
    require(config, ("logging_steps", "save_steps"), lambda value: 0 < value < 1 or value == int(value) > 0, wanted)
    require(config, ("hub_private_repo",), lambda value: value is not False, "true: uploads are private; make them public there")
    require_choice(config, "ddp_backend", _BACKENDS)
    for name in ("log_level", "log_level_replica"):
        require_choice(config, name, ("passive", "detail", "debug", "info", "warning", "error", "critical"))
    for name in ("lr_scheduler_kwargs", "activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"):
        require(config, (name,), _is_mapping, 'a mapping, such as {"min_lr": 1e-5}')
    kinds: dict[str, Any] = {"lr_scheduler_type": SchedulerType, "optim": OptimizerNames, "logging_strategy": IntervalStrategy}
    for name, kind in {**kinds, "save_strategy": SaveStrategy}.items():
        require_choice(config, name, [one.value for one in kind])
    if config.lr_scheduler_type in (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY):
        raise SleepkitError(f"lr_scheduler_type is {shown(config.lr_scheduler_type)}; {_MEASURES}")
    optim = str(getattr(config.optim, "value", config.optim))
    if any(part in optim for part in _UNUSABLE_OPTIMIZERS):
        raise SleepkitError(f"optim is {optim!r}, which cannot train experts; use adamw_torch or another plain one")
    if config.dataloader_persistent_workers and not config.dataloader_num_workers:
        raise SleepkitError("dataloader_persistent_workers is True and there are no workers; give dataloader_num_workers too")


def _recompute_with_gradients(config: TrainingArguments) -> None:
    """Set ``use_reentrant`` to false: reentrant recomputation gives no gradient to what no trained layer stands below."""
    for name in ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"):
        given = getattr(config, name)
        options = json.loads(given) if isinstance(given, str) else given
        if options is None:
            continue
        if options.get("use_reentrant"):
            from transformers.utils import logging

            logging.get_logger(__name__).warning(
                f"{name} asks for use_reentrant, which passes no gradient to experts above frozen layers: layers are recomputed "
                "without it, to the same numbers"
            )
        setattr(config, name, {**options, "use_reentrant": False})


def _is_mapping(value: Any) -> bool:
    """A mapping, as JSON or read already, or nothing."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return False
    return value is None or isinstance(value, dict)


def check_machinery(config: TrainingArguments) -> None:
    """Build what a night would build first: optimizer, schedule and trackers.

    Raises:
        SleepkitError: one of them is unknown, is not installed, or does not take its options; or checkpoints were described
            and none are written.
    """
    import torch
    from transformers import Trainer, get_scheduler
    from transformers.integrations import get_reporting_integration_callbacks  # type: ignore[attr-defined]

    if config.fp16 and config.device.type == "cpu":
        raise SleepkitError("fp16 is True and a CPU cannot train in it; use bf16, or leave it out")
    _check_saves(config)
    weight = torch.nn.Parameter(torch.zeros(1, device=config.device))
    with _refusing(config, "optim", "optim_args"):
        cls, options = Trainer.get_optimizer_cls_and_kwargs(config)
        plain = copy.copy(config)
        plain.optim_args = None
        if config.optim_args is not None and Trainer.get_optimizer_cls_and_kwargs(plain) == (cls, options):
            raise ValueError("this optimizer takes none of these arguments, or they have its defaults")
        optimizer: Any = cls([weight], **options)
    with _refusing(config, "lr_scheduler_type", "lr_scheduler_kwargs"):
        steps = config.max_steps if config.max_steps > 0 else 1000
        schedule = get_scheduler(
            config.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=config.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=config.lr_scheduler_kwargs,  # type: ignore[arg-type]
        )
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        schedule.step()
    with _refusing(config, "report_to"):
        trackers: list[Callable[[], Any]] = get_reporting_integration_callbacks(config.report_to)
        for tracker in trackers:
            tracker()


def _check_saves(config: TrainingArguments) -> None:
    if str(getattr(config.save_strategy, "value", config.save_strategy)) != "no":
        return
    own = {item.name: item for item in dataclasses.fields(config)}
    for name in ("save_steps", "save_total_limit", "save_on_each_node"):
        if not _is_default(name, getattr(config, name), own[name]):
            raise SleepkitError(
                f"{name} is {shown(getattr(config, name))} and save_strategy is 'no', so that nothing is saved inside a night; "
                "leave it out, or give save_strategy steps where it can be given"
            )


@contextmanager
def _refusing(config: TrainingArguments, *names: str) -> Iterator[None]:
    """Turn whatever a library raises for these fields into one line that names them."""
    try:
        yield
    except Exception as error:
        values = " and ".join(f"{name} {shown(getattr(config, name))}" for name in names if getattr(config, name) is not None)
        raise SleepkitError(f"{values} cannot be used ({first_line(error)}); give another, or install what it needs") from error


_NOT_SETTINGS = (
    ("output_dir", "resume", "overwrite", "seeds", "run_name", "project", "report_to", "disable_tqdm", "debug", "seed")
    + ("use_cpu", "local_rank", "accelerator_config", "parallelism_config", "deepspeed", "resume_from_checkpoint")
    + ("gradient_checkpointing", "activation_checkpointing", "gradient_checkpointing_kwargs", "activation_checkpointing_kwargs")
    + ("remove_unused_columns", "trust_remote_code")
)


_NOT_SETTINGS_PREFIXES = ("push_to_hub", "hub_", "log_", "logging_", "save_", "dataloader_", "ddp_", "fsdp", "trackio_")


def settings(args: Any, config: TrainingArguments) -> dict[str, Any]:
    """Return what decides a run's result besides the seed: all fields of this project, and what differs from transformers.

    Left out are places, logs, uploads, access tokens, and how the work is spread over machines: a run may be resumed
    with another of these.
    """
    own = own_fields(type(config))
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


def own_fields(config_class: type) -> set[str]:
    """Fields of this project: those that a configuration adds to transformers' or gives another default."""
    own = [one for one in config_class.__mro__ if one.__module__.startswith("sleepkit")]
    return {name for one in own for name in one.__dict__.get("__annotations__", {})}
