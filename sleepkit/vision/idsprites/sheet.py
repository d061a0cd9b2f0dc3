"""A contact sheet: shapes in canonical form, then one of them with each factor and each harder variant changed in turn."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sleepkit.errors import SleepkitError
from sleepkit.utils.paths import existing
from sleepkit.vision.data.grids import named_rows
from sleepkit.vision.idsprites.factors import CANONICAL, FACTOR_NAMES, rgb
from sleepkit.vision.idsprites.renderer import SpriteRenderer

__all__ = ["contact_sheet", "save_contact_sheet"]

SUFFIXES = (".png", ".pdf", ".svg")
MOST_PIXELS = 2**23  # of a row
MOST_CLASSES = 2**40  # from which on shapes are nobody's class

_COLORS = ("white", "gold", "tomato", "orchid", "cornflowerblue", "turquoise", "yellowgreen", "peru")


def contact_sheet(renderer: SpriteRenderer, columns: int = 8, first_class: int = 0) -> Figure:
    """Two rows of shapes from ``first_class`` on, then a row for each factor and for each harder variant."""
    if columns < 2 or columns * renderer.image_size**2 > MOST_PIXELS:
        most = max(2, MOST_PIXELS // renderer.image_size**2)
        raise SleepkitError(
            f"columns is {columns}; give 2 to {most}, which images of {renderer.image_size} pixels leave room for"
        )
    if not 0 <= first_class <= MOST_CLASSES - 2 * columns:
        raise SleepkitError(f"first_class is {first_class}; give a number from 0 to 2**40, less two rows")
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
    return named_rows(rows)


def save_contact_sheet(renderer: SpriteRenderer, path: str | Path, columns: int = 8, first_class: int = 0) -> None:
    """Write the sheet as .png, .pdf or .svg; raises `SleepkitError` if it cannot be written."""
    existing(path, "output")  # what no file system takes
    target = Path(path).expanduser()
    remedy = "give an existing folder and a name that ends in .png, .pdf or .svg"
    if target.suffix.lower() not in SUFFIXES:
        raise SleepkitError(f"cannot write {path}: {target.suffix or 'no ending'} is unknown; {remedy}")
    if target.is_dir() or not target.parent.is_dir():
        why = "it is a folder" if target.is_dir() else f"there is no folder {target.parent}"
        raise SleepkitError(f"cannot write {path}: {why}; {remedy}")
    figure = contact_sheet(renderer, columns, first_class)
    draft = target.with_name(f".{target.stem}.draft{target.suffix}")
    try:
        figure.savefig(draft)
        draft.replace(target)
    except OSError as error:
        raise SleepkitError(f"cannot write {path}: {error.strerror}; {remedy}") from None
    finally:
        draft.unlink(missing_ok=True)
