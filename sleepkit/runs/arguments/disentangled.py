"""Arguments of a run on Infinite dSprites: which shapes in which poses, and what is measured at the end.

    parse_disentangled(["--config", "s1.yaml", "--seed", "1"])  ->  (DisentangledArguments, DisentangledConfig)

Reading is that of language.py beside it: a flat YAML recipe, overridden by the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sleepkit.errors import SleepkitError
from sleepkit.runs.arguments.command_line import check_folder
from sleepkit.runs.arguments.language import RunArguments, read
from sleepkit.utils.options import option, require, require_repo

if TYPE_CHECKING:
    from sleepkit.vision.disentangled.config import DisentangledConfig
    from sleepkit.vision.idsprites.stream import SpritesStream

__all__ = ["DisentangledArguments", "build_sprites", "parse_disentangled"]

LARGEST_SIDE = 2048  # pixels of an image that the renderer draws


@dataclass
class DisentangledArguments(RunArguments):
    """What is learned in which parts, and what is measured.

    Raises `SleepkitError` for a value out of range, naming it and what is allowed.
    """

    # stream
    experiences: int = option(5, "Number of experiences, one a night.")
    classes_per_experience: int = option(10, "New shapes of each.")
    factor_values: int = option(
        4, "Values of scale, orientation and both positions on the grid: their fourth power is images of a shape."
    )
    test_share: float = option(0.01, "Share of a shape's images for testing, and as much for validation; the rest is trained on.")

    # images
    dataset: str | None = option(
        None,
        "Pictures of this data set (folder or Hub id) in unknown poses instead of shapes, whose options then do nothing.",
    )
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

    # run
    export: str | None = option(None, "Write the stream's images to this new folder and stop: a data set for other recipes.")
    push_to_hub_repo: str | None = option(None, "Upload canonicaliser and exemplars to this Hub repository (private) at the end.")

    def __post_init__(self) -> None:
        from sleepkit.vision.idsprites.factors import rgb

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
        require_repo(self, ("push_to_hub_repo",))
        require(self, ("test_share",), lambda share: 0 < share < 0.5, "a share above 0 and below a half")
        if self.dataset is None and self.images_per_class != DisentangledArguments.images_per_class:
            raise SleepkitError(
                "images_per_class is for pictures of a dataset, and none is given; give factor_values, or leave it out"
            )
        if self.export is not None:
            check_folder("export", self.export)
        if self.experiences * self.classes_per_experience < 2:
            raise SleepkitError("there is one class; give at least 2 experiences, or 2 classes_per_experience")


def build_sprites(args: DisentangledArguments, seed: int) -> SpritesStream:
    """The stream; shapes and splits come from the seed.  Raises `SleepkitError` for what cannot be read or drawn."""
    from sleepkit.utils.ram import require_memory
    from sleepkit.vision.idsprites.base_renderer import BaseRenderer
    from sleepkit.vision.idsprites.distortion import distorted
    from sleepkit.vision.idsprites.factors import FactorGrid, FactorRanges
    from sleepkit.vision.idsprites.renderer import SpriteRenderer
    from sleepkit.vision.idsprites.stream import SpritesStream

    novel = args.novel_classes * (args.novel_images + 1) * args.channels * args.image_size**2
    require_memory(4 * novel, f"{args.novel_classes:,} novel_classes of {args.novel_images:,} novel_images", "lower one of them")
    shares = (1 - 2 * args.test_share, args.test_share, args.test_share)
    if args.dataset is not None:
        from sleepkit.vision.data.images import load_images
        from sleepkit.vision.idsprites.warped_images import span, warped_renderer

        data = load_images(args.dataset, image_size=span(args.image_size), channels=args.channels, seed=seed)
        wanted = args.experiences * args.classes_per_experience + args.novel_classes
        if wanted > len(data.names):
            raise SleepkitError(
                f"{wanted} classes are wanted (experiences x classes_per_experience + novel_classes) and {args.dataset} has "
                f"{len(data.names)}; lower one of them"
            )
        renderer: BaseRenderer = warped_renderer(data, args.dataset, args.images_per_class, args.image_size, seed)
        factors: FactorGrid | FactorRanges = FactorRanges(args.images_per_class, seed=seed)
    else:
        renderer = SpriteRenderer(
            image_size=args.image_size,
            seed=seed,
            channels=args.channels,
            marker=args.marker,
            texture=args.texture,
            noise=args.noise,
            clutter=args.clutter,
            occluders=args.occluders,
        )
        factors = FactorGrid.regular(args.factor_values, args.colors)
    renderer = distorted(renderer, args.perspective, args.elastic)
    return SpritesStream(args.experiences, args.classes_per_experience, factors, renderer, shares, seed)


def parse_disentangled(argv: Sequence[str]) -> tuple[DisentangledArguments, DisentangledConfig]:
    """Read `--config recipe.yaml` and the command line, which overrides it; errors as in `arguments.parse`."""
    from sleepkit.vision.disentangled.config import DisentangledConfig

    args, config = read(
        argv,
        (DisentangledArguments, DisentangledConfig),
        prog="recipes/disentangled.py",
        description="Let a canonicaliser meet shapes one after the other, and know them by their exemplars.",
    )
    return args, config
