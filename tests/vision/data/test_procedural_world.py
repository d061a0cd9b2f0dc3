"""The world of small pictures: what stream and generator see of it, and that recombination leads to no later class."""

from itertools import combinations, product

import pytest
import torch

from sleepkit.errors import SleepkitError
from sleepkit.vision.data.images import load_images
from sleepkit.vision.data.procedural_world import (
    COLOURS,
    GENERATOR_CLASSES,
    HELD_OUT,
    SHAPES,
    TEXTURES,
    draw,
    generator_images,
    stream_images,
)


def test_stream_and_generator_share_no_class_and_every_part():
    assert len(HELD_OUT) == 18 and len(GENERATOR_CLASSES) == 198 and not set(HELD_OUT) & set(GENERATOR_CLASSES)
    for part, names in enumerate((SHAPES, TEXTURES, COLOURS)):
        counts = [sum(look[part] == number for look in HELD_OUT) for number in range(len(names))]
        assert counts == ([2, 4] * 3 if part == 2 else [3] * 6)


def test_parts_of_two_classes_never_make_a_third():
    for one, other in combinations(HELD_OUT, 2):
        mixed = set(product(*zip(one, other, strict=True)))
        assert mixed & set(HELD_OUT) == {one, other}


def test_pictures_depend_on_their_seed_and_look_like_their_class():
    pixels, captions = generator_images(400)
    again, _ = generator_images(400)
    other, _ = generator_images(400, seed=1)
    assert torch.equal(pixels, again) and not torch.equal(pixels, other) and pixels.shape == (400, 3, 32, 32)
    assert all(len(caption.split()) == 5 for caption in captions)
    row = next(row for row, caption in enumerate(captions) if caption.startswith("red plain square"))
    middle, corner = pixels[row, :, 14:18, 14:18].float().mean((1, 2)), pixels[row, :, :2, :2].float().mean()
    dark = captions[row].endswith(("black", "brown"))
    assert middle[0] > 180 and middle[1] < 90 and (corner < 110) == dark
    plain, striped = (draw([HELD_OUT[0]._replace(texture=t)] * 30, torch.Generator().manual_seed(0))[0] for t in (0, 1))
    assert striped.float().std((2, 3)).mean() > plain.float().std((2, 3)).mean()


def test_as_data_sets():
    stream, others = load_images("procedural", seed=3), load_images("procedural_others")
    assert stream.names[0] == "red plain circle" and stream.train.pixels.shape == (3600, 3, 32, 32)
    assert len(others.names) == 198 and not set(stream.names) & set(others.names)
    assert not torch.equal(load_images("procedural", seed=4).train.pixels, stream.train.pixels)
    with pytest.raises(SleepkitError, match="channels is 1 and the data set 'procedural' is drawn as it is; leave it out"):
        load_images("procedural", channels=1)


@pytest.mark.parametrize("seed", [20240115, 2**32, 2**63 - 1])
def test_any_seed(seed):
    pixels, captions = generator_images(4, seed)
    assert pixels.shape == (4, 3, 32, 32) and len(captions) == 4
    assert not torch.equal(pixels, generator_images(4, seed - 1)[0])
    assert not torch.equal(stream_images(seed).test.pixels, stream_images(seed - 1).test.pixels)


def test_more_pictures_than_memory():
    with pytest.raises(SleepkitError, match="drawing 1000000000 pictures would take .* GiB of memory .*; lower images"):
        generator_images(10**9)
