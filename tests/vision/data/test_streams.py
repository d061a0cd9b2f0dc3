"""Streams: which images and labels each experience has, in every scenario."""

import pytest
import torch
from tiny_images import tiny_data

from sleepkit.errors import SleepkitError
from sleepkit.vision.data.image_data import ImageData, Images
from sleepkit.vision.data.streams import CORRUPTIONS, build_stream, permuted, rotated

DATA = tiny_data()


def test_classes_are_dealt_out_in_order():
    stream = build_stream(DATA, "class", 2)
    assert [experience.labels for experience in stream] == [(0, 1), (2, 3)]
    assert [experience.name for experience in stream] == ["class 0, class 1", "class 2, class 3"]
    for experience in stream:
        for part, whole in (
            (experience.train, DATA.train),
            (experience.validation, DATA.validation),
            (experience.test, DATA.test),
        ):
            assert set(part.labels.tolist()) == set(experience.labels) and len(part) == len(whole.labels) // 2
            assert torch.equal(part.pixels(), whole.pixels[torch.isin(whole.labels, torch.tensor(experience.labels))])
    places = torch.tensor([3, 0])
    assert torch.equal(stream[1].train.pixels(places), stream[1].train.pixels()[places])


def test_order_by_seed_and_given():
    orders = [[e.labels for e in build_stream(DATA, "task", 4, class_order="random", seed=seed)] for seed in (0, 0, 1, 2)]
    assert orders[0] == orders[1] and len({tuple(order) for order in orders}) > 1
    assert [e.labels for e in build_stream(DATA, experiences=2, class_order=[3, 0, 2, 1])] == [(3, 0), (2, 1)]


def test_domains_of_classes_share_their_labels():
    stream = build_stream(DATA, "domain", 2)
    assert [e.labels for e in stream] == [(0, 1), (0, 1)] and stream[1].name == "class 2, class 3"
    assert torch.equal(stream[1].test.labels, DATA.test.labels[DATA.test.labels > 1] - 2)


@pytest.mark.parametrize("domains", ["permutation", "rotation", "corruption"])
def test_domains_of_all_classes(domains):
    stream = build_stream(DATA, "domain", 3, domains=domains)
    assert all(e.labels == (0, 1, 2, 3) and len(e.train) == 96 for e in stream)
    assert torch.equal(stream[0].train.pixels(), DATA.train.pixels)
    places = torch.tensor([5, 1])
    for experience in stream[1:]:
        assert experience.train.pixels().dtype == torch.uint8
        assert not torch.equal(experience.train.pixels(), DATA.train.pixels)
        assert torch.equal(experience.train.pixels(places), experience.train.pixels()[places])
    assert len({e.name for e in stream}) == 3


def test_a_permutation_moves_each_pixel_once_and_depends_on_the_seed():
    pixels = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8)
    moved = permuted(pixels, seed=0, k=1)
    assert torch.equal(moved.flatten().sort().values, pixels.flatten())
    assert not torch.equal(moved, permuted(pixels, seed=1, k=1)) and not torch.equal(moved, permuted(pixels, seed=0, k=2))


def test_rotation():
    pixels = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    pixels[0, 0, 0, 4] = 200  # top
    assert rotated(pixels, 90)[0, 0, 4, 0] == 200  # left: counter-clockwise
    assert rotated(pixels, 180)[0, 0, 8, 4] == 200
    torch.testing.assert_close(rotated(pixels, 0), pixels)
    wide = torch.zeros(1, 1, 5, 9, dtype=torch.uint8)
    wide[0, 0, 2, 6] = 200
    assert rotated(wide, 90)[0, 0, 0, 4] == 200  # two pixels up, in pixels and not in shares of the side


def test_corruptions_are_bytes_and_repeat():
    pixels = DATA.train.pixels
    for name, corrupt in CORRUPTIONS.items():
        if corrupt is not None:
            assert torch.equal(corrupt(pixels), corrupt(pixels)) and corrupt(pixels).dtype == torch.uint8, name


def test_what_tells_experiences_apart():
    first, second = build_stream(DATA, "domain", 2, domains="permutation"), build_stream(DATA, "domain", 2, domains="permutation")
    assert [e.to_dict() for e in first] == [e.to_dict() for e in second]
    assert first[0].to_dict()["images"] != first[1].to_dict()["images"]
    changed = DATA.test.pixels.clone()
    changed[0, 0, 0, 0] += 1
    other = ImageData(DATA.train, DATA.validation, Images(changed, DATA.test.labels), DATA.names)
    assert build_stream(other, "domain", 2)[0].to_dict() != build_stream(DATA, "domain", 2)[0].to_dict()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scenario": "classes"}, "scenario is 'classes'; use one of class, task, domain"),
        ({"domains": "moons"}, "domains is 'moons'; use one of classes, permutation"),
        ({"experiences": 0}, "experiences is 0"),
        ({"experiences": 3}, "experiences is 3, which does not divide 4 classes"),
        ({"experiences": 2, "class_order": "sorted"}, "class_order is 'sorted'; use 'natural', 'random' or each of 0..3"),
        ({"experiences": 2, "class_order": [0, 1, 2, 2]}, "class_order is .0, 1, 2, 2.; use"),
        ({"experiences": 2, "class_order": [0, 1, 2]}, "class_order is .0, 1, 2.; use"),
        ({"experiences": 2, "class_order": [0, 1, 2, 4]}, "each of 0..3 once"),
        ({"experiences": 2, "class_order": list(range(99))}, "class_order is of 99 labels; use"),
        ({"experiences": 10**12}, "experiences is 1000000000000, which does not divide 4 classes"),
        ({"scenario": "domain", "domains": "corruption", "experiences": 9}, "but there are 7 corruptions"),
        ({"scenario": "domain", "domains": "permutation", "experiences": 10**12}, "give at most 1000 domains"),
        ({"scenario": "domain", "domains": "rotation", "experiences": 1001}, "give at most 1000 domains"),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises(SleepkitError, match=words):
        build_stream(DATA, **options)


def test_one_class_is_refused():
    keep = [
        Images(part.pixels[part.labels == 0], part.labels[part.labels == 0]) for part in (DATA.train, DATA.validation, DATA.test)
    ]
    with pytest.raises(SleepkitError, match=r"the data have one class \(class 0\), which any answer gets right; give at least 2"):
        build_stream(ImageData(*keep, ["class 0"]), experiences=1)


def test_features_have_no_domains_but_classes():
    parts = [Images(part.pixels.flatten(1).float(), part.labels) for part in (DATA.train, DATA.validation, DATA.test)]
    data = ImageData(*parts, DATA.names)
    assert len(build_stream(data, "domain", 2)) == 2
    for domains in ("permutation", "rotation", "corruption"):
        with pytest.raises(SleepkitError, match=f"domains is '{domains}', a change of images, and the data are features; use"):
            build_stream(data, "domain", 2, domains=domains)


@pytest.mark.parametrize("seed", [20240115, 2**32, 2**54, 2**63 - 1])
def test_any_seed(seed):
    pixels = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8)
    assert permuted(pixels, seed, 1).flatten().sort().values.tolist() == list(range(64))
    assert not torch.equal(permuted(pixels, seed, 1), permuted(pixels, seed - 1, 1))
    assert len(build_stream(DATA, experiences=2, class_order="random", seed=seed)) == 2


def test_small_seeds_draw_what_they_always_have():
    first = permuted(torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8), seed=2, k=3)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2003))
    assert first.flatten().tolist() == order.tolist()
