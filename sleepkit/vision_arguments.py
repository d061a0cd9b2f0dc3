"""Arguments of a run on images: the data, how they become a stream, the model and the method.

    parse_vision(["--config", "split_mnist.yaml", "--dataset", "digits/"])  ->  (VisionArguments, IncrementalTrainingConfig)
    parse_mygo(...)                                                         ->  (VisionArguments, GenerativeReplayConfig)

Reading is that of arguments.py: a flat YAML recipe, overridden by the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from sleepkit.arguments import read
from sleepkit.errors import SleepkitError

if TYPE_CHECKING:
    from sleepkit.vision.generative_replay_config import GenerativeReplayConfig
    from sleepkit.vision.training_config import IncrementalTrainingConfig

__all__ = ["METHODS", "VisionArguments", "parse_mygo", "parse_vision"]

# The methods, and where the learner of each is.
METHODS = {
    "finetune": "learner.ImageLearner",
    "joint": "baselines.Joint",
    "er": "baselines.ExperienceReplay",
    "der": "baselines.DarkExperienceReplay",
    "er_ace": "baselines.ErAce",
    "gdumb": "baselines.GDumb",
    "lwf": "baselines.LwF",
    "ewc": "regularisers.OnlineEwc",
    "si": "regularisers.SynapticIntelligence",
    "generative": "generative_classifier.GenerativeClassifier",
    "frozen": "baselines.FrozenFeatures",
    "mygo": "generative_replay_learner.GenerativeReplay",
}


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class VisionArguments:
    """What is learned in which parts, by which model and method.

    Raises `SleepkitError` for a value out of range, naming it and what is allowed.
    """

    # data
    dataset: str = _option("", "Folder with train.npz (val.npz, test.npz), parquet files or class folders; or Hub id. Required.")
    test_dataset: str | None = _option(None, "Evaluate on this file, folder or Hub id instead of the data set's own test split.")
    image_size: int | None = _option(None, "Resize images to this height and width; None keeps their size.")
    channels: int | None = _option(None, "Turn images into 1 (grey) or 3 (RGB) channels; None keeps them.")
    label_column: str | None = _option(None, "Column of the label, where the data set is a table; None finds it.")
    test_share: float | None = _option(None, "Draw this share of each class as the test split; other splits are left aside.")

    # stream
    scenario: str = _option("class", "'class', 'task' or 'domain' incremental.")
    experiences: int = _option(5, "Number of experiences, one a night.")
    domains: str = _option("classes", "Domain scenario: 'classes', 'permutation', 'rotation' or 'corruption'.")
    class_order: list[str] = field(
        default_factory=lambda: ["natural"],
        metadata={"help": "Order of the classes: 'natural', 'random' (by the seed), or all labels, such as '3 1 0 2'."},
    )

    # model
    backbone: str = _option("cnn", "'cnn', or Hub id or folder of a transformers vision model (ResNet, ViT, ConvNeXt, DINOv2).")
    pretrained: bool = _option(True, "Take the backbone's weights; False takes its architecture only.")
    cnn_widths: list[int] = field(default_factory=lambda: [32, 64], metadata={"help": "Channels of the CNN's convolutions."})
    hidden_size: int = _option(256, "Outputs of the CNN; 0: means of the last convolution over the quarters of an image.")
    top_size: int = _option(0, "Units of a hidden layer between backbone and head; 0: none.")

    # run
    method: str = _option("er", f"One of {', '.join(METHODS)}.")
    probe_images: int = _option(
        0, "Training images of an experience that a linear probe learns from, for fwt_probe; 0: no probe."
    )
    seeds: list[int] | None = _option(None, "Run several seeds one after the other, each into <output_dir>/seed_<n>.")
    resume: bool = _option(True, "Continue the run that is found in output_dir, where it stopped.")
    overwrite: bool = _option(False, "Delete the run that is found in output_dir and start anew.")
    push_to_hub_repo: str | None = _option(None, "Upload the model to this Hub repository (private) at the end.")

    def __post_init__(self) -> None:
        if not self.dataset:
            raise SleepkitError("dataset is missing; give --dataset with a folder such as digits/ (train.npz, ...) or a Hub id")
        if self.method not in METHODS:
            raise SleepkitError(f"method is {self.method!r}; use one of {', '.join(METHODS)}")
        for name, least in (("image_size", 1), ("experiences", 1), ("hidden_size", 0), ("top_size", 0), ("probe_images", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SleepkitError(f"{name} is {value}; give a whole number of at least {least}")
        if self.channels not in (None, 1, 3):
            raise SleepkitError(f"channels is {self.channels}; give 1 (grey) or 3 (RGB)")
        if not self.cnn_widths or min(self.cnn_widths) < 1:
            raise SleepkitError(f"cnn_widths is {self.cnn_widths}; give at least one number, each at least 1")
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise SleepkitError(f"seeds is {self.seeds}; give each seed once")
        self.class_order = cast(Any, _class_order(self.class_order))  # now as `build_stream` wants it


def parse_vision(argv: Sequence[str]) -> tuple[VisionArguments, IncrementalTrainingConfig]:
    """Read `--config recipe.yaml` and the command line, which overrides it; errors as in `arguments.parse`."""
    from sleepkit.vision.training_config import IncrementalTrainingConfig

    args, config = read(
        argv,
        (VisionArguments, IncrementalTrainingConfig),
        prog="recipes/vision_baseline.py",
        description="Let a classifier meet image classes or domains one after the other.",
    )
    return args, config


def parse_mygo(argv: Sequence[str]) -> tuple[VisionArguments, GenerativeReplayConfig]:
    """The same for MyGO; its mode "as_published" has the published code's network too."""
    from sleepkit.vision.generative_replay_config import GenerativeReplayConfig

    args, config = read(
        argv,
        (VisionArguments, GenerativeReplayConfig),
        prog="recipes/mygo.py",
        description="Let a classifier meet image classes one after the other, and keep them by dreams.",
    )
    args.method = "mygo"
    if config.mode == "as_published":
        args.backbone, args.cnn_widths, args.hidden_size, args.top_size = "cnn", [16, 32], 256, 0
    return args, config


def _class_order(value: Any) -> str | list[int]:
    """``["random"]`` -> ``"random"``, ``["1", "0"]`` -> ``[1, 0]``."""
    words = list(value) if isinstance(value, (list, tuple)) else [value]
    if words in (["natural"], ["random"]):
        return str(words[0])
    try:
        return [int(word) for word in words]
    except (TypeError, ValueError):
        raise SleepkitError(f"class_order is {' '.join(map(str, words))!r}; use 'natural', 'random' or all labels") from None
