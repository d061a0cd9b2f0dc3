"""Configuration of disentangled continual learning: what it has besides the fields of any night on images.

Names follow "Infinite dSprites" (arXiv 2312.16731) where the paper has one.  Its method is ``output`` affine6, ``backbone``
resnet18, ``refinements`` 0, ``pose_replay`` 0 and ``match`` nearest; the rest is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from sleepkit.errors import SleepkitError
from sleepkit.utils.options import option, require, require_choice
from sleepkit.vision.disentangled.canonicalizer import OUTPUTS
from sleepkit.vision.disentangled.exemplars import MATCHES
from sleepkit.vision.incremental.config import IncrementalTrainingConfig

__all__ = ["SOURCES", "DisentangledConfig"]

SOURCES = ("render", "first")


@dataclass(repr=False)  # that of transformers shows no token
class DisentangledConfig(IncrementalTrainingConfig):
    """Arguments of :class:`~sleepkit.vision.disentangled.learner.DisentangledLearner`."""

    learning_rate: float = option(2e-3, "Initial learning rate of a night.")
    num_train_epochs: float = option(3, "Passes over the images of an experience.")
    per_device_train_batch_size: int = option(16, "New images per step and device.")
    optim: str = option("adamw_torch_fused", "Optimizer, as in transformers.")
    output_dir: str | None = option("runs/disentangled", "Folder of the run.")

    # canonicaliser
    output: str = option("similarity4", f"What is said of a pose, one of {', '.join(OUTPUTS)}.")
    backbone: str = option(
        "cnn", "Network of the first look: 'cnn'; 'resnet18', a new one; or Hub id or folder of a transformers vision model."
    )
    widths: list[int] = option((16, 32, 64, 128), "Channels of the first look's convolutions (cnn).")
    hidden_size: int = option(256, "Hidden units of the first look (cnn) and of the further ones.")
    refinements: int = option(5, "Further looks, each at what the one before has straightened; 0: none.")
    refine_widths: list[int] = option((16, 32, 64), "Channels of the further looks' convolutions.")

    # training
    pose_replay: int = option(2, "Exemplars of all classes in random poses, for each new image of a batch.")
    spread_low: float = option(0.01, "Smallest error of a pose that further looks learn to undo (entries of the matrix).")
    spread_high: float = option(0.2, "Largest.")
    evaluate_every: int = option(1, "Nights between tests of all classes met; else only of the night's own. The last is tested.")

    # memory
    exemplar_source: str = option(
        "render", "What is kept of a class: 'render', its canonical image, or 'first', its first images."
    )
    exemplars_per_class: int = option(1, "How many; a class has one canonical image.")
    exemplar_size: int = option(44, "Height and width of an exemplar, pixels: of the window of the canonical image that is kept.")
    match: str = option("aligned", f"How exemplars are compared, one of {', '.join(MATCHES)}.")
    candidates: int = option(5, "Nearest classes that are looked at more closely, and that open-set scores see.")
    align_steps: int = option(2, "Steps of alignment to each candidate.")
    turns: int = option(
        1,
        "Orientations that are tried, from the canonicaliser's on, where it cannot be sure of it; further looks learn any then.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice(self, "output", OUTPUTS)
        require_choice(self, "exemplar_source", SOURCES)
        require_choice(self, "match", MATCHES)
        require(self, ("exemplar_size",), lambda size: size >= 8 and size % 2 == 0, "an even number of at least 8")
        sizes = ("hidden_size", "exemplars_per_class", "align_steps", "turns", "evaluate_every")
        require(self, sizes, lambda value: value >= 1, "a whole number of at least 1")
        require(self, ("candidates",), lambda value: value >= 2, "at least 2: open-set scores compare two classes")
        require(self, ("widths", "refine_widths"), lambda one: one and min(one) >= 1, "at least one number, each at least 1")
        require(self, ("refinements", "pose_replay"), lambda value: value >= 0, "at least 0")
        if not 0 < self.spread_low <= self.spread_high:
            raise SleepkitError(f"spreads are {self.spread_low} to {self.spread_high}; give two above 0, the lower one first")
        if self.exemplar_source == "render" and self.exemplars_per_class > 1:
            raise SleepkitError(
                f"exemplars_per_class is {self.exemplars_per_class} and a class has one render; set exemplar_source to first"
            )
