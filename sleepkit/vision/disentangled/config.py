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
from sleepkit.vision.idsprites.factors import rgb
from sleepkit.vision.incremental.config import ImageTrainingConfig

__all__ = ["SOURCES", "STREAM_FIELDS", "DisentangledConfig"]

SOURCES = ("render", "first")
LARGEST_SIDE = 2048  # pixels of an image that the renderer draws
STREAM_FIELDS = (
    *("experiences", "classes_per_experience", "factor_values", "test_share", "images_per_class", "image_size", "channels"),
    *("colors", "marker", "texture", "noise", "clutter", "occluders", "perspective", "elastic"),
)
"""Fields that describe a stream, and have no effect where one is given."""


@dataclass(repr=False)  # that of transformers shows no token
class DisentangledConfig(ImageTrainingConfig):
    """Options of a [`DisentangledTrainer`]: a `transformers.TrainingArguments` with the options of stream and method.

    Each field has a line of help, which ``python recipes/disentangled.py --help`` lists.

    Args:
        output_dir (`str`, defaults to `"runs/disentangled"`): folder of the run.
        experiences (`int`, defaults to 5): number of experiences, one a night.
        classes_per_experience (`int`, defaults to 10): new shapes of each experience.
        learning_rate (`float`, defaults to 2e-3): initial learning rate of a night.
        num_train_epochs (`float`, defaults to 3): passes over the images of an experience.

    Raises:
        SleepkitError: a value out of range, or options that do not go together; the message names them and the remedy.

    Example:

        >>> DisentangledConfig(output_dir="runs/shapes", experiences=3)
    """

    learning_rate: float = option(2e-3, "Initial learning rate of a night.")
    num_train_epochs: float = option(3, "Passes over the images of an experience.")
    per_device_train_batch_size: int = option(16, "New images per step and device.")
    optim: str = option("adamw_torch_fused", "Optimizer, as in transformers.")
    output_dir: str | None = option("runs/disentangled", "Folder of the run.")

    # stream
    experiences: int = option(5, "Number of experiences, one a night.")
    classes_per_experience: int = option(10, "New shapes of each.")
    factor_values: int = option(
        4, "Values of scale, orientation and both positions on the grid: their fourth power is images of a shape."
    )
    test_share: float = option(0.01, "Share of a shape's images for testing, and as much for validation; the rest is trained on.")

    # images
    images_per_class: int = option(256, "Pictures of each class of the data set, each in one pose.")
    image_size: int = option(64, "Height and width, pixels.")
    channels: int = option(1, "1 (grey) or 3 (RGB).")
    colors: list[str] = option(("white",), "Colours of the shapes, each with all poses; exemplars are of the first one.")
    marker: bool = option(True, "Paint the half that shows the orientation.")
    texture: float = option(0.0, "Darken the colour by up to this share, by waves.")
    noise: float = option(0.0, "Standard deviation of the noise of pixels.")
    clutter: int = option(0, "Other shapes behind the shape.")
    occluders: int = option(0, "Other shapes in front of it.")
    perspective: float = option(0.0, "Strength of a random perspective of each image, which no affine pose undoes.")
    elastic: float = option(0.0, "Largest shift of each of 4 x 4 points of an image, in half widths.")

    # measuring
    novel_classes: int = option(100, "Classes that were never met, for one-shot and open-set recognition.")
    novel_images: int = option(5, "Images of each of them.")

    # canonicalizer
    output: str = option("similarity4", f"What is said of a pose, one of {', '.join(OUTPUTS)}.")
    widths: list[int] = option((16, 32, 64, 128), "Channels of the first look's convolutions (cnn).")
    hidden_size: int = option(256, "Hidden units of the first look (cnn) and of the further ones.")
    refinements: int = option(5, "Further looks, each at what the one before has straightened; 0: none.")
    refine_widths: list[int] = option((16, 32, 64), "Channels of the further looks' convolutions.")

    # training
    pose_replay: int = option(2, "Exemplars of all classes in random poses, for each new image of a batch.")
    spread_low: float = option(0.01, "Smallest error of a pose that further looks learn to undo (entries of the matrix).")
    spread_high: float = option(0.2, "Largest.")
    evaluate_every: int = option(1, "Nights between tests of all classes met; else only of the night's own. The last is tested.")

    # exemplars
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
        "Orientations that are tried, from the canonicalizer's on, where it cannot be sure of it; further looks learn any then.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("experiences", "classes_per_experience", "factor_values", "novel_images")
        require(self, counts, lambda count: count >= 1, "a whole number of at least 1")
        require(self, ("novel_classes",), lambda count: count >= 2, "at least 2, to be told apart")
        require(
            self, ("images_per_class",), lambda count: count >= 3, "at least 3: one to train on, one to validate, one to test"
        )
        require(self, ("clutter", "occluders"), lambda count: count >= 0, "a whole number of at least 0")
        sizes = f"a multiple of 8 from 16 to {LARGEST_SIDE}"
        require(self, ("image_size",), lambda size: 16 <= size <= LARGEST_SIDE and size % 8 == 0, sizes)
        require(self, ("channels",), lambda channels: channels in (1, 3), "1 (grey) or 3 (RGB)")
        require(self, ("texture",), lambda share: 0 <= share <= 1, "a share from 0 to 1")
        require(self, ("noise", "perspective", "elastic"), lambda value: value >= 0, "a number of at least 0")
        for color in self.colors:
            rgb(color)
        require(self, ("test_share",), lambda share: 0 < share < 0.5, "a share above 0 and below a half")
        if self.experiences * self.classes_per_experience < 2:
            raise SleepkitError("there is one class; give at least 2 experiences, or 2 classes_per_experience")
        require_choice(self, "output", OUTPUTS)
        require_choice(self, "exemplar_source", SOURCES)
        require_choice(self, "match", MATCHES)
        require(self, ("exemplar_size",), lambda size: size >= 8 and size % 2 == 0, "an even number of at least 8")
        above_zero = ("hidden_size", "exemplars_per_class", "align_steps", "turns", "evaluate_every")
        require(self, above_zero, lambda value: value >= 1, "a whole number of at least 1")
        require(self, ("candidates",), lambda value: value >= 2, "at least 2: open-set scores compare two classes")
        require(self, ("widths", "refine_widths"), lambda one: one and min(one) >= 1, "at least one number, each at least 1")
        require(self, ("refinements", "pose_replay"), lambda value: value >= 0, "at least 0")
        if not 0 < self.spread_low <= self.spread_high:
            raise SleepkitError(f"spreads are {self.spread_low} to {self.spread_high}; give two above 0, the lower one first")
        if self.exemplar_source == "render" and self.exemplars_per_class > 1:
            raise SleepkitError(
                f"exemplars_per_class is {self.exemplars_per_class} and a class has one render; set exemplar_source to first"
            )
