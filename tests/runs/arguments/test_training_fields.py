"""Fields of transformers.TrainingArguments: each means something in a night or is refused, and no secret goes along."""

import dataclasses
import json
import pickle

import pytest
import torch
from transformers import TrainingArguments

from sleepkit.errors import SleepkitError
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.runs.arguments.language import parse
from sleepkit.utils.training_fields import REFUSED, USED, check_machinery
from sleepkit.vision.dream2learn.tiny_diffusion import TinyDiffusionConfig
from sleepkit.vision.incremental.config import IncrementalTrainingConfig
from sleepkit.vision.mygo.config import GenerativeReplayConfig

CONFIGS = [KnowledgeSeedingConfig, IncrementalTrainingConfig, GenerativeReplayConfig, TinyDiffusionConfig]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_process_takes_one_of_eight_gpus(config, monkeypatch, tmp_path):
    """`Trainer` would wrap the model in `nn.DataParallel`, and take eight times the batch."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    args = config(output_dir=str(tmp_path), per_device_train_batch_size=4)
    assert (args.n_gpu, args.train_batch_size) == (1, 4)
    assert dataclasses.replace(args, seed=1).n_gpu == 1


@pytest.mark.parametrize("config", CONFIGS)
def test_fsdp_is_refused(config, monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(SleepkitError, match="FSDP splits weights .* launch with accelerate_configs/multi_gpu.yaml"):
        config(output_dir=str(tmp_path), use_cpu=True)


def refused(words, *line):
    with pytest.raises(SleepkitError) as error:
        parse(["--dataset", "x", *line])
    said = str(error.value)
    assert words in said and "\n" not in said
    return said


def test_each_field_of_transformers_is_in_one_table():
    """A field of a new version is refused; whoever raises the pin decides what it means."""
    names = {item.name for item in dataclasses.fields(TrainingArguments)}
    assert not USED & set(REFUSED)
    assert names == USED | set(REFUSED)


# What a user may type for the fields that mean something else than they say, or nothing; one value each.
TYPED = {
    **dict.fromkeys(("eval_steps", "eval_delay", "eval_accumulation_steps", "data_seed", "neftune_noise_alpha"), "5"),
    **{"hub_model_id": "a/b", "hub_strategy": "end", "hub_revision": "x", "metric_for_best_model": "loss"},
    **{"eval_strategy": "steps", "resume_from_checkpoint": "x", "include_for_metrics": "inputs", "label_names": "labels"},
    **{"label_smoothing_factor": "0.1", "length_column_name": "size", "train_sampling_strategy": "group_by_length"},
    **{"torch_compile_backend": "inductor", "torch_compile_mode": "default", "optim_target_modules": "all-linear"},
    **{"fsdp": "full_shard", "fsdp_config": '{"a": 1}', "deepspeed": "ds.json", "debug": "underflow_overflow"},
    **{"accelerator_config": '{"split_batches": true}', "include_num_input_tokens_seen": "all"},
    **{"dataloader_multiprocessing_context": "spawn", "liger_kernel_config": '{"rope": true}', "parallelism_config": "x"},
    **dict.fromkeys(
        ("average_tokens_across_devices", "eval_do_concat_batches", "dataloader_in_order", "skip_memory_metrics"), "false"
    ),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_each_refused_field_is_one_line_that_says_what_to_do(name):
    said = refused("", f"--{name}", TYPED.get(name, "true"))
    assert name in said and ("; " in said)
    if "hub" in name:
        assert "push_to_hub_repo" in said


@pytest.mark.parametrize("config", CONFIGS)
def test_the_same_from_python(config, tmp_path):
    for name, value in (("push_to_hub", True), ("eval_strategy", "steps"), ("load_best_model_at_end", True), ("deepspeed", "x")):
        with pytest.raises(SleepkitError, match=f"^{name} is"):
            config(output_dir=str(tmp_path), use_cpu=True, **{name: value})


@pytest.mark.parametrize("config", CONFIGS)
def test_a_configuration_can_be_copied(config, tmp_path):
    """Nights are: what transformers fills in is no value that somebody gave."""
    first = config(output_dir=str(tmp_path), use_cpu=True, seed=2**63 - 1)
    again = dataclasses.replace(first, seed=3, hub_token=None)
    assert (again.seed, again.output_dir) == (3, first.output_dir)


@pytest.mark.parametrize(
    "line",
    [
        "--learning_rate 0",
        "--learning_rate -1",
        "--learning_rate nan",
        "--learning_rate inf",
        "--learning_rate=",
        "--learning_rate \N{MINUS SIGN}5",
        "--per_device_train_batch_size 0",
        "--per_device_train_batch_size -1",
        "--per_device_train_batch_size 1.5",
        "--max_steps 0",
        "--max_steps -2",
        "--num_train_epochs 0",
        "--num_train_epochs -1",
        "--num_train_epochs nan",
        "--warmup_steps -1",
        "--warmup_steps 1.5",
        "--gradient_accumulation_steps 0",
        "--max_grad_norm -1",
        "--max_grad_norm inf",
        "--adam_beta1 1",
        "--adam_beta2 -0.1",
        "--adam_beta2 1.5",
        "--adam_epsilon 0",
        "--weight_decay -0.1",
        "--seed -1",
        f"--seed {2**63}",
        "--seed 1.5",
        f"--seed {'9' * 5000}",
        "--logging_steps 0",
        "--logging_steps -1",
        "--logging_steps 1.5",
        "--logging_steps nan",
        "--save_strategy epoch",
        "--save_strategy best",
        "--save_strategy sometimes",
        "--save_strategy steps --save_steps 0",
        "--save_strategy steps --save_steps 2.5",
        "--save_strategy steps --save_total_limit 0",
        "--save_steps 50",
        "--save_total_limit 2",
        "--optim lomo",
        "--optim adalomo",
        "--optim galore_adamw",
        "--optim apollo_adamw",
        "--optim schedule_free_adamw",
        "--optim adamw_torch_npu_fused",
        "--optim adamw",
        "--optim_args weight_decay=0.1",
        "--optim_args lr=x",
        "--optim_args fish=1",
        "--lr_scheduler_type round",
        "--lr_scheduler_type warmup_stable_decay",
        "--lr_scheduler_type cosine_with_min_lr",
        "--lr_scheduler_type reduce_lr_on_plateau",
        "--lr_scheduler_type greedy",
        '--lr_scheduler_kwargs {"fish":1}',
        "--lr_scheduler_kwargs fish",
        "--lr_scheduler_kwargs {",
        "--report_to abacus",
        "--report_to none abacus",
        "--logging_strategy sometimes",
        "--log_level loud",
        "--ddp_timeout 0",
        "--ddp_backend pigeon",
        "--torch_empty_cache_steps 0",
        "--fp16 --use_cpu",
        "--bf16 --fp16 --use_cpu",
        "--dataloader_num_workers 2",
        "--per_device_eval_batch_size 4",
        "--remove_unused_columns true",
        "--hub_private_repo false",
        "--seeds 1 -1",
        f"--seeds {2**63}",
    ],
)
def test_what_trainer_would_judge_later_is_one_line_now(line):
    words = line.split()
    name = next(word for word in words[::-1] if word.startswith("--")).lstrip("-").split("=")[0]
    said = refused("", *words)
    assert any(one in said for one in (name, "lr_scheduler_type", "save_steps", "fp16")), said


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "mlflow", "comet_ml", "trackio"])
def test_a_tracker_that_is_missing_is_refused(tracker, monkeypatch):
    import transformers.integrations.integration_utils as integrations

    class Missing:
        def __init__(self):
            raise RuntimeError(f"{tracker} is not installed")

    monkeypatch.setitem(integrations.INTEGRATION_TO_CALLBACK, tracker, Missing)
    said = refused(f"{tracker} is not installed", "--report_to", tracker)
    assert said.startswith(f"report_to ['{tracker}'] cannot be used")


def test_a_package_that_is_missing_is_refused(monkeypatch):
    from transformers import Trainer

    def missing(*_):
        raise ImportError("You need to install `bitsandbytes`:\npip install it")

    monkeypatch.setattr(Trainer, "get_optimizer_cls_and_kwargs", staticmethod(missing))
    assert "optim 'adamw_bnb_8bit' cannot be used (You need to install" in refused("", "--optim", "adamw_bnb_8bit")


@pytest.mark.parametrize(
    "line",
    [
        "--optim adafactor",
        "--optim sgd",
        "--lr_scheduler_type constant_with_warmup",
        '--lr_scheduler_type cosine_with_min_lr --lr_scheduler_kwargs {"min_lr":1e-5}',
        "--warmup_steps 0.1",
        "--max_steps -1 --num_train_epochs 0.5",
        "--learning_rate 1e30",
        "--seed 20240115",
        f"--seed {2**63 - 1}",
        "--seeds 20240115 0",
        "--save_strategy steps --save_steps 5 --save_total_limit 1",
        "--report_to none",
        "--logging_strategy epoch",
        "--bf16 --use_cpu",
        "--full_determinism true",
        "--activation_checkpointing true",
        "--hub_private_repo true",
        "--run_name mine --project ours",
        "--hub_strategy every_save --push_to_hub false --eval_strategy no",  # their defaults
    ],
)
def test_what_means_something_is_taken(line):
    assert parse(["--dataset", "x", *line.split()])


def test_nothing_is_written_before_it_is_refused(tmp_path):
    refused("", "--output_dir", str(tmp_path / "run"), "--optim", "lomo")
    refused("", "--output_dir", str(tmp_path / "run"), "--report_to", "abacus")
    assert not list(tmp_path.iterdir())


def test_the_machinery_draws_no_random_number():
    config = KnowledgeSeedingConfig(use_cpu=True)
    torch.manual_seed(1)
    check_machinery(config)
    found = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(found, torch.rand(3))


def test_a_night_knows_no_token(tmp_path):
    from sleepkit.language.dreaming.config import DreamingConfig
    from sleepkit.language.dreaming.policy import policy_settings
    from sleepkit.language.seeding.lora import night_settings, trl_settings
    from sleepkit.utils.training_fields import settings

    line = ["--dataset", "x", "--hub_token", "hf_planted", "--output_dir", str(tmp_path), "--use_cpu"]
    args, config = parse(line)
    assert config.hub_token == "hf_planted"  # for the push at the end
    nights = [night_settings(config, 1, tmp_path), policy_settings(config, DreamingConfig(), tmp_path, 1)]
    for night in nights:
        assert night.hub_token is None and night.push_to_hub is False and night.hub_model_id is None
        assert b"hf_planted" not in pickle.dumps(night)
    assert "hf_planted" not in json.dumps([settings(args, config), trl_settings(config, 1, tmp_path)], default=str)
    assert "hf_planted" not in repr(config)


def test_trainers_of_images_know_no_token(tmp_path):
    from sleepkit.vision.incremental.trainer import IncrementalTrainer, TensorRows

    config = IncrementalTrainingConfig(output_dir=str(tmp_path), use_cpu=True, hub_token="hf_planted")
    rows = TensorRows(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    trainer = IncrementalTrainer(torch.nn.Linear(1, 1), lambda *_: None, config, rows, 1, tmp_path)
    assert trainer.args.hub_token is None and not trainer.args.push_to_hub


def test_a_space_of_a_tracker_is_private(tmp_path):
    config = KnowledgeSeedingConfig(output_dir=str(tmp_path), use_cpu=True, trackio_space_id="me/space")
    assert config.hub_private_repo is True and dataclasses.replace(config, seed=1).hub_private_repo is True
