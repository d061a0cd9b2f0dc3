"""Pictures of a data set in unknown poses: how they are drawn."""

import numpy as np
import pytest
import torch

from sleepkit.vision.data.images import load_images
from sleepkit.vision.idsprites.affine import factors_to_matrix, normalize
from sleepkit.vision.idsprites.factors import FactorRanges, canonical
from sleepkit.vision.idsprites.warped_images import span, warped_renderer


@pytest.fixture
def renderer(tmp_path):
    """Of two classes, at 64 px: a thin upright stroke left of the middle, and a thin lying one above it."""
    pictures, labels = np.zeros((40, 128, 128), dtype=np.uint8), np.arange(2).repeat(20)
    pictures[:20, 32:-32, 48:50] = 255
    pictures[20:, 48:50, 32:-32] = 255
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", x=pictures, y=labels)
    return warped_renderer(load_images(tmp_path, image_size=span(64)), "strokes", 4, 64)


def test_thin_strokes_keep_their_ink_in_any_pose(renderer):
    classes = torch.arange(40) % 2
    factors, colors = FactorRanges(4).at(classes, torch.arange(40))
    images = renderer(classes, factors, colors, torch.arange(40))
    ink = images.sum((1, 2, 3)) / (64 * (2 / 128) * (64 / 128) * 64 / 4)  # of the stroke at scale 1
    torch.testing.assert_close(ink.double(), factors[:, 0].square(), rtol=0.1, atol=0)


def test_a_straightened_image_shows_the_picture_upright(renderer):
    classes = torch.tensor([0, 1])
    plain = renderer(classes, *canonical(2, "white"), classes)
    factors = torch.tensor([[0.9, 2.0, 0.4, 0.6]] * 2, dtype=torch.float64)
    straight = normalize(renderer(classes, factors, factors[:, :3], classes), factors_to_matrix(factors).float())
    for image, other in ((0, 1), (1, 0)):
        assert (straight[image] - plain[image]).square().mean() < 0.3 * (straight[image] - plain[other]).square().mean()
