"""Pictures of a disentangled run: accuracy over nights, and images beside their canonical form and their exemplar."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
from matplotlib.figure import Figure

from sleepkit.vision.data.grids import named_rows
from sleepkit.vision.disentangled.learner import DisentangledLearner
from sleepkit.vision.idsprites.stream import SpritesStream

__all__ = ["accuracy_curve", "straightened_grid"]


def accuracy_curve(matrix: Sequence[Sequence[float | None]]) -> Figure:
    """After each night in which all were tested: mean, and lowest, accuracy of the experiences met; and that of the first one."""
    rows = {night: [value for value in row if value is not None] for night, row in enumerate(matrix, 1)}
    rows = {night: row for night, row in rows.items() if len(row) == night}
    figure = Figure(figsize=(7.2, 3.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    curves: dict[str, Callable[[list[float]], float]] = {
        "all classes met": statistics.fmean,
        "worst experience": min,
        "first experience": lambda row: row[0],
    }
    for (name, value), style in zip(curves.items(), ("-", ":", "--"), strict=True):
        axes.plot(list(rows), [value(row) for row in rows.values()], style, label=name, linewidth=2)
    axes.set(title="Accuracy among all classes met", xlabel="after night", ylabel="accuracy", ylim=(-0.03, 1.03))
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    return figure


def straightened_grid(learner: DisentangledLearner, stream: SpritesStream, columns: int = 12) -> Figure:
    """Test images of classes all over the stream, as they are straightened and aligned, and the nearest exemplar."""
    test = stream.accumulated_test(len(stream) - 1)
    places = torch.linspace(0, len(test) - 1, columns).round().long()
    batch = test.batch(places)
    images = batch["pixel_values"]
    matrix = learner.poses(images)
    match = learner.match(images, matrix)
    exemplars = learner.exemplars
    chosen = (exemplars.labels == match.labels[:, :1]).int().argmax(1)
    rows = {
        "image": images,
        "straightened": exemplars.view(images, matrix),
        "aligned": exemplars.view(images, match.matrix),
        "exemplar": exemplars.pictures[chosen] / 255,
    }
    wrong = match.labels[:, 0] != batch["labels"]
    return named_rows(rows, {("exemplar", place) for place in wrong.nonzero().flatten().tolist()})
