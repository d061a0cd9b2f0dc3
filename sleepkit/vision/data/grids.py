"""Pictures of many images: plain grids of pixels as PNG files, and rows with names as matplotlib figures.

No pyplot, so no window and no global state.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from sleepkit.utils.files import replacing

__all__ = ["named_rows", "save_grid"]

SIDE, MARGIN = 0.8, 1.15  # inches: an image, and the names beside a row


def save_grid(rows: Sequence[Tensor], path: Path) -> None:
    """Write a PNG with a row for each of ``rows``, uint8 images ``(n, channels, height, width)``, at twice their size."""
    from PIL import Image

    channels, height, width = rows[0].shape[1:]
    columns = max(map(len, rows))
    grid = torch.zeros(channels, len(rows) * (height + 1) + 1, columns * (width + 1) + 1, dtype=torch.uint8)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            top, left = row * (height + 1) + 1, column * (width + 1) + 1
            grid[:, top : top + height, left : left + width] = picture
    pixels = grid.permute(1, 2, 0).numpy()
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels))
    with replacing(path) as draft:
        image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(draft, format="PNG")


def named_rows(rows: Mapping[str, Tensor], framed: Collection[tuple[str, int]] = ()) -> Figure:
    """Draw rows of images with their names.

    Args:
        rows: name -> images ``(n, channels, size, size)`` from 0 to 1; all rows have as many.
        framed: name of a row and number of an image in it, from 0, for each image that gets a red frame.
    """
    columns = max(map(len, rows.values()))
    width = MARGIN + SIDE * columns + 0.05
    figure = Figure(figsize=(width, SIDE * len(rows)), dpi=150)
    for number, (name, images) in enumerate(rows.items()):
        axes = figure.add_axes((MARGIN / width, 1 - (number + 1) / len(rows), SIDE * columns / width, 0.96 / len(rows)))
        strip = torch.cat(list(images), dim=-1).permute(1, 2, 0).expand(-1, -1, 3).detach().cpu().numpy()
        axes.imshow(strip, aspect="auto", interpolation="nearest", vmin=0, vmax=1)
        axes.set_axis_off()
        axes.text(-0.01, 0.5, name, transform=axes.transAxes, ha="right", va="center", fontsize=9)
        size = images.shape[-1]
        for column in (column for row, column in framed if row == name):
            axes.add_patch(Rectangle((column * size, 0), size - 1, size - 1, fill=False, edgecolor="tab:red", linewidth=3))
    return figure
