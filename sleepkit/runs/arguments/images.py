"""Arguments of a run on images: the data, the model and the method, beside the fields of the method's configuration.

    parse_vision(["--config", "split_mnist.yaml", "--dataset", "digits/"])  ->  (VisionArguments, IncrementalTrainingConfig)
    parse_mygo(...)                                                         ->  (VisionArguments, GenerativeReplayConfig)

Reading is that of command_line.py beside it: a flat YAML recipe, overridden by the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sleepkit.errors import SleepkitError
from sleepkit.runs.arguments.command_line import read
from sleepkit.runs.arguments.seeds import SeedArguments
from sleepkit.trainers.images import DREAMING, METHODS
from sleepkit.utils.options import option, require_choice

if TYPE_CHECKING:
    from sleepkit.vision.dream2learn.config import Dream2LearnConfig
    from sleepkit.vision.incremental.config import IncrementalTrainingConfig
    from sleepkit.vision.mygo.config import GenerativeReplayConfig

__all__ = ["VisionArguments", "parse_dream2learn", "parse_mygo", "parse_vision"]


@dataclass
class VisionArguments(SeedArguments):
    """Options of a run beside the method's configuration: what is learned, and by which method.

    Raises `SleepkitError` for a value out of range, naming it and what is allowed.
    """

    dataset: str = option("", "Folder with train.npz (val.npz, test.npz), parquet files or class folders; or Hub id. Required.")
    test_dataset: str | None = option(None, "Evaluate on this file, folder or Hub id instead of the data set's own test split.")
    backbone: str = option("cnn", "'cnn', or Hub id or folder of a transformers vision model (ResNet, ViT, ConvNeXt, DINOv2).")
    method: str = option("er", f"One of {', '.join(METHODS)}.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dataset.strip():
            raise SleepkitError("dataset is missing; give --dataset with a folder such as digits/ (train.npz, ...) or a Hub id")
        require_choice(self, "method", METHODS)


def parse_vision(argv: Sequence[str]) -> tuple[VisionArguments, IncrementalTrainingConfig]:
    """Read `--config recipe.yaml` and the command line, which overrides it; errors as in `arguments.parse`."""
    from sleepkit.vision.incremental.config import IncrementalTrainingConfig

    args, config = read(
        argv,
        (VisionArguments, IncrementalTrainingConfig),
        prog="recipes/vision_baseline.py",
        description="Let a classifier meet image classes or domains one after the other.",
    )
    return args, config


def parse_mygo(argv: Sequence[str]) -> tuple[VisionArguments, GenerativeReplayConfig]:
    """Read the arguments of MyGO, whose method is fixed."""
    from sleepkit.vision.mygo.config import GenerativeReplayConfig

    args, config = read(
        argv,
        (VisionArguments, GenerativeReplayConfig),
        prog="recipes/mygo.py",
        description="Let a classifier meet image classes one after the other, and keep them by dreams.",
    )
    if args.method not in (VisionArguments.method, "mygo"):
        raise SleepkitError(f"method is {args.method!r} and recipes/mygo.py has one of its own; use recipes/vision_baseline.py")
    args.method = "mygo"
    return args, config


def parse_dream2learn(argv: Sequence[str]) -> tuple[VisionArguments, Dream2LearnConfig]:
    """Read the arguments of Dream2Learn; ``method`` is that of the run with dreams."""
    from sleepkit.vision.dream2learn.config import Dream2LearnConfig

    args, config = read(
        argv,
        (VisionArguments, Dream2LearnConfig),
        prog="recipes/dream2learn.py",
        description="Let a classifier dream classes that do not exist, and meet the real ones better prepared.",
    )
    require_choice(args, "method", DREAMING)
    return args, config
