"""Augmentation: shapes, range, one change per image, repeatable by the seed."""

import pytest
import torch

from sleepkit.errors import SleepkitError
from sleepkit.vision.data.augmentation import AUGMENTATIONS, augmentation

PIXELS = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", AUGMENTATIONS[1:])
def test_each(name):
    pytest.importorskip("kornia")
    apply = augmentation(name, 8, 8)
    torch.manual_seed(0)
    first, second = apply(PIXELS), apply(PIXELS)
    torch.manual_seed(0)
    assert torch.equal(apply(PIXELS), first) and not torch.equal(first, second)
    assert first.shape == PIXELS.shape and first.dtype == torch.float32 and first.min() >= 0 and first.max() <= 1
    same = PIXELS[:1].expand(6, -1, -1, -1)
    assert len({tuple(image.flatten().tolist()) for image in apply(same)}) > 1
    torch.manual_seed(0)
    torch.testing.assert_close(apply(PIXELS / 255), first)


def test_none_and_unknown():
    assert augmentation("none", 8, 8) is None
    with pytest.raises(SleepkitError, match="augmentation is 'cutmix'; use one of none, crop"):
        augmentation("cutmix", 8, 8)
