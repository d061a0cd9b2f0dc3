"""What `--help` shows: titled groups, and of a command's many options those that most people set; ``--help_all`` lists all."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

__all__ = ["COMMON", "arrange"]

# The class that brings an option in -> the title of its group.  Fields of transformers stand with the training.
TITLES = {
    "SleepArguments": "data",
    "TalkArguments": "chat",
    "ChatArguments": "chat",
    "ServeArguments": "server",
    "PlanArguments": "machine",
    "BaselineArguments": "method",
    "VisionArguments": "data, model and method",
    "DataConfig": "data",
    "GeneratorArguments": "data",
    "ArcArguments": "tasks and their trials",
    "DisentangledArguments": "data",
    "ModelName": "model",
    "LoadingConfig": "model",
    "EngineConfig": "model",
    "ImageTrainingConfig": "data and training",
    "IncrementalTrainingConfig": "stream, classifier and rehearsal",
    "GenerativeReplayConfig": "MyGO",
    "Dream2LearnConfig": "Dream2Learn",
    "DisentangledConfig": "sprites, canonicalizer and exemplars",
    "TinyDiffusionConfig": "training",
    "KnowledgeSeedingConfig": "a night: questions and training",
    "LearnerConfig": "experts and answers",
    "GateConfig": "gate",
    "DreamingConfig": "dreaming",
    "HubConfig": "publishing",
    "RunConfig": "run",
    "SeedArguments": "run",
}
RUN = ("output_dir", "seed", "seeds", "resume", "overwrite", "config", "traceback", "help", "help_all")
COMMON = frozenset(
    (
        *RUN,
        *("run", "compare", "sleep_every", "reply_tokens", "host", "port", "api_key", "remember"),
        *("gpus", "json"),
        *("model", "dtype", "load_in_4bit", "load_in_8bit", "trust_remote_code", "attn_implementation", "generation"),
        *("dataset", "dataset_split", "test_dataset", "text_column", "label_column", "answer_column", "passages_per_night"),
        *("nights", "order", "general_prompts", "anchors"),
        *("styles", "num_train_epochs", "max_steps", "learning_rate", "per_device_train_batch_size", "rehearse_as_new"),
        *("expert_slots", "expert_width", "expert_layers", "chain", "context_max_tokens", "max_new_tokens"),
        *("gate", "gate_anchor_kl", "gate_anchor_drop", "gate_min_gain", "gate_retention_drop"),
        *("push_to_hub_repo", "push_to_hub_form", "push_to_hub_rehearsal", "dream_rounds", "dream_held_out", "dream_set"),
        # images
        *("backbone", "pretrained", "method", "experiences", "scenario", "domains", "class_order", "image_size", "channels"),
        *("test_share", "augmentation", "buffer_size", "replay_batch_size", "hidden_size", "replay_space", "generator"),
        *("sleep_steps", "dreams", "oracle", "dream_updates", "probes", "others_dataset", "classes_per_experience", "output"),
        *("factor_values", "novel_classes", "exemplar_source", "match", "arc_tasks", "largest_grid", "trial_rows"),
        *("classes", "images", "invert", "autoencoder_steps"),
    )
)


def arrange(parser: argparse.ArgumentParser, classes: Sequence[type]) -> None:
    """Put the options of a parser into titled groups, by the dataclass that each field comes from."""
    homes: dict[str, str] = {}
    for one in classes:
        for owner in reversed(one.__mro__):
            if dataclasses.is_dataclass(owner) and owner.__name__ in TITLES:
                homes |= dict.fromkeys(owner.__dict__.get("__annotations__", {}), TITLES[owner.__name__])
    homes |= dict.fromkeys(RUN, "run")
    groups = {title: parser.add_argument_group(title) for title in dict.fromkeys((*TITLES.values(), "run"))}
    for action in parser._actions:
        title = homes.get(action.dest)
        if title is None or not action.option_strings:
            continue
        for group in parser._action_groups:
            if action in group._group_actions:
                group._group_actions.remove(action)
        groups[title]._group_actions.append(action)
