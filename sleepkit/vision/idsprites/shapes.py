"""Shapes without end: shape k is a pure function of (seed, k).

    n ~ U{5..8} vertices   r_i ~ N(1, .4) clipped to [.1, 1.9]   a_i = 2 pi i / n + N(0, s / 2) clipped to +-s,   s = pi / n
    closed spline through (r_i cos a_i, r_i sin a_i), parametrised by chord length, cubic or linear with equal probability
    rotated until the first principal axis of 1,000 points on it is vertical, stretched to a unit square, centroid at 0

    vertices (n, 2) float64      outline (points, 2) float64, closed (the first point follows the last)
    segments (2 ends, 2 axes, count) float32: what the rasteriser takes

The distribution is that of "Infinite dSprites" (arXiv 2312.16731, appendix A) and its generator, the PyPI package `idsprites`
(MIT). Ours: the code; centroid and box are exact, where the generator measures them in pixels (reference.py does as it does);
random numbers depend on seed and k only.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from sleepkit.errors import SleepkitError

__all__ = [
    "MAX_VERTICES",
    "SPAN",
    "check_vertex_range",
    "closed_spline",
    "outline",
    "sample_vertices",
    "segments",
    "vertical_axis",
]

Array = npt.NDArray[np.float64]

SPAN = 0.45  # side of a shape at scale 1, as a share of the side of the image
MAX_VERTICES = 32
_POINTS = 1000  # on a spline


def check_vertex_range(vertices: tuple[int, int]) -> None:
    """Raise `SleepkitError` unless ``vertices`` is (fewest, most) with 3 <= fewest <= most <= `MAX_VERTICES`."""
    fewest, most = vertices
    if not 3 <= fewest <= most <= MAX_VERTICES:
        raise SleepkitError(f"vertices is ({fewest}, {most}); give the fewest and the most, from 3 to {MAX_VERTICES}")


def sample_vertices(seed: int, index: int, vertices: tuple[int, int] = (5, 8)) -> tuple[Array, int]:
    """Vertices ``(n, 2)`` of shape ``index`` in order of their angle, and the degree of its spline, 1 or 3.

    Raises `SleepkitError` for a negative seed or index and a bad range of the number of vertices.
    """
    check_vertex_range(vertices)
    if seed < 0 or index < 0:
        raise SleepkitError(f"shape {index} of seed {seed} does not exist; seeds and classes count from 0")
    random = np.random.default_rng((seed, index))
    n = int(random.integers(vertices[0], vertices[1] + 1))
    sector = math.pi / n - 1e-6  # so that two vertices never coincide
    radii = random.normal(1.0, 0.4, n).clip(0.1, 1.9)
    angles = random.normal(0.0, sector / 2, n).clip(-sector, sector) + np.arange(n) * (2 * math.pi / n)
    degree = 3 if random.random() < 0.5 else 1
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1), degree


def closed_spline(vertices: Array, degree: int) -> Array:
    """1,000 points on the closed interpolating spline, evenly spaced in its parameter; the first is the last again.

    The parameter is the chord length, so the cubic is the periodic one of FITPACK's and SciPy's `splprep(..., s=0, per=1)`.

    Args:
        vertices: ``(n, 2)``, from 3 to `MAX_VERTICES` points.
        degree: 1 (polygon) or 3 (twice continuously differentiable).
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    n = len(vertices)
    if vertices.shape != (n, 2) or not 3 <= n <= MAX_VERTICES:
        raise SleepkitError(f"vertices have shape {vertices.shape}; give (n, 2) with n from 3 to {MAX_VERTICES}")
    if degree not in (1, 3):
        raise SleepkitError(f"degree is {degree}; use 1 for a polygon or 3 for a smooth curve")
    closed = np.vstack([vertices, vertices[:1]])
    step = np.hypot(*np.diff(closed, axis=0).T)  # (n,)
    if not (step > 0).all():
        raise SleepkitError("two vertices in a row are equal or not finite; a closed spline needs distinct points")
    curvature = np.zeros_like(closed)  # second derivatives at the vertices
    if degree == 3:
        before, slope = np.roll(step, 1), np.diff(closed, axis=0) / step[:, None]
        system = np.diag(2 * (before + step))
        places = np.arange(n)
        system[places, places - 1] += before
        system[places, (places + 1) % n] += step
        curvature[:-1] = np.linalg.solve(system, 6 * (slope - np.roll(slope, 1, axis=0)))
        curvature[-1] = curvature[0]
    knots = np.concatenate([[0.0], step.cumsum()])
    knots /= knots[-1]
    u = np.linspace(0, 1, _POINTS)
    i = (np.searchsorted(knots, u, side="right") - 1).clip(0, n - 1)
    b = (u - knots[i]) / (knots[i + 1] - knots[i])
    a, h = 1 - b, step[i]
    bend = ((a**3 - a) * h**2 / 6)[:, None] * curvature[i] + ((b**3 - b) * h**2 / 6)[:, None] * curvature[i + 1]
    return a[:, None] * closed[i] + b[:, None] * closed[i + 1] + bend


def vertical_axis(points: Array) -> Array:
    """The rotation ``(2, 2)`` that turns the first principal axis of ``points`` (P, 2) to the direction -y."""
    axis = np.linalg.eigh(np.cov(points.T))[1][:, -1]
    axis = axis * np.sign(axis[np.abs(axis).argmax()])  # an axis has two directions: the one whose largest entry is positive
    angle = -(math.atan2(axis[1], axis[0]) + 0.5 * math.pi)
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def outline(vertices: Array, degree: int) -> Array:
    """The closed outline in canonical form: the vertices of a polygon, or 999 points on a smooth curve."""
    curve = closed_spline(vertices, degree)
    points = (curve[:-1] if degree == 3 else np.asarray(vertices)) @ vertical_axis(curve).T
    points = points / np.ptp(points, axis=0)
    following = np.roll(points, -1, axis=0)
    cross = points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]
    return points - ((points + following) * cross[:, None]).sum(0) / (3 * cross.sum())


@functools.lru_cache(maxsize=2**14)
def segments(seed: int, index: int, vertices: tuple[int, int], spacing: float) -> tuple[npt.NDArray[np.float32], int]:
    """The outline of shape ``index`` in line segments no longer than ``spacing``, ``(2 ends, 2 axes, count)``.

    First come those around its half with x < 0, whose number is returned too, then those around its half with x > 0. The
    last 16,384 shapes are kept.
    """
    found, degree = sample_vertices(seed, index, vertices)
    points = outline(found, degree)
    if degree == 3:
        points = _evenly(points, spacing)
    points = _cut_by_axis(points)
    # Where the outline leaves a half, the outline of that half goes on along the axis to the point where it comes back.
    left, right = (_segments(points[side], spacing) for side in (points[:, 0] <= 0, points[:, 0] >= 0))
    return np.concatenate([left, right], axis=-1), left.shape[-1]


def _evenly(points: Array, spacing: float) -> Array:
    """Return a closed curve by fewer points, with arcs of about ``spacing`` between them."""
    closed = np.vstack([points, points[:1]])
    arc = np.concatenate([[0.0], np.hypot(*np.diff(closed, axis=0).T).cumsum()])
    count = min(len(points), math.ceil(arc[-1] / spacing))
    places = np.arange(count) * (arc[-1] / count)
    return np.stack([np.interp(places, arc, column) for column in closed.T], axis=1)


def _cut_by_axis(points: Array) -> Array:
    """With a point wherever the closed outline crosses x = 0."""
    following = np.roll(points, -1, axis=0)
    i = np.flatnonzero(points[:, 0] * following[:, 0] < 0)
    a, b = points[i], following[i]
    y = a[:, 1] + (b[:, 1] - a[:, 1]) * a[:, 0] / (a[:, 0] - b[:, 0])
    return np.insert(points, i + 1, np.stack([np.zeros_like(y), y], axis=1), axis=0)


def _segments(points: Array, spacing: float) -> npt.NDArray[np.float32]:
    along = np.roll(points, -1, axis=0) - points
    parts = np.ceil(np.hypot(*along.T) / spacing).astype(np.int64).clip(1)
    which = np.repeat(np.arange(len(points)), parts)
    place = np.arange(len(which)) - np.repeat(parts.cumsum() - parts, parts)
    ends = [points[which] + along[which] * ((place + end) / parts[which])[:, None] for end in (0, 1)]
    return np.stack(ends).transpose(0, 2, 1).astype(np.float32)
