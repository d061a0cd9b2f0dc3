"""sleepkit: give a model a night's sleep; what it read today becomes stable weights, without forgetting.

    from sleepkit import ExpertBank, KnowledgeSeedingConfig, KnowledgeSeedingTrainer, SleepCycle

Names are imported when they are first used, so that `import sleepkit` needs neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "ContextMemory": "sleepkit.language.questions.context",
    "Experience": "sleepkit.language.data.experience",
    "ExpertBank": "sleepkit.language.experts.bank",
    "ExpertBankConfig": "sleepkit.language.experts.units",
    "KnowledgeSeedingConfig": "sleepkit.language.seeding.config",
    "KnowledgeSeedingTrainer": "sleepkit.language.seeding.trainer",
    "ImageLearner": "sleepkit.vision.incremental.learner",
    "IncrementalClassifier": "sleepkit.vision.incremental.classifier",
    "LanguageLearner": "sleepkit.language.learner",
    "Question": "sleepkit.language.data.experience",
    "ReplayMemory": "sleepkit.vision.incremental.replay_buffer",
    "RetentionGate": "sleepkit.cycle.gate",
    "SleepCallback": "sleepkit.language.schedule",
    "SleepCycle": "sleepkit.cycle.cycle",
    "SleepSchedule": "sleepkit.language.schedule",
    "SleepkitError": "sleepkit.errors",
    "build_stream": "sleepkit.vision.data.streams",
    "load_experiences": "sleepkit.language.data.documents",
    "load_images": "sleepkit.vision.data.images",
    "load_model": "sleepkit.language.model_io",
    "save_model": "sleepkit.language.model_io",
    "write_material": "sleepkit.language.questions.material",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sleepkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
