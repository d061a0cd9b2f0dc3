"""Exemplars: one small picture of each class, and the class whose picture an image can be laid upon.

    w = B view(image, Theta)                         what is seen through a pose, blurred and halved      (pixels,)
    e = B exemplar,   J = B d exemplar / d pose      an exemplar, and how it changes with the pose        (pixels, 4 or 6)

    nearest    d^2 = |w - e|^2
    tangent    d^2 = min over delta of |w - e - J delta|^2 = |w - e|^2 - |Q^T (w - e)|^2,        Q = J C orthonormal
    align      delta = C Q^T (w - e),   Theta <- Theta M(delta)^-1,   again: |w - e|^2 of the best candidates

`nearest` is the search of "Infinite dSprites" (arXiv 2312.16731, section 4).  `tangent` forgives what is left of a pose error, to
first order: the one-sided tangent distance of Simard, LeCun & Denker (NIPS 1992), for all exemplars at once in one matrix product
of 5 (7) rows each.  `align` is the inverse compositional algorithm (Baker & Matthews, IJCV 2004) from there.  Their use
here, and the blur (binomial, standard deviation of 1.4 pixels), which makes both hold for larger errors, are ours.

Search is exact.

Kept: pictures (uint8), labels; all else is computed from them.  Saved as safetensors and JSON with a checksum.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from sleepkit.errors import SleepkitError, first_line
from sleepkit.utils.files import read_json, replacing, write_json
from sleepkit.vision.data.image_data import as_bytes
from sleepkit.vision.disentangled.canonicalizer import OUTPUTS, to_matrix
from sleepkit.vision.idsprites.affine import invert, normalize, rotations

__all__ = ["MATCHES", "Exemplars", "Match"]

MATCHES = ("nearest", "aligned")
EXTENT = 0.6875  # no shape reaches beyond, in canonical form
TENSORS, ABOUT = "exemplars.safetensors", "exemplars.json"
_CHUNK = 2**24  # numbers of one block of the search
_DAMPING = 1e-4  # of J^T J, relative: an exemplar without edges has no tangents


class Match(NamedTuple):
    """The nearest classes of N images, nearest first.

    labels ``(N, k)`` int64, -1 where there are fewer classes; distances ``(N, k)`` squared, per pixel; matrix ``(N, 3, 3)`` of
    the nearest.
    """

    labels: Tensor
    distances: Tensor
    matrix: Tensor


class Exemplars:
    """Exemplars: one small picture of each class, and the search for the class that an image matches best.

    Args:
        image_size, channels: of images.
        output: what poses can be, one of `canonicalizer.OUTPUTS`.
        size: height and width of a picture, pixels; even. The blur is in these pixels, so it does not depend on ``image_size``.
        background: of images, from 0 to 1: what is taken to lie beyond them.
    """

    def __init__(
        self, image_size: int, channels: int, output: str = "similarity4", size: int = 44, background: float = 0.66
    ) -> None:
        if size < 8 or size % 2:
            raise SleepkitError(f"exemplars of {size} pixels cannot be halved or are too small; give an even size of at least 8")
        self.image_size, self.channels, self.output, self.size = image_size, channels, output, size
        self.background = background
        self.pictures = torch.empty(0, channels, self.size, self.size, dtype=torch.uint8)
        self.labels = torch.empty(0, dtype=torch.int64)
        self._points = self._orthonormal = self._to_delta = torch.empty(0)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def bytes(self) -> int:
        """Number of bytes needed to store the pictures and their labels."""
        return self.pictures.numel() + 8 * len(self)

    # -- pictures ---------------------------------------------------------------------------------------------------
    def view(self, images: Tensor, matrix: Tensor) -> Tensor:
        """Cut images ``(N, C, S, S)`` from 0 to 1 to the window of the canonical frame that is compared, ``(N, C, P, P)``."""
        return normalize(images, matrix, self.size, EXTENT, self.background)

    def add(self, views: Tensor, labels: Tensor) -> None:
        """Keep views ``(n, C, P, P)`` of classes ``labels`` (n,)."""
        self.set(
            torch.cat([self.pictures, as_bytes(views).cpu()]),
            torch.cat([self.labels, labels.cpu()]),
        )

    def set(self, pictures: Tensor, labels: Tensor) -> None:
        """Take over pictures ``(n, C, P, P)`` uint8 and labels ``(n,)`` in place of what is there."""
        known = len(self._points) if torch.equal(pictures[: len(self)], self.pictures) else 0
        self.pictures, self.labels = pictures, labels
        parts = [(self._points[:known], self._orthonormal[:known], self._to_delta[:known])] if known else []
        parts += [self._templates(part) for part in pictures[known:].split(1024)]
        if parts:
            self._points, self._orthonormal, self._to_delta = (torch.cat(part) for part in zip(*parts, strict=True))

    def without_classes(self) -> Exemplars:
        """An empty one of the same form."""
        return Exemplars(self.image_size, self.channels, self.output, self.size, self.background)

    def copy(self) -> Exemplars:
        """Another one with the same content."""
        other = self.without_classes()
        other.set(self.pictures, self.labels)
        return other

    def warped(self, places: Tensor, matrix: Tensor) -> Tensor:
        """Exemplars as they look in poses ``matrix`` (N, 3, 3): images ``(N, C, S, S)``, edges continued."""
        to_picture = invert(matrix)
        to_picture[:, :2] /= EXTENT
        return normalize(self.pictures[places].to(matrix.device) / 255, to_picture, self.image_size)

    def _templates(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """e ``(n, pixels)``, Q ``(n, pixels, 4 or 6)`` and C ``(n, 4 or 6, 4 or 6)``."""
        images = pictures / 255
        step = 2 * EXTENT / self.size
        dy, dx = torch.gradient(images, spacing=step, dim=(2, 3))
        axis = (torch.arange(self.size) + 0.5) * step - EXTENT
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        if self.output == "similarity4":
            change = [dx * x + dy * y, dy * x - dx * y, dx, dy]
        else:
            change = [dx * x, dx * y, dx, dy * x, dy * y, dy]
        tangents = torch.stack([_blurred(one) for one in change], dim=-1)  # (n, pixels, 4 or 6)
        gram = tangents.transpose(1, 2) @ tangents
        size = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        gram = gram + (_DAMPING * size + 1e-9) * torch.eye(OUTPUTS[self.output])
        to_delta = torch.linalg.inv(torch.linalg.cholesky(gram)).transpose(1, 2)
        return _blurred(images), tangents @ to_delta, to_delta

    # -- search -----------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def classify(
        self, images: Tensor, matrix: Tensor, match: str = "aligned", candidates: int = 5, steps: int = 2, turns: int = 1
    ) -> Match:
        """The nearest ``candidates`` classes (2 at least) of images ``(N, C, S, S)`` from 0 to 1 in poses ``matrix`` (N, 3, 3).

        Args:
            match: "nearest", or "aligned": the candidates of the tangent distance, each aligned in ``steps`` steps.
            turns: so many orientations are tried, evenly apart, the first that of ``matrix``; that of the nearest exemplar is
                taken.

        Raises:
            SleepkitError: nothing is kept.
        """
        if not len(self):
            raise SleepkitError("there are no exemplars; add exemplars first")
        if turns > 1:
            matrix = self._turned(images, matrix, turns, match == "aligned")
        seen = self.described(images, matrix)
        most = int(self.labels.unique(return_counts=True)[1].max())  # so many exemplars may be of one class
        distances, places = self.search(seen, min(len(self), candidates * most), tangent=match == "aligned")
        distances, places = self._nearest_of_classes(distances, places, candidates)
        matrices = matrix[:, None].expand(-1, places.shape[1], 3, 3)
        if match == "aligned":
            aligned, matrices = self._align(images, matrices, places, seen, steps)
            distances = aligned.masked_fill(distances.isinf(), float("inf"))
        distances, order = distances.sort(dim=1, stable=True)
        labels = self.labels[places.gather(1, order)].masked_fill(distances.isinf(), -1)
        return Match(labels, distances / seen.shape[1], matrices[torch.arange(len(images)), order[:, 0]])

    def search(self, seen: Tensor, count: int, tangent: bool = True, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Squared distances and places of the nearest exemplars, ``(N, count)`` each, nearest first.

        Args:
            seen: ``(N, pixels)``, from `described`.
            among: ``(m,)`` places of the exemplars to be searched; None is all.
        """
        points, bases = self._points, self._orthonormal
        if among is not None:
            points, bases = points[among], bases[among]
        rows = bases.transpose(1, 2).flatten(0, 1)  # (m x 4 or 6, pixels)
        own, own_rows = points.square().sum(1), (bases * points[..., None]).sum(1)
        found = []
        for part in seen.split(max(1, _CHUNK // len(rows))):
            distance = part.square().sum(1, keepdim=True) + own - 2 * part @ points.T
            if tangent:
                along = (part @ rows.T).unflatten(1, own_rows.shape) - own_rows
                distance = distance - along.square().sum(2)
            found.append(distance.clamp(min=0).topk(count, largest=False))
        values, places = (torch.cat(part) for part in zip(*found, strict=True))
        return values, places if among is None else among[places]

    def _turned(self, images: Tensor, matrix: Tensor, turns: int, tangent: bool) -> Tensor:
        """Poses in the orientation, of so many, whose nearest exemplar is nearest."""
        poses = [matrix @ rotations(matrix.new_full((1,), 2 * math.pi * turn / turns)) for turn in range(turns)]
        distances = [self.search(self.described(images, one), 1, tangent)[0] for one in poses]
        best = torch.cat(distances, dim=1).argmin(1)
        return torch.stack(poses, dim=1)[torch.arange(len(best)), best]

    def _nearest_of_classes(self, distances: Tensor, places: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Of exemplars ``(N, k)``, sorted by distance, the nearest of each class, at most ``count``; others are at infinity."""
        labels = self.labels[places]
        again = (labels[:, :, None] == labels[:, None]).tril(-1).any(2)
        distances, first = distances.masked_fill(again, float("inf")).sort(dim=1, stable=True)
        return distances[:, :count], places.gather(1, first)[:, :count]

    def described(self, images: Tensor, matrix: Tensor) -> Tensor:
        """Return images in poses ``matrix`` as `search` takes them, ``(N, pixels)``."""
        return _blurred(self.view(images, matrix))

    def _align(self, images: Tensor, matrices: Tensor, places: Tensor, seen: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Squared distances ``(N, k)`` and matrices ``(N, k, 3, 3)`` after so many steps to each candidate."""
        k = places.shape[1]
        flat = places.flatten()
        points, bases, to_delta = self._points[flat], self._orthonormal[flat], self._to_delta[flat]
        copies, poses = images.repeat_interleave(k, dim=0), matrices.flatten(0, 1)
        rest = seen.repeat_interleave(k, dim=0) - points
        best, best_poses = rest.square().sum(1), poses
        for _ in range(steps):
            delta = to_delta @ (bases.transpose(1, 2) @ rest[..., None])
            poses = poses @ invert(to_matrix(delta[..., 0].clamp(-0.3, 0.3)))
            rest = self.described(copies, poses) - points
            distance = rest.square().sum(1)
            better = distance < best
            best = torch.where(better, distance, best)
            best_poses = torch.where(better[:, None, None], poses, best_poses)
        return best.unflatten(0, (-1, k)), best_poses.unflatten(0, (-1, k))

    # -- keeping ----------------------------------------------------------------------------------------------------
    def save(self, folder: Path) -> None:
        """Write pictures and labels, and what they must hash to."""
        with replacing(folder / TENSORS) as draft:
            save_file({"pictures": self.pictures, "labels": self.labels}, draft)
        form = {
            "image_size": self.image_size,
            "channels": self.channels,
            "output": self.output,
            "size": self.size,
            "background": self.background,
        }
        write_json(folder / ABOUT, {**form, "exemplars": len(self), "sha256": _checksum(folder / TENSORS)})

    @classmethod
    def load(cls, folder: Path) -> Exemplars:
        """Read the exemplars that a folder holds.  Raises `SleepkitError` if it is not what was saved."""
        path = folder / TENSORS
        try:
            about = read_json(folder / ABOUT)
            if _checksum(path) != about["sha256"]:
                raise ValueError("its checksum is not the one that was saved with it")
            found = load_file(path)
            exemplars = cls(about["image_size"], about["channels"], about["output"], about["size"], about["background"])
            exemplars.set(found["pictures"], found["labels"])
        except Exception as error:  # a missing file or field, or safetensors' own
            reason = first_line(error)
            raise SleepkitError(f"exemplars in {path} are damaged ({reason}); restore them, or start anew") from None
        return exemplars


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _blurred(views: Tensor) -> Tensor:
    """Views ``(N, C, P, P)``, blurred and at half their size, as vectors ``(N, C P P / 4)``."""
    row = views.new_tensor([1, 9, 36, 84, 126, 126, 84, 36, 9, 1]) / 512  # binomial of order 8, then the mean of two pixels
    kernel = torch.outer(row, row)
    channels = views.shape[1]
    padded = F.pad(views, (4, 4, 4, 4), mode="replicate")
    return F.conv2d(padded, kernel.expand(channels, 1, -1, -1), stride=2, groups=channels).flatten(1)
