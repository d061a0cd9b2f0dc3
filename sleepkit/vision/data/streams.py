"""Streams of image experiences: one data set, met in parts.

    class   some new classes each; tested among all classes met so far                      (class-incremental)
    task    the same experiences; tested among the classes of the experience                (task-incremental)
    domain  the same labels each time, other images                                         (domain-incremental)

Ways to make domains::

    classes      the classes in parts; the label is the place in its part (Split-MNIST: even or odd)
    permutation  all classes; the pixels of experience k > 0 in an order of its own, drawn from the seed (Permuted MNIST)
    rotation     all classes; experience k of K turned by 180 k / K degrees (Rotated MNIST)
    corruption   all classes; experience k altered by the k-th of `CORRUPTIONS`, the first leaves images as they are

The order of classes is that of the data set (``natural``), drawn from the seed (``random``), or given.  An `ImageSet` holds row
numbers and a transform, not pixels: an image is made when it is asked for, always the same.  The three scenarios are those of
van de Ven & Tolias (arXiv 1904.07734); Split- and Permuted MNIST are theirs too; rotation in equal steps and corruptions, ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sleepkit.errors import SleepkitError
from sleepkit.vision.data.image_data import ImageData, Images

__all__ = ["CORRUPTIONS", "DOMAINS", "SCENARIOS", "ImageExperience", "ImageSet", "build_stream"]

SCENARIOS = ("class", "task", "domain")
DOMAINS = ("classes", "permutation", "rotation", "corruption")

MOST_DOMAINS = 1000  # for which a seed has permutations

Transform = Callable[[Tensor], Tensor]  # uint8 (n, channels, height, width) -> the same


@dataclass(frozen=True)
class ImageSet:
    """Some rows of `Images`, seen through a transform.

    Attributes:
        source: the images, shared by all experiences.
        rows: ``(n,)`` int64, which of them.
        labels: ``(n,)`` int64, as the stream numbers them.
        transform: of a domain; None leaves the pixels as they are.
    """

    source: Images
    rows: Tensor
    labels: Tensor
    transform: Transform | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, places: Tensor | None = None) -> Tensor:
        """``(n, channels, height, width)`` uint8, of all images or of those at ``places``."""
        found = self.source.pixels[self.rows if places is None else self.rows[places]]
        return found if self.transform is None else self.transform(found)


@dataclass(frozen=True)
class ImageExperience:
    """Images of one night: classes or a domain, with a split for training, validation and test.

    Attributes:
        name: of its classes or its domain.
        number: place in the stream, from 0; the `task` of its classes.
        labels: classes that can be answered here; in a domain stream the same for all experiences.
        label_names: a name for each.
        train, validation, test: its images.
    """

    name: str
    number: int
    labels: tuple[int, ...]
    label_names: tuple[str, ...]
    train: ImageSet
    validation: ImageSet
    test: ImageSet

    def to_dict(self) -> dict[str, Any]:
        """Return what tells the experience from another: names, and a hash of labels and pixels."""
        total = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            total.update(part.labels.numpy().tobytes())
            total.update(part.pixels().numpy().tobytes())
        return {"name": self.name, "labels": list(self.labels), "images": total.hexdigest()}


def build_stream(
    data: ImageData,
    scenario: str = "class",
    experiences: int = 5,
    *,
    domains: str = "classes",
    class_order: str | Sequence[int] = "natural",
    seed: int = 0,
) -> list[ImageExperience]:
    """Cut a data set into a stream of experiences, one for each night.

    Args:
        data: the images, as `load_images` returns them.
        scenario: ``"class"`` (new classes each night, tested among all met so far), ``"task"`` (the same, tested among those of
            the experience) or ``"domain"`` (the same labels, other images).
        experiences: how many; where classes are split, it must divide their number.
        domains: in the domain scenario, one of `DOMAINS`.
        class_order: "natural", "random", or all labels in the order in which they are met.
        seed: of a random order and of permutations.

    Raises:
        SleepkitError: unknown names, an order that is none, classes that cannot be dealt out evenly.

    Returns:
        list of `ImageExperience`: in the order of their nights.

    Example:

        >>> stream = build_stream(load_images("digits/"), scenario="class", experiences=5)
    """
    for name, value, known in (("scenario", scenario, SCENARIOS), ("domains", domains, DOMAINS)):
        if value not in known:
            raise SleepkitError(f"{name} is {value!r}; use one of {', '.join(known)}")
    if experiences < 1:
        raise SleepkitError(f"experiences is {experiences}; give at least 1")
    if len(data.names) < 2:
        raise SleepkitError(f"the data have one class ({data.names[0]}), which any answer gets right; give at least 2")
    order = _order(class_order, len(data.names), seed)
    if scenario == "domain" and domains != "classes":
        return _domain_stream(data, experiences, domains, seed)
    if len(order) % experiences:
        raise SleepkitError(f"experiences is {experiences}, which does not divide {len(order)} classes; give a number that does")
    size = len(order) // experiences
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return [_of_classes(data, part, number, scenario == "domain") for number, part in enumerate(parts)]


def _order(class_order: str | Sequence[int], classes: int, seed: int) -> list[int]:
    if class_order == "natural":
        return list(range(classes))
    if class_order == "random":
        return torch.randperm(classes, generator=torch.Generator().manual_seed(seed)).tolist()
    if isinstance(class_order, str) or sorted(class_order) != list(range(classes)):
        raise SleepkitError(f"class_order is {_shown(class_order)}; use 'natural', 'random' or each of 0..{classes - 1} once")
    return list(class_order)


def _shown(class_order: str | Sequence[int]) -> str:
    return repr(class_order) if isinstance(class_order, str) or len(class_order) <= 10 else f"of {len(class_order)} labels"


def _of_classes(data: ImageData, part: list[int], number: int, shared_labels: bool) -> ImageExperience:
    """Images of some classes; with shared labels each is called by its place in the part."""
    place = torch.full((len(data.names),), -1)
    place[part] = torch.arange(len(part)) if shared_labels else torch.tensor(part)

    def cut(images: Images) -> ImageSet:
        rows = (place[images.labels] >= 0).nonzero().flatten()
        return ImageSet(images, rows, place[images.labels[rows]])

    names = tuple(data.names[label] for label in part)
    labels = tuple(range(len(part))) if shared_labels else tuple(part)
    label_names = tuple(f"place {label}" for label in labels) if shared_labels else names
    return ImageExperience(", ".join(names), number, labels, label_names, cut(data.train), cut(data.validation), cut(data.test))


def _domain_stream(data: ImageData, experiences: int, domains: str, seed: int) -> list[ImageExperience]:
    if data.train.pixels.dim() != 4:
        raise SleepkitError(f"domains is {domains!r}, a change of images, and the data are features; use 'classes'")
    if experiences > MOST_DOMAINS:
        raise SleepkitError(f"experiences is {experiences}; give at most {MOST_DOMAINS} domains")
    if domains == "corruption" and experiences > len(CORRUPTIONS):
        raise SleepkitError(f"experiences is {experiences}, but there are {len(CORRUPTIONS)} corruptions; give at most as many")
    names = {"permutation": "permutation {k}", "rotation": "rotation {degrees:g}", "corruption": "{corruption}"}[domains]
    found = []
    for k in range(experiences):
        degrees, corruption = 180 * k / experiences, list(CORRUPTIONS)[k % len(CORRUPTIONS)]
        if domains == "permutation":
            transform: Transform | None = partial(permuted, seed=seed, k=k) if k else None
        elif domains == "rotation":
            transform = partial(rotated, degrees=degrees) if k else None
        else:
            transform = CORRUPTIONS[corruption]
        sets = [
            ImageSet(images, torch.arange(len(images.labels)), images.labels, transform)
            for images in (data.train, data.validation, data.test)
        ]
        name = names.format(k=k, degrees=degrees, corruption=corruption)
        found.append(ImageExperience(name, k, tuple(range(len(data.names))), tuple(data.names), *sets))
    return found


# Pure functions of uint8 images (n, channels, height, width)


def permuted(pixels: Tensor, seed: int, k: int) -> Tensor:
    """The pixels of each channel in another order, the same for all images of domain ``k``."""
    generator = torch.Generator().manual_seed((1000 * seed + k) % 2**63)
    order = torch.randperm(pixels.shape[-2] * pixels.shape[-1], generator=generator)
    return pixels.flatten(2)[..., order].reshape(pixels.shape)


def rotated(pixels: Tensor, degrees: float) -> Tensor:
    """Turned counter-clockwise about the centre, bilinearly; black outside.  Non-square images are turned in pixels."""
    angle = torch.tensor(degrees).deg2rad()
    cos, sin = angle.cos().item(), angle.sin().item()
    height, width = pixels.shape[-2:]
    theta = torch.tensor([[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]])
    grid = F.affine_grid(theta.expand(len(pixels), 2, 3), list(pixels.shape), align_corners=False)
    return _byte(F.grid_sample(pixels.float(), grid, align_corners=False))


def _noisy(pixels: Tensor) -> Tensor:
    noise = torch.randn(pixels.shape[1:], generator=torch.Generator().manual_seed(0))  # the same for all images
    return _byte(pixels + 50 * noise)


def _blurred(pixels: Tensor) -> Tensor:
    return _byte(F.avg_pool2d(F.pad(pixels.float(), (1, 1, 1, 1), mode="replicate"), 3, stride=1))


CORRUPTIONS: dict[str, Transform | None] = {
    "clean": None,
    "inverted": lambda pixels: 255 - pixels,
    "noisy": _noisy,
    "blurred": _blurred,
    "faint": lambda pixels: _byte(0.3 * pixels.float() + 89),
    "mirrored": lambda pixels: pixels.flip(-1),
    "upside down": lambda pixels: pixels.flip(-2),
}


def _byte(pixels: Tensor) -> Tensor:
    return pixels.round().clamp(0, 255).to(torch.uint8)
