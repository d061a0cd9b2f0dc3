"""Distorted images: nothing at strength 0, the same whatever the batch, straight lines bent by elastic and not by perspective."""

import pytest
import torch

from sleepkit.errors import SleepkitError
from sleepkit.vision.idsprites.distortion import DistortedRenderer, distorted
from sleepkit.vision.idsprites.factors import FactorRanges
from sleepkit.vision.idsprites.renderer import SpriteRenderer

INNER = SpriteRenderer(image_size=32, channels=1)
CLASSES, IDS = torch.arange(6) % 3, torch.arange(6)
FACTORS, COLORS = FactorRanges(6).at(CLASSES, IDS)


def images(perspective, elastic, ids=IDS, inner=INNER):
    one = DistortedRenderer(image_size=32, channels=1, inner=inner, perspective=perspective, elastic=elastic)
    return one(CLASSES[ids], FACTORS[ids], COLORS[ids], ids)


def test_strength_0_changes_nothing():
    torch.testing.assert_close(images(0, 0), INNER(CLASSES, FACTORS, COLORS, IDS), atol=1e-5, rtol=0)
    assert distorted(INNER, 0, 0) is INNER
    assert torch.equal(distorted(INNER, 0.2, 0).exemplars(CLASSES), INNER.exemplars(CLASSES))


@pytest.mark.parametrize(("perspective", "elastic"), [(0.3, 0), (0, 0.1)])
def test_an_image_is_its_own_whatever_the_batch(perspective, elastic):
    whole = images(perspective, elastic)
    assert torch.equal(images(perspective, elastic, torch.tensor([4, 1])), whole[[4, 1]])
    assert (whole - INNER(CLASSES, FACTORS, COLORS, IDS)).abs().amax((1, 2, 3)).min() > 0.1


class Ramps(SpriteRenderer):
    """Images of their own coordinates, x and y."""

    def __call__(self, classes, factors, colors, ids):
        axis = (torch.arange(self.image_size) + 0.5) * 2 / self.image_size - 1
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        return torch.stack([x, y]).expand(len(ids), 2, -1, -1)


@pytest.mark.parametrize(("perspective", "elastic", "straight"), [(0.3, 0, True), (0, 0.1, False)])
def test_perspective_keeps_lines_straight_and_elastic_bends_them(perspective, elastic, straight):
    """A row of pixels shows points (x, y, 1) of one line: their matrix has rank 2."""
    seen = images(perspective, elastic, inner=Ramps(image_size=32, channels=1))[:, :, 16, 8:24]
    points = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1)
    thickness = torch.linalg.svdvals(points.double())[:, 2]
    assert thickness.max() < 1e-4 if straight else thickness.min() > 1e-3


@pytest.mark.parametrize(("perspective", "elastic"), [(0.5, 0), (-0.1, 0), (0, -1)])
def test_strengths_out_of_range_are_refused(perspective, elastic):
    with pytest.raises(SleepkitError, match="perspective|elastic"):
        images(perspective, elastic)
