"""Shapes, coverage and affine matrices: closed forms against independent references."""

import math

import numpy as np
import pytest
import torch

from sleepkit.errors import SleepkitError
from sleepkit.vision.idsprites import affine, shapes
from sleepkit.vision.idsprites.counter_random import uniform
from sleepkit.vision.idsprites.raster import coverage


def segments_of(corners):
    """A polygon (n, 2) in pieces shorter than a pixel, as `coverage` takes them."""
    corners = torch.as_tensor(corners, dtype=torch.float32)
    along = corners.roll(-1, 0) - corners
    parts = int(along.norm(dim=1).max().ceil()) + 1
    t = torch.arange(parts) / parts
    start = (corners[:, None] + t[:, None] * along[:, None]).flatten(0, 1)
    end = (corners[:, None] + (t[:, None] + 1 / parts) * along[:, None]).flatten(0, 1)
    return torch.stack([start.T, end.T])[:, :, None]


def covered(corners, size=16):
    ends = segments_of(corners)
    return coverage(ends, torch.zeros(ends.shape[2:]), 1, size)[0]


def sampled(corners, size=16, fine=40):
    """Coverage by asking many points of each pixel (even-odd)."""
    x = (np.arange(size * fine) + 0.5) / fine
    inside = np.zeros((len(x), len(x)), dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        spans = (y0 <= x) != (y1 <= x)
        if y0 != y1:
            inside[spans] ^= x[None] < (x0 + (x[spans] - y0) * (x1 - x0) / (y1 - y0))[:, None]
    return inside.reshape(size, fine, size, fine).mean((1, 3))


STAR = [(8 + r * math.cos(a), 8 + r * math.sin(a)) for r, a in zip([7, 2.5] * 5, np.arange(10) * math.pi / 5 + 0.1, strict=True)]
POLYGONS = {
    "rectangle at sub-pixel edges": [(2.25, 3.5), (9.75, 3.5), (9.75, 11.125), (2.25, 11.125)],
    "star": STAR,
    "beyond every edge": [(-5.3, 7.1), (8.2, -4.4), (21.7, 9.3), (7.9, 20.6)],
    "pentagram: the middle is a hole": [STAR[i] for i in (0, 4, 8, 2, 6)],
    "all outside": [(20.0, 3.0), (30.0, 3.0), (25.0, 9.0)],
}


@pytest.mark.parametrize("name", POLYGONS)
def test_coverage_is_the_area_in_each_pixel(name):
    corners = np.array(POLYGONS[name])
    found = covered(corners).numpy()
    assert found.min() >= 0 and found.max() <= 1
    wrong = np.abs(found - sampled(corners)) > 0.02
    assert wrong.sum() <= (10 if "hole" in name else 0)  # two pixels at most for each point where the outline crosses itself
    np.testing.assert_allclose(covered(corners[::-1].copy()), found, atol=1e-5)  # either direction
    if name in ("rectangle at sub-pixel edges", "star"):
        following = np.roll(corners, -1, axis=0)
        area = abs((corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1]).sum()) / 2
        assert found.sum() == pytest.approx(area, abs=1e-4)
    if name.startswith("rectangle"):
        assert found[3, 2] == pytest.approx(0.5 * 0.75) and found[5, 5] == 1 and found[11, 9] == pytest.approx(0.125 * 0.75)


def test_coverage_has_the_gradient_of_finite_differences():
    weights = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))

    def value(shift):
        return (covered_shifted(shift) * weights).sum()

    def covered_shifted(shift):
        ends = segments_of(STAR)
        return coverage(ends + shift.view(1, 2, 1, 1), torch.zeros(ends.shape[2:]), 1, 16)[0]

    shift = torch.tensor([0.3, -0.2], requires_grad=True)
    value(shift).backward()
    for axis in range(2):
        step = torch.zeros(2)
        step[axis] = 0.01
        with torch.no_grad():
            slope = (value(shift + step) - value(shift - step)) / 0.02
        assert shift.grad[axis] == pytest.approx(slope.item(), rel=0.02)


def test_a_shape_depends_on_seed_and_class_alone():
    first, degree = shapes.sample_vertices(3, 17)
    for other in range(5):
        shapes.sample_vertices(3, other)
    again, _ = shapes.sample_vertices(3, 17)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[:5], shapes.sample_vertices(4, 17)[0][:5])
    found = [shapes.sample_vertices(0, k) for k in range(400)]
    assert {len(vertices) for vertices, _ in found} == {5, 6, 7, 8}
    assert 0.4 < np.mean([degree == 3 for _, degree in found]) < 0.6
    assert {len(shapes.sample_vertices(0, k, (3, 3))[0]) for k in range(5)} == {3}


@pytest.mark.parametrize("degree", [1, 3])
def test_a_closed_spline_goes_through_its_vertices_and_is_smooth(degree):
    vertices, _ = shapes.sample_vertices(0, 5)
    curve = shapes.closed_spline(vertices, degree)
    assert curve.shape == (1000, 2) and np.allclose(curve[0], curve[-1])
    nearest = np.linalg.norm(curve[:, None] - vertices[None], axis=-1).min(0)
    assert nearest.max() < 0.01
    turn = np.diff(np.vstack([curve, curve[1:2]]), axis=0)
    turn /= np.linalg.norm(turn, axis=1, keepdims=True)
    sharpest = np.arccos((turn[1:] * turn[:-1]).sum(1).clip(-1, 1)).max()
    assert (sharpest < 0.25) == (degree == 3)


def test_the_cubic_is_that_of_scipy():
    interpolate = pytest.importorskip("scipy.interpolate")
    for k in range(10):
        vertices, _ = shapes.sample_vertices(1, k)
        for degree in (1, 3):
            spline = interpolate.splprep(np.vstack([vertices, vertices[:1]]).T, s=0, per=1, k=degree)[0]
            expected = np.array(interpolate.splev(np.linspace(0, 1, 1000), spline)).T
            np.testing.assert_allclose(shapes.closed_spline(vertices, degree), expected, atol=1e-11)


def test_an_outline_is_canonical():
    for k in range(20):
        points = shapes.outline(*shapes.sample_vertices(2, k))
        np.testing.assert_allclose(np.ptp(points, axis=0), 1)
        following = np.roll(points, -1, axis=0)
        cross = points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]
        np.testing.assert_allclose(((points + following) * cross[:, None]).sum(0), 0, atol=1e-12)


def test_segments_are_short_and_their_halves_make_up_the_outline():
    for k in range(20):
        ends, left = shapes.segments(2, k, (5, 8), 0.03)
        assert np.linalg.norm(ends[1] - ends[0], axis=0).max() <= 0.03 * (1 + 1e-5)
        assert ends[:, 0, :left].max() <= 0 <= ends[:, 0, left:].min()

        def area(part):
            return ((part[0, 0] * part[1, 1] - part[1, 0] * part[0, 1]).sum() / 2).item()

        points = shapes.outline(*shapes.sample_vertices(2, k))
        whole = area(np.stack([points.T, np.roll(points, -1, axis=0).T]))
        assert area(ends[:, :, :left]) + area(ends[:, :, left:]) == pytest.approx(whole, abs=0.003)


def test_random_numbers_are_even_and_depend_on_seed_purpose_id_and_column():
    drawn = uniform(0, 0, np.arange(2000), 5)
    assert drawn.min() >= 0 and drawn.max() < 1
    np.testing.assert_allclose(drawn.mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose(np.corrcoef(drawn.T) - np.eye(5), 0, atol=0.08)
    np.testing.assert_array_equal(uniform(0, 0, [7, 3], 9)[:, :5], drawn[[7, 3]])
    for other in (uniform(1, 0, np.arange(2000), 5), uniform(0, 1, np.arange(2000), 5)):
        assert not np.isin(other, drawn).any()


def test_matrices_of_factors_and_their_inverses():
    generator = torch.Generator().manual_seed(0)
    factors = torch.rand(50, 4, dtype=torch.float64, generator=generator) * torch.tensor([1, 2 * math.pi, 1, 1]) + 1e-3
    factors[:, 1] %= 2 * math.pi
    matrix = affine.factors_to_matrix(factors)
    torch.testing.assert_close(affine.invert(matrix) @ matrix, torch.eye(3, dtype=torch.float64).expand(50, 3, 3))
    torch.testing.assert_close(affine.invert(matrix), torch.linalg.inv(matrix))
    canonical = affine.factors_to_matrix(torch.tensor([1.0, 0.0, 0.5, 0.5]))
    assert torch.equal(canonical, torch.eye(3))


def test_normalising_by_whole_pixels_and_quarter_turns_is_exact():
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    turned = affine.normalize(image, affine.factors_to_matrix(torch.tensor([[1.0, math.pi / 2, 0.5, 0.5]])))
    torch.testing.assert_close(turned, image.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    moved = affine.normalize(image, affine.factors_to_matrix(torch.tensor([[1.0, 0.0, 0.5 + 2 * 3 / 16, 0.5]])))
    torch.testing.assert_close(moved[..., :13], image[..., 3:], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shapes.sample_vertices(0, 0, (5, 40)), r"vertices is \(5, 40\); give the fewest and the most, from 3 to 32"),
        (lambda: shapes.sample_vertices(0, 0, (8, 5)), r"vertices is \(8, 5\)"),
        (lambda: shapes.sample_vertices(0, -1), "shape -1 of seed 0 does not exist"),
        (lambda: shapes.closed_spline(np.zeros((40, 2)), 1), r"shape \(40, 2\)"),
        (lambda: shapes.closed_spline(np.zeros((5, 2)), 1), "two vertices in a row are equal"),
        (lambda: shapes.closed_spline(np.eye(3, 2), 2), "degree is 2"),
        (lambda: affine.invert(torch.zeros(2, 3)), "determinant 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(SleepkitError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
