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
    from sleepkit.language.questions.context import ContextStore as ContextStore
    from sleepkit.language.questions.examples import write_examples as write_examples
    from sleepkit.language.schedule import SleepSchedule as SleepSchedule
    from sleepkit.language.seeding.config import KnowledgeSeedingConfig as KnowledgeSeedingConfig
    from sleepkit.language.seeding.trainer import KnowledgeSeedingTrainer as KnowledgeSeedingTrainer
    from sleepkit.trainers.callback import SleepCallback as SleepCallback
    from sleepkit.trainers.chat import SleepChat as SleepChat
    from sleepkit.trainers.config import SleepConfig as SleepConfig
    from sleepkit.trainers.disentangled import DisentangledTrainer as DisentangledTrainer
    from sleepkit.trainers.images import Dream2LearnTrainer as Dream2LearnTrainer
    from sleepkit.trainers.images import GenerativeReplayTrainer as GenerativeReplayTrainer
    from sleepkit.trainers.images import ImageTrainer as ImageTrainer
    from sleepkit.trainers.language import SleepTrainer as SleepTrainer
    from sleepkit.vision.data.images import load_images as load_images
    from sleepkit.vision.data.streams import build_stream as build_stream
    from sleepkit.vision.disentangled.config import DisentangledConfig as DisentangledConfig
    from sleepkit.vision.dream2learn.config import Dream2LearnConfig as Dream2LearnConfig
    from sleepkit.vision.incremental.classifier import IncrementalClassifier as IncrementalClassifier
    from sleepkit.vision.incremental.config import IncrementalTrainingConfig as IncrementalTrainingConfig
    from sleepkit.vision.incremental.learner import ImageLearner as ImageLearner
    from sleepkit.vision.incremental.replay_buffer import ReplayBuffer as ReplayBuffer
    from sleepkit.vision.mygo.config import GenerativeReplayConfig as GenerativeReplayConfig
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
        "ContextStore": "sleepkit.language.questions.context",
        "write_examples": "sleepkit.language.questions.examples",
        "SleepSchedule": "sleepkit.language.schedule",
        "KnowledgeSeedingConfig": "sleepkit.language.seeding.config",
        "KnowledgeSeedingTrainer": "sleepkit.language.seeding.trainer",
        "SleepCallback": "sleepkit.trainers.callback",
        "SleepChat": "sleepkit.trainers.chat",
        "SleepConfig": "sleepkit.trainers.config",
        "DisentangledTrainer": "sleepkit.trainers.disentangled",
        "Dream2LearnTrainer": "sleepkit.trainers.images",
        "GenerativeReplayTrainer": "sleepkit.trainers.images",
        "ImageTrainer": "sleepkit.trainers.images",
        "SleepTrainer": "sleepkit.trainers.language",
        "load_images": "sleepkit.vision.data.images",
        "build_stream": "sleepkit.vision.data.streams",
        "DisentangledConfig": "sleepkit.vision.disentangled.config",
        "Dream2LearnConfig": "sleepkit.vision.dream2learn.config",
        "IncrementalClassifier": "sleepkit.vision.incremental.classifier",
        "IncrementalTrainingConfig": "sleepkit.vision.incremental.config",
        "ImageLearner": "sleepkit.vision.incremental.learner",
        "ReplayBuffer": "sleepkit.vision.incremental.replay_buffer",
        "GenerativeReplayConfig": "sleepkit.vision.mygo.config",
    }
    __all__ = ["__version__", *_HOME]

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'sleepkit' has no attribute {name!r}; dir(sleepkit) lists what there is")
        return getattr(importlib.import_module(_HOME[name]), name)

    def __dir__() -> list[str]:
        return sorted(__all__)
