"""The stream of a disentangled run: shapes of Infinite dSprites, or the pictures of a data set, in poses that nobody tells."""

from __future__ import annotations

from sleepkit.errors import SleepkitError
from sleepkit.utils.ram import require_memory
from sleepkit.vision.data.images import load_images
from sleepkit.vision.disentangled.config import DisentangledConfig
from sleepkit.vision.idsprites.base_renderer import BaseRenderer
from sleepkit.vision.idsprites.distortion import distorted
from sleepkit.vision.idsprites.factors import FactorGrid, FactorRanges
from sleepkit.vision.idsprites.renderer import SpriteRenderer
from sleepkit.vision.idsprites.stream import SpritesStream
from sleepkit.vision.idsprites.warped_images import span, warped_renderer

__all__ = ["build_sprites"]


def build_sprites(args: DisentangledConfig, dataset: str | None = None) -> SpritesStream:
    """Build the stream that a configuration describes; shapes, poses and splits come from its seed.

    Args:
        dataset: folder or Hub id whose pictures are shown in unknown poses; None: shapes of Infinite dSprites.

    Raises:
        SleepkitError: what cannot be read or drawn.
    """
    if dataset is None and args.images_per_class != DisentangledConfig.images_per_class:
        raise SleepkitError(
            "images_per_class is for pictures of a dataset, and none is given; give factor_values, or leave it out"
        )
    novel = args.novel_classes * (args.novel_images + 1) * args.channels * args.image_size**2
    require_memory(4 * novel, f"{args.novel_classes:,} novel_classes of {args.novel_images:,} novel_images", "lower one of them")
    shares = (1 - 2 * args.test_share, args.test_share, args.test_share)
    if dataset is not None:
        data = load_images(dataset, image_size=span(args.image_size), channels=args.channels, seed=args.seed)
        wanted = args.experiences * args.classes_per_experience + args.novel_classes
        if wanted > len(data.names):
            raise SleepkitError(
                f"{wanted} classes are wanted (experiences x classes_per_experience + novel_classes) and {dataset} has "
                f"{len(data.names)}; lower one of them"
            )
        renderer: BaseRenderer = warped_renderer(data, dataset, args.images_per_class, args.image_size, args.seed)
        factors: FactorGrid | FactorRanges = FactorRanges(args.images_per_class, seed=args.seed)
    else:
        renderer = SpriteRenderer(
            image_size=args.image_size,
            seed=args.seed,
            channels=args.channels,
            marker=args.marker,
            texture=args.texture,
            noise=args.noise,
            clutter=args.clutter,
            occluders=args.occluders,
        )
        factors = FactorGrid.regular(args.factor_values, args.colors)
    renderer = distorted(renderer, args.perspective, args.elastic)
    return SpritesStream(args.experiences, args.classes_per_experience, factors, renderer, shares, args.seed)
