"""Arguments of a run on images: the data, how they become a stream, the model and the method.

    parse_vision(["--config", "split_mnist.yaml", "--dataset", "digits/"])  ->  (VisionArguments, IncrementalTrainingConfig)
    parse_mygo(...)                                                         ->  (VisionArguments, GenerativeReplayConfig)

Reading is that of language.py beside it: a flat YAML recipe, overridden by the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sleepkit.errors import SleepkitError
from sleepkit.runs.arguments.language import RunArguments, read
from sleepkit.utils.options import option, require, require_choice, require_repo

if TYPE_CHECKING:
    from sleepkit.vision.dream2learn.config import Dream2LearnConfig
    from sleepkit.vision.incremental.config import IncrementalTrainingConfig
    from sleepkit.vision.mygo.config import GenerativeReplayConfig

__all__ = ["DREAMING", "METHODS", "VisionArguments", "parse_dream2learn", "parse_mygo", "parse_vision"]

# The methods, and where the learner of each is.
METHODS = {
    "finetune": "incremental.learner.ImageLearner",
    "joint": "incremental.baselines.Joint",
    "er": "incremental.baselines.ExperienceReplay",
    "der": "incremental.baselines.DarkExperienceReplay",
    "er_ace": "incremental.baselines.ErAce",
    "gdumb": "incremental.baselines.GDumb",
    "lwf": "incremental.baselines.LwF",
    "ewc": "incremental.regularisers.OnlineEwc",
    "si": "incremental.regularisers.SynapticIntelligence",
    "generative": "incremental.generative_classifier.GenerativeClassifier",
    "frozen": "incremental.baselines.FrozenFeatures",
    "mygo": "mygo.learner.GenerativeReplay",
    "d2l_er": "dream2learn.learner.DreamingEr",
    "d2l_er_ace": "dream2learn.learner.DreamingErAce",
    "d2l_der": "dream2learn.learner.DreamingDer",
}

DREAMING = tuple(method for method in METHODS if method.startswith("d2l_"))  # of recipes/dream2learn.py
PROBE_SCOPES = ("experience", "stream")
LARGEST_SIDE = 4096  # pixels of an image


@dataclass
class VisionArguments(RunArguments):
    """What is learned in which parts, by which model and method.

    Raises `SleepkitError` for a value out of range, naming it and what is allowed.
    """

    # data
    dataset: str = option("", "Folder with train.npz (val.npz, test.npz), parquet files or class folders; or Hub id. Required.")
    test_dataset: str | None = option(None, "Evaluate on this file, folder or Hub id instead of the data set's own test split.")
    image_size: int | None = option(None, "Resize images to this height and width; None keeps their size.")
    channels: int | None = option(None, "Turn images into 1 (grey) or 3 (RGB) channels; None keeps them.")
    label_column: str | None = option(None, "Column of the label, where the data set is a table; None finds it.")
    test_share: float | None = option(None, "Draw this share of each class as the test split; other splits are left aside.")

    # stream
    scenario: str = option("class", "'class', 'task' or 'domain' incremental.")
    experiences: int = option(5, "Number of experiences, one a night.")
    domains: str = option("classes", "Domain scenario: 'classes', 'permutation', 'rotation' or 'corruption'.")
    class_order: list[str] = option(
        ("natural",), "Order of the classes: 'natural', 'random' (by the seed), or all labels, such as '3 1 0 2'."
    )

    # model
    backbone: str = option("cnn", "'cnn', or Hub id or folder of a transformers vision model (ResNet, ViT, ConvNeXt, DINOv2).")
    pretrained: bool = option(True, "Take the backbone's weights; False takes its architecture only.")
    cnn_widths: list[int] = option((32, 64), "Channels of the CNN's convolutions.")
    cnn_max_pool: bool = option(False, "Halve images by maxima after each convolution, not by its stride.")
    hidden_size: int = option(256, "Outputs of the CNN; 0: means of the last convolution over the quarters of an image.")
    top_size: int = option(0, "Units of a hidden layer between backbone and head; 0: none.")

    # run
    method: str = option("er", f"One of {', '.join(METHODS)}.")
    probe_images: int = option(0, "Training images of an experience that a linear probe learns from, for fwt_probe; 0: no probe.")
    probe_draws: int = option(1, "Probes of an experience, each from other images; the mean is taken.")
    probe_scope: str = option("experience", f"Classes that a probe tells apart, those of the {' or the '.join(PROBE_SCOPES)}.")
    push_to_hub_repo: str | None = option(None, "Upload the model to this Hub repository (private) at the end.")

    def __post_init__(self) -> None:
        from sleepkit.vision.data.streams import DOMAINS, SCENARIOS

        super().__post_init__()
        if not self.dataset.strip():
            raise SleepkitError("dataset is missing; give --dataset with a folder such as digits/ (train.npz, ...) or a Hub id")
        require_choice(self, "method", METHODS)
        require_choice(self, "probe_scope", PROBE_SCOPES)
        require_choice(self, "scenario", SCENARIOS)
        require_choice(self, "domains", DOMAINS)
        require_repo(self, ("push_to_hub_repo",))
        require(self, ("image_size",), lambda size: size is None or 1 <= size <= LARGEST_SIDE, f"1 to {LARGEST_SIDE} pixels")
        require(self, ("test_share",), lambda share: share is None or 0 < share < 1, "a share above 0 and below 1")
        require(self, ("experiences", "probe_draws"), lambda count: count >= 1, "a whole number of at least 1")
        require(self, ("hidden_size", "top_size", "probe_images"), lambda count: count >= 0, "a whole number of at least 0")
        require(self, ("channels",), lambda channels: channels in (None, 1, 3), "1 (grey) or 3 (RGB)")
        require(self, ("cnn_widths",), lambda widths: widths and min(widths) >= 1, "at least one number, each at least 1")
        if self.domains != "classes" and self.scenario != "domain":
            raise SleepkitError(
                f"domains is {self.domains!r} and scenario {self.scenario!r}; give scenario domain, or leave it out"
            )
        self.class_order = cast(Any, _class_order(self.class_order))  # now as `build_stream` wants it


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
    """The same for MyGO; its mode "as_published" has the published code's network too."""
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
    if config.mode == "as_published":
        args.backbone, args.cnn_widths, args.cnn_max_pool, args.hidden_size, args.top_size = "cnn", [16, 32], True, 256, 0
    return args, config


def parse_dream2learn(argv: Sequence[str]) -> tuple[VisionArguments, Dream2LearnConfig]:
    """The same for Dream2Learn; ``method`` is that of the run with dreams."""
    from sleepkit.vision.dream2learn.config import Dream2LearnConfig

    args, config = read(
        argv,
        (VisionArguments, Dream2LearnConfig),
        prog="recipes/dream2learn.py",
        description="Let a classifier dream classes that do not exist, and meet the real ones better prepared.",
    )
    require_choice(args, "method", DREAMING)
    return args, config


def _class_order(value: Any) -> str | list[int]:
    """``["random"]`` -> ``"random"``, ``["1", "0"]`` -> ``[1, 0]``."""
    words = list(value) if isinstance(value, (list, tuple)) else [value]
    if words in (["natural"], ["random"]):
        return str(words[0])
    try:
        if any(isinstance(word, (bool, float)) for word in words):  # of a recipe: 1.9 is no label
            raise ValueError
        return [int(word) for word in words]
    except (TypeError, ValueError):
        raise SleepkitError(f"class_order is {' '.join(map(str, words))!r}; use 'natural', 'random' or all labels") from None
