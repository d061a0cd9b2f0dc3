"""The baseline that learns nothing: near the truth where its assumptions hold, and only there."""

import torch

from sleepkit.vision.disentangled.closed_form import closed_form_pose
from sleepkit.vision.idsprites.affine import factors_to_matrix
from sleepkit.vision.idsprites.factors import FactorRanges
from sleepkit.vision.idsprites.renderer import SpriteRenderer


def errors(**options):
    """Root mean square error of each of 24 images; positions such that all of a shape is seen."""
    classes = torch.arange(24)
    ranges = FactorRanges(1, position_x=(0.3, 0.7), position_y=(0.3, 0.7))
    factors, colors = ranges.at(classes, torch.zeros_like(classes))
    images = SpriteRenderer(64, **options)(classes, factors, colors, classes)
    return (closed_form_pose(images) - factors_to_matrix(factors))[:, :2].square().mean((1, 2)).sqrt()


def test_it_is_near_the_truth():
    for channels in (1, 3):
        assert errors(channels=channels).median() < 0.015


def test_it_needs_the_marker():
    assert errors(channels=1, marker=False).median() > 0.1
