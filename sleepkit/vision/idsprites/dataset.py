"""Data sets of sprites that store no image: image i is drawn when it is asked for, always the same.

    image i of a data set:  class i // n, place i % n        n = len(factors): images of each class

`SpritesDataset` is map-style: an index gives ``{"pixel_values": (C, S, S) float32, "labels": int64, "factors": (4,) float32}``,
as transformers' Trainer and torch's DataLoader take it.  It also has the `labels` and `pixels` of an image set of a stream.

`SpritesLoader` is iterable and without end: it draws whole batches of random images, for ``DataLoader(loader,
batch_size=None)``.  Step k of rank r of R gives batch k R + r, whatever the number of workers, so runs on any number of workers
see the same images in the same order, and any number of ranks together see the same sequence of batches.

`to_iterable` gives the rows in order as a `datasets.IterableDataset`, which ranks and workers share among them by shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from sleepkit.errors import SleepkitError
from sleepkit.vision.data.image_data import as_bytes
from sleepkit.vision.idsprites.base_renderer import BaseRenderer
from sleepkit.vision.idsprites.counter_random import CHOICE, uniform
from sleepkit.vision.idsprites.factors import FactorGrid, FactorRanges

if TYPE_CHECKING:
    import datasets

__all__ = ["SpritesDataset", "SpritesLoader", "to_iterable"]


class SpritesDataset(Dataset):
    """All images of some classes, or those at given rows.

    Args:
        classes: which shapes; a shape's number is its label. A `range` of any length takes no memory.
        factors: of each class.
        renderer: draws the images.
        rows: ``(n,)`` int64, which of the ``len(classes) * len(factors)`` images; None is all.

    Raises:
        SleepkitError: no classes, a negative one, or scales beyond the renderer's `max_scale`.
    """

    def __init__(
        self, classes: Sequence[int], factors: FactorGrid | FactorRanges, renderer: BaseRenderer, rows: Tensor | None = None
    ) -> None:
        if len(classes) == 0 or min(classes[0], classes[-1]) < 0:
            raise SleepkitError(f"classes is {classes!r:.60}; give at least one, counting from 0")
        if factors.max_scale > renderer.max_scale:
            raise SleepkitError(f"factors reach scale {factors.max_scale:g}; give the renderer a max_scale at least as large")
        self.classes, self.factors, self.renderer, self.rows = classes, factors, renderer, rows

    def __len__(self) -> int:
        return len(self.classes) * len(self.factors) if self.rows is None else len(self.rows)

    @property
    def labels(self) -> Tensor:
        """Labels of all images, ``(n,)`` int64."""
        return self._at(torch.arange(len(self)))[0]

    def pixels(self, places: Tensor | None = None) -> Tensor:
        """``(n, C, S, S)`` uint8, of all images or of those at ``places``."""
        return as_bytes(self.batch(places)["pixel_values"])

    def batch(self, places: Tensor | None = None) -> dict[str, Tensor]:
        """All images, or those at ``places``, together, which is much faster than one by one."""
        classes, rows = self._at(torch.arange(len(self)) if places is None else places)
        factors, colors = self.factors.at(classes, rows)
        images = self.renderer(classes, factors, colors, classes * len(self.factors) + rows)
        return {"pixel_values": images, "labels": classes, "factors": factors.float()}

    def select(self, places: Tensor) -> SpritesDataset:
        """Return the data set of the images at ``places``."""
        rows = places if self.rows is None else self.rows[places]
        return SpritesDataset(self.classes, self.factors, self.renderer, rows)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: list[int]) -> list[dict[str, Tensor]]:  # how a DataLoader asks for a batch
        columns = self.batch(torch.tensor(places))
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Classes, and places within each class, of images."""
        if len(places) and not (places.min() >= -len(self) and places.max() < len(self)):
            raise IndexError(f"places run from {places.min()} to {places.max()} in a data set of {len(self)} images")
        rows = places.remainder(len(self)) if self.rows is None else self.rows[places]
        which = rows // len(self.factors)
        if isinstance(self.classes, range):
            classes = self.classes.start + which * self.classes.step
        else:
            classes = torch.tensor(self.classes)[which]
        return classes, rows % len(self.factors)


class SpritesLoader(IterableDataset):
    """Random batches of a data set, with replacement and without end: ``{"pixel_values", "labels", "factors"}``, batched.

    Args:
        dataset: where images are drawn from; over ``range(10**9)`` classes, hardly any class comes twice.
        batch_size: images of a batch.
        seed: of the choice of images.
        rank, world_size: of this process; None of it is guessed.
        start, steps: the first step and the number of steps, None without end. To resume after k steps, give ``start=k``.
    """

    def __init__(
        self,
        dataset: SpritesDataset,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        steps: int | None = None,
    ) -> None:
        if batch_size < 1 or seed < 0 or start < 0 or not (steps is None or steps > 0):
            raise SleepkitError(
                f"batch_size {batch_size}, seed {seed}, start {start}, steps {steps}; give sizes above 0, the rest from 0"
            )
        if not 0 <= rank < world_size:
            raise SleepkitError(f"rank is {rank} of {world_size}; ranks count from 0")
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.rank, self.world_size, self.start, self.steps = rank, world_size, start, steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        first, apart = (worker.id, worker.num_workers) if worker else (0, 1)
        step = self.start + first
        while self.steps is None or step < self.start + self.steps:
            number = step * self.world_size + self.rank
            ids = torch.arange(number * self.batch_size, (number + 1) * self.batch_size)
            drawn = torch.from_numpy(uniform(self.seed, CHOICE, ids.numpy(), 1)[:, 0])
            yield self.dataset.batch((drawn * len(self.dataset)).long())
            step += apart


def to_iterable(dataset: SpritesDataset, shards: int = 64) -> datasets.IterableDataset:
    """The rows of a data set in order, as numpy arrays or whatever `with_format` says.

    Args:
        shards: how many parts ranks (`datasets.distributed.split_dataset_by_node`) and workers can share.
    """
    import datasets

    bounds = torch.linspace(0, len(dataset), min(shards, len(dataset)) + 1, dtype=torch.float64).long().tolist()
    parts = list(zip(bounds, bounds[1:], strict=False))
    return datasets.IterableDataset.from_generator(_rows, gen_kwargs={"dataset": dataset, "parts": parts})


def _rows(dataset: SpritesDataset, parts: list[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    for start, stop in parts:
        for places in torch.arange(start, stop).split(64):
            columns = {name: column.cpu().numpy() for name, column in dataset.batch(places).items()}
            for row in zip(*columns.values(), strict=True):
                yield dict(zip(columns, row, strict=True))
