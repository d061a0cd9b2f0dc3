"""sleepkit: give a model a night's sleep; what it read today becomes stable weights, without forgetting.

    from sleepkit import ExpertBank, KnowledgeSeedingConfig, KnowledgeSeedingTrainer, SleepCycle

Names are imported when they are first used, so that `import sleepkit` needs neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "ContextMemory": "sleepkit.language.context_memory",
    "Experience": "sleepkit.language.data.experience",
    "ExpertBank": "sleepkit.language.expert_bank",
    "ExpertBankConfig": "sleepkit.language.experts",
    "KnowledgeSeedingConfig": "sleepkit.language.knowledge_seeding_config",
    "KnowledgeSeedingTrainer": "sleepkit.language.knowledge_seeding_trainer",
    "ImageLearner": "sleepkit.vision.learner",
    "IncrementalClassifier": "sleepkit.vision.classifier",
    "LanguageLearner": "sleepkit.language.learner",
    "Question": "sleepkit.language.data.experience",
    "ReplayMemory": "sleepkit.memory",
    "RetentionGate": "sleepkit.gate",
    "SleepCallback": "sleepkit.schedule",
    "SleepCycle": "sleepkit.cycle",
    "SleepSchedule": "sleepkit.schedule",
    "SleepkitError": "sleepkit.errors",
    "build_stream": "sleepkit.vision.streams",
    "load_experiences": "sleepkit.language.data.documents",
    "load_images": "sleepkit.vision.images",
    "load_model": "sleepkit.language.model_io",
    "save_model": "sleepkit.language.model_io",
    "write_material": "sleepkit.language.material",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sleepkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
