"""What is measured of a disentangled learner at the end, each with the pose from three sources and by two comparisons.

    pose        learned: the canonicalizer's     closed_form: closed_form.py     oracle: the true one
    comparison  aligned: as in exemplars.py      nearest: the paper's, by the distance of pictures alone

    accuracy            accumulated test set of all classes met
    off_grid_accuracy   the same, and the validation set, in other poses: any orientation, scales and positions between the grid's
    pose_rms            error of the six entries of the matrix on the latter; pose_median is the median over images
    novel_pose_rms      the same on classes that were never met
    one_shot            classes never met, of which one exemplar is added, among those and all classes met
    one_shot_cleared    among those alone
    auroc, aupr, fpr95, oscr   known off-grid images against images of classes never met, by the ratio score (open_set.py); of
                        the learned pose by the other scores too (auroc_residual, ...), and sigma_accepted: the share of known
                        images below the sigma that accepts 95 % of validation images

Metrics of the learned pose by the learner's own comparison have these names; others have their source and comparison before them:
``oracle_accuracy``, ``closed_form_nearest_accuracy``, ``nearest_accuracy``.  With exemplars from first images, that of a class
never met is its first image as it is straightened by the pose in question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sleepkit.utils.ranks import of_rows
from sleepkit.vision.disentangled import open_set
from sleepkit.vision.disentangled.closed_form import closed_form_pose
from sleepkit.vision.disentangled.exemplars import MATCHES, Match
from sleepkit.vision.disentangled.learner import DisentangledLearner, pose_rms
from sleepkit.vision.idsprites.affine import factors_to_matrix
from sleepkit.vision.idsprites.dataset import SpritesDataset
from sleepkit.vision.idsprites.factors import FactorGrid, FactorRanges
from sleepkit.vision.idsprites.stream import SpritesStream

__all__ = ["POSES", "SHOWN", "image_sets", "measure", "metric_prefix", "table_of", "table_rows"]

POSES = {"learned": "learned", "closed_form": "closed form", "oracle": "true"}
"""Headings of the sources."""
SHOWN = {
    "accuracy": "accuracy",
    "off_grid_accuracy": "off the grid",
    "one_shot": "one-shot",
    "auroc": "AUROC",
    "pose_rms": "pose RMS",
}
"""Headings of the metrics that tables show."""
ACCUMULATED = 6_000  # images of a test set, at most


class Images(NamedTuple):
    """pixels ``(N, C, S, S)`` from 0 to 1, labels ``(N,)`` and true matrices ``(N, 3, 3)``."""

    pixels: Tensor
    labels: Tensor
    matrix: Tensor


def measure(learner: DisentangledLearner, stream: SpritesStream, novel_classes: int, novel_images: int) -> dict[str, float]:
    """Measure a learner at the end of its stream.

    Args:
        learner: that has met all of it.
        stream: its experiences.
        novel_classes: classes that it has never met.
        novel_images: images of each of them.

    Returns:
        All metrics by name; see the module.
    """
    sets = image_sets(stream, novel_classes, novel_images)
    off = sets["off"]
    validation = _all(stream[len(stream) - 1].validation)
    found: dict[str, float] = {}
    for source in POSES:
        pose = _pose_function(learner, source)
        matrices = {name: pose(images) for name, images in sets.items()}
        errors = {
            "pose_rms": pose_rms(matrices["off"], off.matrix),
            "novel_pose_rms": pose_rms(matrices["novel"], sets["novel"].matrix),
        }
        errors["pose_median"] = (matrices["off"] - off.matrix)[:, :2].square().mean((1, 2)).sqrt().median().item()
        for how in MATCHES:
            matches = {name: learner.match(images.pixels, matrices[name], how=how) for name, images in sets.items()}
            scores = dict(_compared(learner, stream, sets, matrices, matches, how)) | errors
            prefix = metric_prefix(source, how, learner.config.match)
            if not prefix:
                scores |= _other_scores(matches, learner.match(validation.pixels, pose(validation)))
            found |= {prefix + name: value for name, value in scores.items()}
    return found


def image_sets(stream: SpritesStream, novel_classes: int, novel_images: int) -> dict[str, Images]:
    """Images of all classes met in their own poses (``test``) and in others (``off``), and of classes never met (``novel``)."""
    met = len(stream) * stream.classes_per_experience
    elsewhere = _between(stream.factors, stream.seed)
    splits = stream.splits()
    rows = torch.cat([_evenly(splits[name].rows, ACCUMULATED) for name in ("validation", "test")])
    off = _all(SpritesDataset(range(met), elsewhere, stream.renderer, rows))
    each = torch.arange(novel_classes)[:, None] * len(elsewhere) + torch.arange(novel_images + 1)  # the first one is not tested
    novel = _all(SpritesDataset(range(met, met + novel_classes), elsewhere, stream.renderer, each.flatten()))
    test = splits["test"].select(_evenly(torch.arange(len(splits["test"])), ACCUMULATED))
    return {"test": _all(test), "off": off, "novel": novel}


def table_rows(found: dict[str, float], match: str) -> list[list[object]]:
    """Source, comparison and the `SHOWN` metrics, of all sources and comparisons; ``match`` is the learner's own comparison."""
    return [
        [heading, how, *(found[metric_prefix(source, how, match) + name] for name in SHOWN)]
        for source, heading in POSES.items()
        for how in MATCHES[::-1]
    ]


def table_of(found: dict[str, float], match: str) -> tuple[list[str], list[list[object]]]:
    """Return headings and rows of the table of pose sources, of `measure`'s metrics."""
    return ["pose", "comparison", *SHOWN.values()], table_rows(found, match)


def metric_prefix(source: str, how: str, match: str) -> str:
    """Return what stands before a metric's name: the sources of poses and their meaning are in the module."""
    own = "" if source == "learned" else f"{source}_"
    return own if how == match else f"{own}{how}_"


def _compared(
    learner: DisentangledLearner,
    stream: SpritesStream,
    sets: dict[str, Images],
    matrices: dict[str, Tensor],
    matches: dict[str, Match],
    how: str,
) -> Iterator[tuple[str, float]]:
    yield "accuracy", _right(matches["test"], sets["test"]).mean().item()
    correct = _right(matches["off"], sets["off"])
    yield "off_grid_accuracy", correct.mean().item()
    novel = sets["novel"]
    first = torch.cat([torch.ones(1, dtype=torch.bool), novel.labels[1:] != novel.labels[:-1]])
    if learner.config.exemplar_source == "render":
        pictures, canonical = stream.renderer.exemplars(novel.labels[first]), torch.eye(3).expand(int(first.sum()), 3, 3)
    else:
        pictures, canonical = novel.pixels[first], matrices["novel"][first]
    views = learner.exemplars.view(pictures, canonical)
    tested = Images(*(part[~first] for part in novel))
    for name, exemplars in (("one_shot", learner.exemplars.copy()), ("one_shot_cleared", learner.exemplars.without_classes())):
        exemplars.add(views, novel.labels[first])
        yield name, _right(learner.match(tested.pixels, matrices["novel"][~first], exemplars, how), tested).mean().item()
    known, unknown = (open_set.novelty(matches[name].distances)["ratio"] for name in ("off", "novel"))
    yield "auroc", open_set.auroc(known, unknown)
    yield "aupr", open_set.aupr(known, unknown)
    yield "fpr95", open_set.fpr95(known, unknown)
    yield "oscr", open_set.oscr(known, correct.numpy().astype(bool), unknown)


def _other_scores(matches: dict[str, Match], validation: Match) -> dict[str, float]:
    """AUROC of the other open-set scores, and what the sigma from validation images accepts."""
    usual = open_set.novelty(validation.distances)
    fusion = open_set.Fusion(usual)
    known, novel = (open_set.novelty(matches[name].distances) for name in ("off", "novel"))
    found = {f"auroc_{name}": open_set.auroc(known[name], novel[name]) for name in ("residual", "knn")}
    sigma = open_set.threshold(usual["ratio"])
    accepted = {"sigma_accepted": np.mean(known["ratio"] <= sigma), "sigma_accepted_novel": np.mean(novel["ratio"] <= sigma)}
    found |= {"auroc_fusion": open_set.auroc(fusion(known), fusion(novel)), "sigma": sigma}
    return found | {name: float(value) for name, value in accepted.items()}


def _pose_function(learner: DisentangledLearner, source: str) -> Callable[[Images], Tensor]:
    if source == "learned":
        return lambda images: learner.poses(images.pixels)
    if source == "oracle":
        return lambda images: images.matrix
    return lambda images: of_rows(closed_form_pose, images.pixels, 64)


def _right(match: Match, images: Images) -> Tensor:
    return (match.labels[:, 0] == images.labels).double()


def _between(factors: FactorGrid | FactorRanges, seed: int) -> FactorRanges:
    """As many poses in the range of the given ones, of any orientation."""
    if isinstance(factors, FactorRanges):
        return replace(factors, seed=factors.seed + 1)
    names = ("scale", "position_x", "position_y")
    low_high = {name: (min(getattr(factors, name)), max(getattr(factors, name))) for name in names}
    return FactorRanges(len(factors), factors.color, **low_high, seed=seed)


def _evenly(rows: Tensor | None, most: int) -> Tensor:
    assert rows is not None
    return rows[torch.linspace(0, len(rows) - 1, min(most, len(rows))).round().long()]


def _all(dataset: SpritesDataset) -> Images:
    batch = dataset.batch()
    return Images(batch["pixel_values"], batch["labels"], factors_to_matrix(batch["factors"]))
