"""sleepkit: give a model a night's sleep; what it read today becomes stable weights, without forgetting.

    from sleepkit import SleepConfig, SleepTrainer

Names are imported when they are first used, so that `import sleepkit` needs neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The public names: for readers, editors and mypy here, for `__getattr__` below; tests/test_public_names.py compares the two.
if TYPE_CHECKING:
    from sleepkit.cycle.cycle import SleepCycle as SleepCycle
    from sleepkit.cycle.gate import RetentionGate as RetentionGate
    from sleepkit.errors import SleepkitError as SleepkitError
    from sleepkit.language.data.documents import load_experiences as load_experiences
    from sleepkit.language.data.experience import Experience as Experience
    from sleepkit.language.data.experience import Question as Question
    from sleepkit.language.experts.bank import ExpertBank as ExpertBank
    from sleepkit.language.experts.units import ExpertBankConfig as ExpertBankConfig
    from sleepkit.language.learner import LanguageLearner as LanguageLearner
    from sleepkit.language.model_io import load_model as load_model
    from sleepkit.language.model_io import save_model as save_model
    from sleepkit.language.questions.context import ContextMemory as ContextMemory
    from sleepkit.language.questions.material import write_material as write_material
    from sleepkit.language.schedule import SleepSchedule as SleepSchedule
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig as KnowledgeSeedingConfig
    from sleepkit.language.seeding.trainer import KnowledgeSeedingTrainer as KnowledgeSeedingTrainer
    from sleepkit.trainer import SleepTrainer as SleepTrainer
    from sleepkit.training.callback import SleepCallback as SleepCallback
    from sleepkit.training.config import SleepConfig as SleepConfig
    from sleepkit.vision.data.images import load_images as load_images
    from sleepkit.vision.data.streams import build_stream as build_stream
    from sleepkit.vision.incremental.classifier import IncrementalClassifier as IncrementalClassifier
    from sleepkit.vision.incremental.learner import ImageLearner as ImageLearner
    from sleepkit.vision.incremental.replay_buffer import ReplayMemory as ReplayMemory
else:
    _HOME = {
        "SleepCycle": "sleepkit.cycle.cycle",
        "RetentionGate": "sleepkit.cycle.gate",
        "SleepkitError": "sleepkit.errors",
        "load_experiences": "sleepkit.language.data.documents",
        "Experience": "sleepkit.language.data.experience",
        "Question": "sleepkit.language.data.experience",
        "ExpertBank": "sleepkit.language.experts.bank",
        "ExpertBankConfig": "sleepkit.language.experts.units",
        "LanguageLearner": "sleepkit.language.learner",
        "load_model": "sleepkit.language.model_io",
        "save_model": "sleepkit.language.model_io",
        "ContextMemory": "sleepkit.language.questions.context",
        "write_material": "sleepkit.language.questions.material",
        "SleepSchedule": "sleepkit.language.schedule",
        "KnowledgeSeedingConfig": "sleepkit.language.seeding.config",
        "KnowledgeSeedingTrainer": "sleepkit.language.seeding.trainer",
        "SleepTrainer": "sleepkit.trainer",
        "SleepCallback": "sleepkit.training.callback",
        "SleepConfig": "sleepkit.training.config",
        "load_images": "sleepkit.vision.data.images",
        "build_stream": "sleepkit.vision.data.streams",
        "IncrementalClassifier": "sleepkit.vision.incremental.classifier",
        "ImageLearner": "sleepkit.vision.incremental.learner",
        "ReplayMemory": "sleepkit.vision.incremental.replay_buffer",
    }
    __all__ = ["__version__", *_HOME]

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'sleepkit' has no attribute {name!r}; dir(sleepkit) lists what there is")
        return getattr(importlib.import_module(_HOME[name]), name)

    def __dir__() -> list[str]:
        return sorted([*globals(), *_HOME])
