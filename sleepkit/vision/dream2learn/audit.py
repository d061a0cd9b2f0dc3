"""What dreams are, seen from outside: a judge of all classes, and pictures.

    judge       a classifier of all classes of the stream and of classes that no stream has, as many images of each; it sees all
                of them as the generator's autoencoder regenerates them, which is how it sees dreams
    leak        share of dreamt images that the judge takes for a class that is still to come
    pictures    night_02.png   a row for each dream: 4 images of its source, then 8 of the dream
                night_02_trajectories.png   a row for each dream: one image from the first to the last update

Nothing is ever trained with the judge.  Ours: all of it; that leaks should be audited is in the reviews of Dream2Learn.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor

from sleepkit.utils.ranks import of_rows
from sleepkit.utils.seeds import derive_seed
from sleepkit.vision.data.grids import save_grid
from sleepkit.vision.data.streams import ImageExperience, ImageSet
from sleepkit.vision.dream2learn.dream_images import load_others
from sleepkit.vision.incremental.classifier import IncrementalClassifier, IncrementalClassifierConfig
from sleepkit.vision.incremental.config import IncrementalTrainingConfig
from sleepkit.vision.incremental.dream_quality import trained_judge
from sleepkit.vision.incremental.output_units import REAL

__all__ = ["Judge", "save_dreams", "shown_of"]

SOURCES, DREAMT, UPDATES = 4, 8, 8  # columns of pictures
WIDTHS, HIDDEN = (64, 128), 512  # of the judge


class Judge:
    """Classifier of all classes of the stream and of others, which tells what dreams look like; nothing is trained with it.

    It is trained when it is made, or read from its folder.

    Args:
        empty: a classifier without classes.
        stream: all experiences.
        others: as `load_images` takes it, images of other classes.
        config: with `judge_epochs`.
        folder: where it is kept.
        seen: what it sees of images, ``(n, channels, height, width)`` uint8.
        looks: what that depends on.
    """

    def __init__(
        self,
        empty: IncrementalClassifier,
        stream: Sequence[ImageExperience],
        others: str,
        config: IncrementalTrainingConfig,
        epochs: float,
        folder: Path,
        seen: Callable[[Tensor], Tensor],
        looks: Mapping[str, Any] | None = None,
    ) -> None:
        config = copy.copy(config)
        config.num_train_epochs = epochs
        images = load_others(others)
        first = 1 + max(label for experience in stream for label in experience.labels)
        train, validation, test = (
            ImageSet(part, torch.arange(len(part.labels)), part.labels + first)
            for part in (images.train, images.validation, images.test)
        )
        labels = tuple(range(first, first + len(images.names)))
        other = ImageExperience("others", len(stream), labels, tuple(images.names), train, validation, test)
        each = int(train.labels.bincount().max())
        fewer = [dataclasses.replace(one, train=_some_of_each(one.train, each)) for one in stream]
        self.seen = seen
        set_seed(derive_seed(config.seed, "judge"))
        judge = _wider(empty)
        self.model = trained_judge(judge, [*fewer, other], config, folder, lambda images: seen(images.pixels()), looks)
        self.stream, self.batch = list(stream), config.per_device_eval_batch_size

    @torch.no_grad()
    def labels(self, pixels: Tensor) -> Tensor:
        """``(n,)``, of uint8 images as they are seen; call it on all processes."""
        known = torch.tensor(self.model.slots.labels_of(REAL))
        device = self.model.device
        found = of_rows(lambda part: self.model(pixel_values=part.to(device)).logits.argmax(1).cpu(), pixels, self.batch)
        return known[found]

    @cached_property
    def accuracy(self) -> float:
        """On the test images of the stream, as they are seen."""
        right = [(self.labels(self.seen(one.test.pixels())) == one.test.labels).double().mean() for one in self.stream]
        return torch.stack(right).mean().item()

    def leaks(self, dreamt: Tensor, today: int) -> dict[str, float]:
        """Shares of dreamt images that are taken for classes of experiences after ``today``, and of those up to it."""
        found = self.labels(dreamt)
        of = {label: one.number for one in self.stream for label in one.labels}
        times = torch.tensor([of.get(label, -1) for label in found.tolist()])
        future, seen = (times > today), (times >= 0) & (times <= today)
        return {"dreams_of_future": future.double().mean().item(), "dreams_of_seen": seen.double().mean().item()}


def _wider(empty: IncrementalClassifier) -> IncrementalClassifier:
    """A small CNN for hundreds of classes, or the backbone that the learner has."""
    if empty.config.backbone is not None:
        return empty
    form = {name: getattr(empty.config, name) for name in ("num_channels", "image_size", "image_mean", "image_std")}
    return IncrementalClassifier(IncrementalClassifierConfig(**form, cnn_widths=WIDTHS, hidden_size=HIDDEN))


def _some_of_each(images: ImageSet, each: int) -> ImageSet:
    """At most so many images of each class."""
    places = torch.cat([(images.labels == label).nonzero().flatten()[:each] for label in images.labels.unique()])
    return dataclasses.replace(images, rows=images.rows[places], labels=images.labels[places])


def save_dreams(sources: Sequence[Tensor], dreamt: Sequence[Tensor], path: Path) -> None:
    """A row for each dream, of uint8 images ``(n, channels, height, width)`` of its source and of itself."""
    save_grid([torch.cat([source[:SOURCES], dream[:DREAMT]]) for source, dream in zip(sources, dreamt, strict=True)], path)


def shown_of(path: Tensor) -> Tensor:
    """Some of a prompt's vectors after its updates ``(updates + 1, n, token size)``, from the first to the last."""
    return path[torch.linspace(0, len(path) - 1, UPDATES).round().long()]
