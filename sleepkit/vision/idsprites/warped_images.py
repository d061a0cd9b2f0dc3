"""Images of a data set in unknown poses: the stream of Infinite dSprites with real classes in the place of shapes.

    image i of class c  =  picture i of class c, laid into the image by the matrix of its factors        (affine.py)

In canonical form a picture spans the middle [-1/2, 1/2] of the image, upright as it is in the data set; around it, its edges go
on.  Pixels are read bilinearly at 2 x 2 places: give pictures of `span` pixels, so that thin strokes do not break.
`WarpedRenderer` stands where a renderer of sprites does, so data sets, stream, learner and protocol are those of idsprites; place
p of a class is always picture p, so splits have no picture in common.  Its canonical images are those of picture 0, which may be
one of any split: keep exemplars of first images instead.

Whether the method reaches real images is the first open question of "Infinite dSprites" (arXiv 2312.16731).  Left out: other
changes than similarities.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from sleepkit.errors import SleepkitError
from sleepkit.vision.data.image_data import ImageData
from sleepkit.vision.idsprites.affine import factors_to_matrix, invert, normalize
from sleepkit.vision.idsprites.base_renderer import BaseRenderer
from sleepkit.vision.idsprites.factors import canonical

__all__ = ["WarpedRenderer", "span", "warped_renderer"]

_SPAN = 0.5  # of the half width of the canonical image


@dataclass(frozen=True)
class WarpedRenderer(BaseRenderer):
    """Draws pictures of a data set.

    Attributes besides those of any renderer:
        pictures: ``(classes, n, C, height, width)`` uint8, as many of each class; at scale 1 they fill `span` pixels.
        source: the data set's name, which tells it from another.
    """

    max_scale: float = 1.0
    pictures: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    source: str = ""

    def __call__(self, classes: Tensor, factors: Tensor, colors: Tensor, ids: Tensor) -> Tensor:
        """Images ``(N, C, S, S)`` float32 in [0, 1]; ``ids`` modulo n says which pictures, ``colors`` do nothing.

        Raises `SleepkitError` for a class that the data set does not have.
        """
        known, each = self.pictures.shape[:2]
        if len(classes) and int(classes.max()) >= known:
            raise SleepkitError(f"class {int(classes.max())} is wanted of {known} classes; lower experiences or novel_classes")
        inside = invert(factors_to_matrix(factors)).float()
        inside[:, :2] /= _SPAN
        return F.avg_pool2d(normalize(self.pictures[classes, ids % each] / 255, inside, 2 * self.image_size), 2)

    def exemplars(self, classes: Tensor, color: str = "white") -> Tensor:
        """Canonical images of picture 0 of ``classes``."""
        return self(classes, *canonical(len(classes), color), torch.zeros_like(classes))


def span(image_size: int) -> int:
    """Height and width of a picture at scale 1, pixels."""
    return round(_SPAN * image_size)


def warped_renderer(data: ImageData, source: str, images_per_class: int, image_size: int, seed: int = 0) -> WarpedRenderer:
    """A renderer of so many pictures of each class, of all splits together in an order drawn from the seed.

    Raises `SleepkitError` where a class has fewer, or pictures are no images.
    """
    splits = (data.train, data.validation, data.test)
    pixels, labels = torch.cat([one.pixels for one in splits]), torch.cat([one.labels for one in splits])
    if pixels.dim() != 4:
        raise SleepkitError(f"{source} holds features; poses are those of images")
    fewest = int(torch.bincount(labels, minlength=len(data.names)).min())
    if not 3 <= images_per_class <= fewest:
        raise SleepkitError(
            f"images_per_class is {images_per_class}; give 3 to {fewest}, which is what each class of {source} has"
        )
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    rows = torch.cat([order[labels[order] == label][:images_per_class] for label in range(len(data.names))])
    pictures = pixels[rows].unflatten(0, (-1, images_per_class))
    return WarpedRenderer(image_size=image_size, seed=seed, channels=pixels.shape[1], pictures=pictures, source=source)
