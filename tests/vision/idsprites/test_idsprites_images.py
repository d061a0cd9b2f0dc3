"""Rendered sprites: exactness, determinism, the harder variants, and the package they reproduce."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from sleepkit.errors import SleepkitError
from sleepkit.vision.idsprites.affine import factors_to_matrix, normalize
from sleepkit.vision.idsprites.factors import CANONICAL, FactorGrid, FactorRanges, rgb
from sleepkit.vision.idsprites.reference import ReferenceRenderer
from sleepkit.vision.idsprites.renderer import SpriteRenderer
from sleepkit.vision.idsprites.shapes import sample_vertices

HARD = {"marker": False, "texture": 0.5, "noise": 0.1, "clutter": 2, "occluders": 1}
BACKGROUND = 169 / 255


def drawn(renderer, n=12, classes=4, factors=None):
    places = torch.arange(n)
    labels = places % classes
    return renderer(labels, *(factors or FactorRanges(color=())).at(labels, places), places)


@pytest.mark.parametrize("change", [{}, HARD, {"channels": 1}], ids=["plain", "hard", "grey"])
def test_an_image_does_not_depend_on_its_batch(change):
    renderer = SpriteRenderer(32, **change)
    images = drawn(renderer, 40, 7)
    assert images.shape == (40, renderer.channels, 32, 32) and images.dtype == torch.float32
    assert images.min() > -1e-5 and images.max() < 1 + 1e-5
    places = torch.tensor([33, 2, 17])
    assert torch.equal(renderer(places % 7, *FactorRanges(color=()).at(places % 7, places), places), images[places])


def test_chunks_make_no_difference(monkeypatch):
    from sleepkit.vision.idsprites import renderer as module

    whole = drawn(SpriteRenderer(32))
    monkeypatch.setattr(module, "_CHUNK", 5 * 2 * 32 * 32)
    assert torch.equal(drawn(SpriteRenderer(32)), whole)


@pytest.mark.parametrize(
    "change", [{}, {"channels": 1, "marker": False}, {"noise": 0.1, "clutter": 2, "occluders": 1}], ids=["plain", "grey", "hard"]
)
@pytest.mark.parametrize("size", [32, 64])
def test_the_compiled_loop_draws_what_tensors_draw(change, size, monkeypatch):
    pytest.importorskip("numba")
    from sleepkit.vision.idsprites import renderer as module

    renderer = SpriteRenderer(size, **change)
    compiled = drawn(renderer, 100, 50)
    assert module._kernel() is not None
    monkeypatch.setattr(module, "_kernel", lambda: None)
    tensors = drawn(renderer, 100, 50)
    assert tensors.std() > 0.03
    torch.testing.assert_close(compiled, tensors, rtol=0, atol=3e-6)


def test_without_numba_images_are_drawn_by_tensors(monkeypatch):
    from sleepkit.vision.idsprites import renderer as module

    monkeypatch.setitem(sys.modules, "sleepkit.vision.idsprites.raster_kernel", None)
    module._kernel.cache_clear()
    assert module._kernel() is None
    module._kernel.cache_clear()


def test_grey_levels_are_exact_at_sub_pixel_positions():
    """The mean level of an image is that of the exact areas of its halves wherever the sprite lies: nothing is cut to pixels."""
    renderer = SpriteRenderer(64, channels=1)
    labels = torch.arange(8).repeat_interleave(16)
    factors = torch.tensor(CANONICAL, dtype=torch.float64).repeat(128, 1)
    factors[:, 0] = 0.8
    factors[:, 1:] += torch.rand(128, 3, generator=torch.Generator().manual_seed(0)) * 0.1
    images = renderer(labels, factors, torch.ones(128, 3), labels)
    sums = (images - BACKGROUND).sum((1, 2, 3)).view(8, 16)
    assert (sums.max(1).values - sums.min(1).values).max() < 5e-3  # of about 500 pixels' worth
    center = (images - BACKGROUND).abs()
    assert ((center > 0.01) & (center < 0.3)).any()  # partly covered pixels


def test_scale_and_position_move_the_centre_of_the_sprite():
    renderer = SpriteRenderer(64, channels=1, marker=False)
    factors = FactorRanges(size=20, scale=(0.4, 0.6)).at(torch.zeros(20).long(), torch.arange(20))[0]
    weight = renderer(torch.zeros(20).long(), factors, torch.ones(20, 3), torch.arange(20))[:, 0] - BACKGROUND
    weight = weight / (1 - BACKGROUND)
    along = torch.arange(64) + 0.5
    center = torch.stack([(weight.sum(1) * along).sum(1), (weight.sum(2) * along).sum(1)], dim=1) / weight.sum((1, 2))[:, None]
    torch.testing.assert_close(center / 64, (0.25 + 0.5 * factors[:, 2:]).float(), atol=1e-4, rtol=0)
    area = weight.sum((1, 2)) / factors[:, 0] ** 2
    assert area.std() / area.mean() < 1e-3


def test_the_normaliser_is_exact_with_known_factors():
    renderer = SpriteRenderer(64, max_scale=1.0)
    labels = torch.arange(50)
    factors, colors = FactorRanges(scale=(0.5, 1.0), position_x=(0.2, 0.8), position_y=(0.2, 0.8)).at(labels, labels)
    images = renderer(labels, factors, colors, labels)
    found = normalize(images, factors_to_matrix(factors))
    exemplars = renderer.exemplars(labels)
    error = (found - exemplars).abs()
    assert error.mean() < 0.008  # interpolation, along the edges
    assert error.mean() < 0.1 * (images - exemplars).abs().mean()
    off = factors.clone()
    off[:, 1] += 0.1
    assert (normalize(images, factors_to_matrix(off)) - exemplars).abs().mean() > 1.5 * error.mean()


def test_nearest_neighbour_is_perfect_with_the_perfect_pose():
    renderer = SpriteRenderer(64)
    classes = torch.arange(100)
    labels = classes.repeat(3)
    places = torch.arange(300)
    factors, colors = FactorRanges(position_x=(0.2, 0.8), position_y=(0.2, 0.8)).at(labels, places)
    found = normalize(renderer(labels, factors, colors, places), factors_to_matrix(factors)).flatten(1)
    nearest = torch.cdist(found, renderer.exemplars(classes).flatten(1)).argmin(1)
    assert torch.equal(nearest, labels)


def test_pose_has_a_gradient():
    renderer = SpriteRenderer(32, texture=0.5)
    label, color = torch.tensor([3]), torch.ones(1, 3)
    target = renderer(label, torch.tensor([[0.8, 0.2, 0.5, 0.55]]), color, label)
    factors = torch.tensor([[0.7, 0.1, 0.45, 0.5]], requires_grad=True)
    losses = []
    for _ in range(40):
        loss = (renderer(label, factors, color, label) - target).square().mean()
        (gradient,) = torch.autograd.grad(loss, factors)
        factors = (factors - torch.tensor([0.05, 0.2, 0.02, 0.02]) * gradient / gradient.norm()).detach().requires_grad_()
        losses.append(loss.item())
    assert min(losses) < 0.3 * losses[0]


def test_harder_variants_change_what_they_say():
    plain = SpriteRenderer(32)
    images = drawn(plain)
    for name, value in HARD.items():
        harder = replace(plain, **{name: value})
        changed = (drawn(harder) - images).abs().amax((1, 2, 3)) > 0.05
        assert changed.float().mean() > 0.8, name
        assert torch.equal(drawn(harder), drawn(harder))
        assert torch.equal(harder.exemplars(torch.arange(3)), replace(plain, marker=harder.marker).exemplars(torch.arange(3)))
    noise = drawn(replace(plain, noise=0.1)) - images
    inside = (images > 0.35) & (images < 0.65)
    assert noise[inside].std() == pytest.approx(0.1, rel=0.1)
    assert torch.equal(drawn(replace(plain, color_background="black", marker=False)).amin((1, 2, 3)), torch.zeros(12))


def test_factors_of_a_grid_and_of_ranges():
    grid = FactorGrid.regular(4, color=("white", "black"))
    assert len(grid) == 2 * 4**4 and grid.max_scale == 1
    factors, colors = grid.at(torch.zeros(512).long(), torch.arange(512))
    assert torch.equal(colors[:256], torch.ones(256, 3, dtype=torch.float64)) and not colors[256:].any()
    assert len(factors[:256].unique(dim=0)) == 256
    assert factors[0].tolist() == [0.5, 0, 0, 0] and factors[1].tolist() == [0.5, 0, 0, pytest.approx(1 / 3)]
    assert factors[-1].tolist() == [1, pytest.approx(2 * math.pi * 4 / 5), 1, 1]
    ranges = FactorRanges(scale=(0.6, 0.7), color=("red", "blue"))
    factors, colors = ranges.at(torch.full((500,), 3), torch.arange(500))
    assert 0.6 <= factors[:, 0].min() < 0.61 and 0.69 < factors[:, 0].max() <= 0.7
    assert {tuple(color) for color in colors.tolist()} == {rgb("red"), rgb("blue")}
    assert torch.equal(ranges.at(torch.tensor([3]), torch.tensor([77]))[0][0], factors[77])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FactorGrid(scale=(0.5, 0.0)), "scale contains 0; give values above 0"),
        (lambda: FactorGrid(scale=(-1.0,)), "scale contains -1"),
        (lambda: FactorGrid(orientation=()), "has no value of orientation"),
        (lambda: FactorGrid.regular(0), "has 0 values"),
        (lambda: FactorGrid(position_x=(1.5,)), "position_x contains 1.5; give values from 0 to 1"),
        (lambda: FactorGrid(orientation=(math.nan,)), "orientation contains nan"),
        (lambda: FactorGrid(color=("whitish",)), "color is 'whitish'"),
        (lambda: FactorRanges(size=0), "size 0"),
        (lambda: FactorRanges(scale=(1.0, 0.5)), "lowest and its highest"),
        (lambda: FactorRanges(scale=(0.0, 0.5)), "scale contains 0"),
        (lambda: SpriteRenderer(vertices=(5, 33)), r"vertices is \(5, 33\)"),
        (lambda: SpriteRenderer(image_size=4), "image_size is 4; give at least 8"),
        (lambda: SpriteRenderer(image_size=4096), "image_size is 4096; give at most 2048"),
        (lambda: SpriteRenderer(channels=2), "channels is 2"),
        (lambda: SpriteRenderer(texture=2), "texture is 2"),
        (lambda: SpriteRenderer(noise=-1), "noise is -1"),
        (lambda: SpriteRenderer(max_scale=0), "max_scale is 0"),
        (lambda: drawn(SpriteRenderer(), factors=FactorRanges(scale=(1.2, 1.3))), "scales run from 1.2.* up to max_scale = 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(SleepkitError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_missing_opencv_says_which_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SleepkitError, match=r"sleepkit\[vision\]"):
        ReferenceRenderer()


@pytest.mark.parametrize("size", [64, 97])
def test_the_reference_is_the_package_bit_for_bit(size):
    pytest.importorskip("cv2")
    package = pytest.importorskip("idsprites.infinite_dsprites")
    theirs = package.InfiniteDSprites(img_size=size)
    labels = torch.arange(40).repeat_interleave(4)
    places = torch.arange(4).repeat(40)
    for factors in (FactorGrid.regular(8), FactorRanges(color=())):
        values, colors = factors.at(labels, places * 701)
        images = ReferenceRenderer(size, seed=1)(labels, values, colors, labels).numpy()
        for label in range(40):
            vertices, degree = sample_vertices(1, label)
            shape = theirs.center_and_scale(theirs.align(theirs.interpolate(vertices.T, k=degree)))
            for i in range(4 * label, 4 * label + 4):
                image = theirs.draw(package.Factors(shape, np.array(colors[i].tolist()), label, *values[i].tolist()))
                np.testing.assert_array_equal(images[i], image)


def test_the_reference_and_ours_show_the_same():
    pytest.importorskip("cv2")
    labels = torch.arange(20)
    factors, colors = FactorRanges(position_x=(0.3, 0.7), position_y=(0.3, 0.7)).at(labels, labels)
    reference = ReferenceRenderer(128)(labels, factors, colors, labels)
    assert ((SpriteRenderer(128)(labels, factors, colors, labels) - reference).abs() > 0.3).float().mean() < 0.015
    assert ReferenceRenderer(32, channels=1).exemplars(labels).shape == (20, 1, 32, 32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same():
    for change in ({}, HARD):
        found = drawn(SpriteRenderer(64, device="cuda", **change)).cpu()
        torch.testing.assert_close(found, drawn(SpriteRenderer(64, **change)), atol=1e-3, rtol=0)
