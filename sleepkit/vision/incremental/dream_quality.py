"""How good dreams are, by class: whether a classifier recognises them, and whether they differ among themselves.

    fidelity    share of a class' dreams that a classifier gives to the class
    diversity   mean variance of a pixel over a class' dreams  /  the same over its images        1: as diverse as they are

While a generator is trained, the classifier is the fast learner.  A result is measured by a judge, which has seen the training
images of all experiences together; nothing is ever trained with it.

Ours: all of it.  Left out: feature distances such as FID, which want a large network and thousands of images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor

from sleepkit.utils.digests import digest
from sleepkit.utils.phases import digest_of
from sleepkit.utils.seeds import derive_seed
from sleepkit.utils.training import settings_digest
from sleepkit.vision.data.streams import ImageExperience, ImageSet
from sleepkit.vision.incremental.classifier import IncrementalClassifier
from sleepkit.vision.incremental.config import IncrementalTrainingConfig
from sleepkit.vision.incremental.trainer import IncrementalTrainer, TensorRows, trained_once

__all__ = ["diversity", "fidelity", "trained_judge"]


def fidelity(predicted: Tensor, classes: Tensor) -> dict[int, float]:
    """Share of each class' dreams that are recognised; both ``(n,)``."""
    return {int(one): (predicted[classes == one] == one).double().mean().item() for one in classes.unique()}


def diversity(dreams: Tensor, classes: Tensor, images: Tensor, image_classes: Tensor) -> dict[int, float]:
    """Return for each class the variance of its dreams over that of its images; see the module.

    Args:
        dreams, images: pixels, uint8.
        classes, image_classes: of each of them.

    Returns:
        Ratios by class; 0 where dreams are all alike, NaN where images are.
    """
    return {
        int(one): (_variance(dreams[classes == one]) / _variance(images[image_classes == one])).item() for one in classes.unique()
    }


def _variance(pixels: Tensor) -> Tensor:
    return pixels.float().var(dim=0, correction=0).mean()


def trained_judge(
    model: IncrementalClassifier,
    stream: Sequence[ImageExperience],
    config: IncrementalTrainingConfig,
    folder: Path,
    seen: Callable[[ImageSet], Tensor] = ImageSet.pixels,
    looks: Mapping[str, Any] | None = None,
) -> IncrementalClassifier:
    """Train a classifier of all classes on all training images, or read it back from its folder.

    Its units are the labels, as the stream numbers them.  What the model has frozen stays so.

    Args:
        model: without classes, which is copied.
        stream: all experiences.
        config: says for how long it is trained.
        folder: where it is kept.
        seen: what it sees of images.
        looks: all that this depends on, by name.
    """
    judge = copy.deepcopy(model).to(config.device)  # type: ignore[arg-type]
    labels = sorted({label for experience in stream for label in experience.labels})
    seed = derive_seed(config.seed, "judge")
    set_seed(seed)  # not where the night has got to, which is elsewhere in a run that was resumed
    judge.grow(labels, 0)
    identity = {
        "seed": config.seed,
        "settings": settings_digest(config),
        "experiences": digest_of([experience.to_dict() for experience in stream]),
        "weights": digest(judge.state_dict())[:16],
        **(looks or {}),
    }

    def work() -> dict[str, Any]:
        pixels = torch.cat([seen(experience.train) for experience in stream])
        rows = TensorRows(pixels, judge.units_of(torch.cat([experience.train.labels for experience in stream])))
        return IncrementalTrainer(judge.train(), _judged, config, rows, seed, folder, what="the judge").run()

    trained_once(folder, identity, judge, work)
    return judge.eval()


def _judged(model: torch.nn.Module, pixels: Tensor, units: Tensor, step: int) -> Tensor:
    loss: Tensor = model(pixel_values=pixels, labels=units).loss
    return loss
