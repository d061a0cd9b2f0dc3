"""Arguments of a run on Infinite dSprites, beside the fields of the method's configuration.

    parse_disentangled(["--config", "s1.yaml", "--seed", "1"])  ->  (DisentangledArguments, DisentangledConfig)
    parse_sprites_data(...)                                     ->  the same, of recipes/sprites_data.py

Reading is that of command_line.py beside it: a flat YAML recipe, overridden by the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sleepkit.runs.arguments.command_line import read
from sleepkit.runs.arguments.seeds import SeedArguments
from sleepkit.utils.options import option

if TYPE_CHECKING:
    from sleepkit.vision.disentangled.config import DisentangledConfig

__all__ = ["DisentangledArguments", "parse_disentangled", "parse_sprites_data"]


@dataclass
class DisentangledArguments(SeedArguments):
    """Options of a run beside the method's configuration: what is learned, and by which network."""

    dataset: str | None = option(
        None,
        "Pictures of this data set (folder or Hub id) in unknown poses instead of shapes, whose options then do nothing.",
    )
    backbone: str = option(
        "cnn", "Network of the first look: 'cnn'; 'resnet18', a new one; or Hub id or folder of a transformers vision model."
    )


def parse_disentangled(argv: Sequence[str]) -> tuple[DisentangledArguments, DisentangledConfig]:
    """Read `--config recipe.yaml` and the command line, which overrides it; errors as in `arguments.parse`."""
    from sleepkit.vision.disentangled.config import DisentangledConfig

    args, config = read(
        argv,
        (DisentangledArguments, DisentangledConfig),
        prog="recipes/disentangled.py",
        description="Let a canonicalizer meet shapes one after the other, and know them by their exemplars.",
    )
    return args, config


_NOT_OF_IMAGES = {
    "seeds": "a data set is of one seed; give --seed",
    "push_to_hub_repo": "nothing is trained; upload the folder by `hf upload`",
}


def parse_sprites_data(argv: Sequence[str]) -> tuple[DisentangledArguments, DisentangledConfig]:
    """Read the arguments of recipes/sprites_data.py, which takes the recipes of recipes/disentangled.py."""
    from sleepkit.vision.disentangled.config import DisentangledConfig

    args, config = read(
        argv,
        (DisentangledArguments, DisentangledConfig),
        prog="recipes/sprites_data.py",
        description="Write the images of a stream of recipes/disentangled.py to a new folder, as a data set for other recipes.",
        ignored=_NOT_OF_IMAGES,
    )
    return args, config
