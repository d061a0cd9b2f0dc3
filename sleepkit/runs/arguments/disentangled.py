"""Arguments of a run on Infinite dSprites, beside the fields of the method's configuration.

    parse_disentangled(["--config", "s1.yaml", "--seed", "1"])  ->  (DisentangledArguments, DisentangledConfig)

Reading is that of command_line.py beside it: a flat YAML recipe, overridden by the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sleepkit.runs.arguments.command_line import check_folder, read
from sleepkit.runs.arguments.seeds import SeedArguments
from sleepkit.utils.options import option

if TYPE_CHECKING:
    from sleepkit.vision.disentangled.config import DisentangledConfig

__all__ = ["DisentangledArguments", "parse_disentangled"]


@dataclass
class DisentangledArguments(SeedArguments):
    """Options of a run beside the method's configuration: what is learned, and what becomes of it.

    Raises `SleepkitError` for a value out of range, naming it and what is allowed.
    """

    dataset: str | None = option(
        None,
        "Pictures of this data set (folder or Hub id) in unknown poses instead of shapes, whose options then do nothing.",
    )
    backbone: str = option(
        "cnn", "Network of the first look: 'cnn'; 'resnet18', a new one; or Hub id or folder of a transformers vision model."
    )
    export: str | None = option(None, "Write the stream's images to this new folder and stop: a data set for other recipes.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.export is not None:
            check_folder("export", self.export)


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
