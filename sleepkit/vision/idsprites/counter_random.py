"""Random numbers that are a pure function of (seed, purpose, image, column), so that neither batch, worker nor rank matters.

    u[i, j] = mix(seed, purpose, ids[i], j) / 2^53   in [0, 1)

with the finaliser of SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) as the mix.
Not for cryptography.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["CHOICE", "CLUTTER", "DISTORTION", "FACTORS", "NOISE", "OCCLUDERS", "TEXTURE", "uniform"]

FACTORS, CHOICE, TEXTURE, NOISE, CLUTTER, OCCLUDERS, DISTORTION = range(7)  # purposes: equal seeds give each other numbers

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform(seed: int, purpose: int, ids: npt.ArrayLike, columns: int) -> npt.NDArray[np.float64]:
    """``(len(ids), columns)`` numbers in [0, 1); ``ids`` are whole numbers from 0."""
    start = _mix(np.array([seed], dtype=np.uint64) + _GOLDEN)
    start = _mix(start + np.array([purpose], dtype=np.uint64) * _GOLDEN)
    row = _mix(start + np.asarray(ids, dtype=np.uint64) * _GOLDEN)[:, None]
    bits = _mix(row + np.arange(1, columns + 1, dtype=np.uint64) * _GOLDEN)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
