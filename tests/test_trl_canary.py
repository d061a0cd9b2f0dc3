"""The private parts of TRL that baselines and benchmarks build on are still there, with the parameters they expect.

TRL's minor version is pinned in pyproject.toml because of them: when this fails, look at what changed before moving the pin.
"""

import importlib
import inspect
import warnings

import pytest

TRAINER = "trl.trainer.distillation_trainer"
SEAMS = {
    f"{TRAINER}:_chunked_divergence_loss": [
        "student_hidden_states",
        "teacher_hidden_states",
        "student_lm_head_weight",
        "teacher_lm_head_weight",
        "completion_mask",
        "beta",
        "num_items_in_batch",
        "student_lm_head_bias",
        "teacher_lm_head_bias",
        "student_logit_scale",
        "teacher_logit_scale",
        "student_final_logit_softcapping",
        "teacher_final_logit_softcapping",
        "temperature",
    ],
    f"{TRAINER}:DistillationTrainer._generate_and_score_completions": ["self", "inputs"],
    f"{TRAINER}:DistillationTrainer._compute_loss": ["self", "unwrapped_student", "inputs", "num_items_in_batch"],
    f"{TRAINER}:DistillationTrainer.compute_loss": ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
    f"{TRAINER}:DistillationTrainer._prepare_inputs": ["self", "generation_batch"],
    f"{TRAINER}:DistillationTrainer._generate": ["self", "prompts"],
    f"{TRAINER}:DistillationTrainer._tokenize_prompts": ["self", "prompts"],
    f"{TRAINER}:DistillationTrainer._set_signature_columns_if_needed": ["self"],
    f"{TRAINER}:DistillationTrainer._get_train_sampler": ["self", "dataset"],
    "trl.trainer.grpo_trainer:GRPOTrainer._calculate_rewards": [
        "self", "inputs", "prompts", "completions", "completion_ids_list",
    ],
}  # fmt: skip


def find(name):
    warnings.simplefilter("ignore")
    module, _, path = name.partition(":")
    found = importlib.import_module(module)
    for part in path.split("."):
        assert hasattr(found, part), f"{name} is gone"
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", SEAMS)
def test_seam_is_there(name):
    assert list(inspect.signature(find(name)).parameters) == SEAMS[name]


def test_last_hidden_state_takes_tokens_and_how_many_to_keep():
    seam = find(f"{TRAINER}:DistillationTrainer._get_last_hidden_state")
    expected = ["self", "unwrapped_model", "input_ids", "attention_mask", "logits_to_keep"]
    assert list(inspect.signature(seam).parameters)[:5] == expected


def test_fused_head():
    seam = find("trl.trainer:add_fused_lm_head")
    assert next(iter(inspect.signature(seam).parameters)) == "model"
