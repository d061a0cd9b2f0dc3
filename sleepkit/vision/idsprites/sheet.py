"""A contact sheet: shapes in canonical form, then one of them with each factor and each harder variant changed in turn.

Each row is a strip of images with the name of what changes.  A matplotlib `Figure`; no pyplot, so no window and no global state.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sleepkit.errors import SleepkitError
from sleepkit.vision.idsprites.factors import CANONICAL, FACTOR_NAMES, rgb
from sleepkit.vision.idsprites.renderer import SpriteRenderer

__all__ = ["contact_sheet", "save_contact_sheet"]

_COLORS = ("white", "gold", "tomato", "orchid", "cornflowerblue", "turquoise", "yellowgreen", "peru")


def contact_sheet(renderer: SpriteRenderer, columns: int = 8, first_class: int = 0) -> Figure:
    """Two rows of shapes from ``first_class`` on, then a row for each factor and for each harder variant."""
    if columns < 2:
        raise SleepkitError(f"columns is {columns}; give at least 2")
    steps = torch.linspace(0, 1, columns, dtype=torch.float64)
    still = torch.tensor(CANONICAL, dtype=torch.float64).repeat(columns, 1)
    ranges = {"scale": (0.3, 1.0), "orientation": (0.0, 2 * math.pi * columns / (columns + 1))}
    white = torch.tensor(rgb("white"), dtype=torch.float64).expand(columns, 3)
    palette = torch.tensor([rgb(_COLORS[i % len(_COLORS)]) for i in range(columns)], dtype=torch.float64)
    same, ids = torch.full((columns,), first_class), torch.arange(columns)
    rows: dict[str, Tensor] = {
        "shapes": renderer(same + ids, still, white, ids),
        "": renderer(same + columns + ids, still, white, ids),
    }
    for place, name in enumerate(FACTOR_NAMES):
        low, high = ranges.get(name, (0.0, 1.0))
        factors = still.clone()
        factors[:, 0] = 0.7
        factors[:, place] = low + steps * (high - low)
        rows[name.replace("_", " ")] = renderer(same, factors, white, ids)
    rows["color"] = renderer(same, still, palette, ids)
    harder: dict[str, dict[str, Any]] = {
        "no marker": {"marker": False},
        "texture": {"texture": 1.0},
        "noise": {"noise": 0.1},
        "clutter": {"clutter": 4},
        "occluders": {"occluders": 2},
    }
    for name, change in harder.items():
        rows[name] = replace(renderer, **change)(same + ids, still, palette, ids)
    figure = Figure(figsize=(1.2 + 0.8 * columns, 0.8 * len(rows)), dpi=150)
    for number, (name, images) in enumerate(rows.items()):
        axes = figure.add_axes(
            (1.15 / (1.2 + 0.8 * columns), 1 - (number + 1) / len(rows), 0.8 * columns / (1.2 + 0.8 * columns), 0.96 / len(rows))
        )
        strip = torch.cat(list(images), dim=-1).permute(1, 2, 0).expand(-1, -1, 3).detach().cpu().numpy()
        axes.imshow(strip, aspect="auto", interpolation="nearest")
        axes.set_axis_off()
        axes.text(-0.01, 0.5, name, transform=axes.transAxes, ha="right", va="center", fontsize=9)
    return figure


def save_contact_sheet(renderer: SpriteRenderer, path: str | Path, columns: int = 8, first_class: int = 0) -> None:
    """Write the sheet as .png, .pdf or .svg; raises `SleepkitError` if it cannot be written."""
    try:
        contact_sheet(renderer, columns, first_class).savefig(path)
    except (OSError, ValueError) as error:
        if isinstance(error, SleepkitError):
            raise
        raise SleepkitError(
            f"cannot write {path}: {error}; give an existing folder and a name that ends in .png, .pdf or .svg"
        ) from error
