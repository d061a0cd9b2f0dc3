"""One call that trains the embedded generator: what recipes/train_tiny_diffusion.py does, and Dream2Learn where it has none.

    train_generator(args, config)    read images, caption them by their classes, train, save in the layout of Stable Diffusion

A generator must not know the classes of the stream that it dreams for: ``classes`` says which it may see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.errors import SleepkitError
from sleepkit.reporting.live.watch import watched
from sleepkit.runs.arguments.command_line import read
from sleepkit.utils.options import check_numbers, option, require
from sleepkit.utils.training_fields import settings

if TYPE_CHECKING:
    from torch import Tensor

    from sleepkit.vision.dream2learn.tiny_diffusion import TinyDiffusionConfig

__all__ = ["GeneratorArguments", "parse_generator", "train_generator"]

DRAWN = "procedural_others"


@dataclass
class GeneratorArguments:
    """Options for training a generator: the images that it learns to paint."""

    dataset: str = option(DRAWN, "Images, as recipes/vision_baseline.py takes them, or 'procedural_others'.")
    classes: list[int] | None = option(None, "Labels that it may see; None: all.")
    image_size: int | None = option(None, "Resize images to this height and width, a multiple of 8; None keeps their size.")
    channels: int | None = option(None, "Turn images into 1 (grey) or 3 (RGB) channels; None keeps them.")
    test_share: float | None = option(None, "Leave this share of each class out, and other splits, which may have other classes.")
    invert: bool = option(False, "Turn black into white, as where the stream has white strokes and these images black ones.")
    images: int = option(8192, "Pictures that are drawn of the procedural world.")

    def __post_init__(self) -> None:
        check_numbers(self)
        require(self, ("images",), lambda count: count >= 1, "at least 1")
        require(
            self, ("image_size",), lambda size: size is None or 8 <= size <= 4096 and size % 8 == 0, "a multiple of 8 up to 4096"
        )
        require(self, ("channels",), lambda channels: channels in (None, 1, 3), "1 (grey) or 3 (RGB)")
        require(self, ("test_share",), lambda share: share is None or 0 < share < 1, "a share above 0 and below 1")
        require(self, ("classes",), lambda classes: classes is None or min(classes, default=-1) >= 0, "labels, from 0")
        drawn = self.dataset == DRAWN
        for name in ("classes", "image_size", "channels", "test_share", "invert") if drawn else ("images",):
            if getattr(self, name) != GeneratorArguments.__dataclass_fields__[name].default:
                which = (
                    "for images of a dataset, and none is given"
                    if drawn
                    else f"for the procedural world, and dataset is {self.dataset}"
                )
                raise SleepkitError(f"{name} is {which}; leave it out")


def parse_generator(argv: Sequence[str]) -> tuple[GeneratorArguments, TinyDiffusionConfig]:
    """Read `--config recipe.yaml` and the command line, which overrides it; errors as in `arguments.parse`."""
    from sleepkit.vision.dream2learn.tiny_diffusion import TinyDiffusionConfig

    args, config = read(
        argv,
        (GeneratorArguments, TinyDiffusionConfig),
        prog="recipes/train_tiny_diffusion.py",
        description="Train a small latent diffusion model, in the folder layout of Stable Diffusion.",
    )
    return args, config


def train_generator(args: GeneratorArguments, config: TinyDiffusionConfig) -> Path:
    """Train and save; returns the folder.  Raises `SleepkitError` for images and captions that do not fit."""
    from sleepkit.vision.dream2learn.tiny_diffusion import train_tiny_diffusion

    pixels, captions = _pictures(args, config.seed)
    with watched(config, settings(args, config)):
        folder = train_tiny_diffusion(pixels, captions, config)
    if config.process_index == 0:
        size = sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))
        print(f"written to {folder}: {size / 1e6:.1f} MB of weights")
    return folder


def _pictures(args: GeneratorArguments, seed: int) -> tuple[Tensor, list[str]]:
    import torch

    from sleepkit.vision.data.images import load_images
    from sleepkit.vision.data.procedural_world import generator_images

    if args.dataset == "procedural_others":
        return generator_images(args.images, seed)
    found: Any = load_images(args.dataset, image_size=args.image_size, channels=args.channels, test_share=args.test_share)
    labels, names = found.train.labels, found.names
    shape = found.train.pixels.shape[2:]
    if len(shape) != 2 or shape[0] != shape[1]:
        kind = f"images of {' x '.join(map(str, shape))} pixels" if shape else "features"
        raise SleepkitError(f"{args.dataset} has {kind}, and a generator paints squares; give image_size, or other images")
    if args.classes is not None and not (args.classes and set(args.classes) <= set(range(len(names)))):
        raise SleepkitError(f"classes is {args.classes}; {args.dataset} has the labels 0 to {len(names) - 1}, give some of them")
    wanted = torch.isin(labels, torch.tensor(args.classes if args.classes is not None else range(len(names))))
    pixels = found.train.pixels[wanted]
    return 255 - pixels if args.invert else pixels, [names[label] for label in labels[wanted].tolist()]
