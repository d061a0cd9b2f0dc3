"""The pictures of a run, drawn from the content of `results.json` (see results.py for its fields).

- accuracy matrix: score on experience j (column) after night i (row), each value in its cell;
- retention: one line per experience from the night that taught it on, and their mean;
- training: losses and rewards over the optimizer steps of all nights;
- before and after: scores without the documents, with them in context as the ceiling, and on general probes;
and of an experiment of several methods and seeds:
- the first experience, and the mean of those met so far: the score after each night, a line for each method;
and of dreams:
- stops: how many prompts had how many updates, those of the first night (without an oracle) apart.

Each function returns a matplotlib `Figure`, or None where the run has no data for it. Colours are told apart by
colour-blind readers (Okabe and Ito 2008; single-hue and viridis maps). No pyplot, so no window and no global state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sleepkit.errors import SleepkitError
from sleepkit.reporting.metrics import accuracy_of_nights, mean_interval

__all__ = [
    "accuracy_matrix_figure",
    "before_after_figure",
    "experiences_met_figure",
    "first_experience_figure",
    "retention_figure",
    "stops_figure",
    "training_figure",
]

Matrices = Mapping[str, Sequence[Sequence[Sequence[float | None]]]]

_BLUE, _ORANGE, _GREEN, _RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
_PINK, _SKY, _GREY, _INK = "#CC79A7", "#56B4E9", "#9A9A9A", "#222222"
_CURVES = (_BLUE, _RED, _GREEN, _PINK, _ORANGE, _SKY, _GREY, _INK)
_LINES = ("-", "--", ":")
_SCORES = {
    "gold answer contained": ("closed_book_before", "closed_book_after", "in_context"),
    "own questions,\nkept back": ("self_test_before", "self_test_after"),
    "token F1": ("closed_book_before_f1", "closed_book_after_f1", "in_context_f1"),
    "general probes": ("anchor_accuracy_before", "anchor_accuracy_after"),
}  # group of bars -> names of its metrics, in the order of _BARS
_BARS = (("before sleep", _GREY), ("after sleep", _BLUE), ("documents in context", _ORANGE))
_BAR_TICKS = 12  # numbers that fit beside a colour bar
_MAX_CELLS = 30  # rows or columns beyond which the cells of the matrix are too small for their values


_LOOK = matplotlib.rc_context(
    {
        "font.size": 10,
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.edgecolor": _GREY,
        "axes.labelcolor": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": "#E6E6E6",
        "grid.linewidth": 0.8,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "legend.frameon": False,
    }
)  # a decorator: the look holds inside the function only


@_LOOK
def stops_figure(first: Sequence[int], later: Sequence[int], most: int) -> Figure | None:
    """Histogram of the updates after which prompts of first and of later nights stopped; ``most`` is the limit."""
    if not first and not later:
        return None
    figure, (axes,) = _axes(6, 3)
    bins = [edge - 0.5 for edge in range(most + 2)]
    labels = ["first night: the best of all updates", "later: stopped by the oracle"]
    axes.hist([list(first), list(later)], bins=bins, stacked=True, color=[_GREY, _BLUE], label=labels)
    axes.set(xlabel="updates of a prompt", ylabel="prompts", title="When dreams stop")
    axes.legend()
    return figure


@_LOOK
def rewards_figure(rewards: Mapping[str, Mapping[int, Sequence[float]]]) -> Figure | None:
    """Share of dreams with positive reward after each round, and their rewards as dots: of own and of held-out passages.

    Args:
        rewards: of the dreams that were tried, by kind of passage and round.
    """
    if not any(found for rounds in rewards.values() for found in rounds.values()):
        return None
    figure, (above, below) = _axes(6, 5, 2)
    for colour, shift, (kind, rounds) in zip(_CURVES, (-0.06, 0.06), rewards.items(), strict=False):
        tried = {number: found for number, found in rounds.items() if found}
        shares = [sum(one > 0 for one in found) / len(found) for found in tried.values()]
        above.plot(list(tried), shares, color=colour, linewidth=2, marker="o", markersize=5, label=kind)
        for number, found in tried.items():
            below.plot([number + shift] * len(found), found, "o", color=colour, markersize=3, alpha=0.5)
    above.set(title="Dreams that help", ylabel="share", ylim=(-0.03, 1.03))
    below.axhline(0, color=_GREY, linewidth=1)
    below.set(xlabel="round", ylabel="reward, nats a token", xticks=sorted({n for rounds in rewards.values() for n in rounds}))
    above.legend()
    return figure


def _axes(width: float, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches with `panels` axes below each other, which share their x."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.subplots(panels, 1, squeeze=False, sharex=True)
    return figure, list(axes[:, 0])


def _as_array(matrix: Sequence[Sequence[float | None]]) -> np.ndarray:
    """(nights, experiences) float array with NaN for null."""
    if len({len(row) for row in matrix}) > 1:
        lengths = [len(row) for row in matrix]
        raise SleepkitError(f"accuracy_matrix has rows of lengths {lengths}; fill what was not measured with null")
    return np.array([[np.nan if cell is None else cell for cell in row] for row in matrix], dtype=float)


def _number_ticks(count: int, most: int = _MAX_CELLS) -> list[int]:
    """At most ``most`` evenly spaced positions among 0..count-1; half as many, where they have three digits."""
    return list(range(0, count, -(-count // (most if count < 100 else most // 2))))


@_LOOK
def accuracy_matrix_figure(results: Mapping[str, Any], title: str = "Accuracy matrix") -> Figure | None:
    """Heat map of the accuracy matrix; beyond 30 rows or columns the cells carry no values."""
    scores = _as_array(results.get("accuracy_matrix") or [])
    if np.isfinite(scores).sum() < 2:
        return None
    nights, experiences = scores.shape
    cell = 0.62 if max(scores.shape) <= 12 else 0.46 if max(scores.shape) <= _MAX_CELLS else 0.12
    figure, (axes,) = _axes(max(4.2, cell * experiences + 2.2), max(2.6, cell * nights + 1.5))
    axes.grid(False)
    axes.set_facecolor("#F3F3F3")  # what was not measured
    picture = axes.imshow(scores, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    if max(scores.shape) <= _MAX_CELLS:
        size = 9 if cell > 0.5 else 7
        for i, j in np.ndindex(*scores.shape):
            if np.isfinite(scores[i, j]):
                colour = "white" if scores[i, j] > 0.6 else _INK
                axes.text(j, i, f"{scores[i, j]:.2f}", ha="center", va="center", fontsize=size, color=colour)
    for k in range(min(scores.shape)):
        axes.add_patch(Rectangle((k - 0.5, k - 0.5), 1, 1, fill=False, edgecolor=_ORANGE, linewidth=1.6, clip_on=False))
    axes.set_xticks(_number_ticks(experiences), [str(j + 1) for j in _number_ticks(experiences)])
    axes.set_yticks(_number_ticks(nights), [str(i + 1) for i in _number_ticks(nights)])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(title=title, xlabel="experience asked about\n(framed: taught that night)", ylabel="after night")
    figure.colorbar(picture, ax=axes, label="score", aspect=30, ticks=[0, 0.25, 0.5, 0.75, 1])
    return figure


@_LOOK
def retention_figure(results: Mapping[str, Any]) -> Figure | None:
    """Score of each experience from its own night on, and the mean over all experiences met so far."""
    scores = _as_array(results.get("accuracy_matrix") or [])
    if len(scores) < 2 or not np.isfinite(scores).any():
        return None
    nights, experiences = scores.shape
    taught = np.tril(np.ones_like(scores, dtype=bool))  # night i has met experiences 0..i
    seen = np.where(taught, scores, np.nan)
    counts = np.isfinite(seen).sum(axis=1)
    tested = np.isfinite(seen).any(axis=0) & taught
    whole = (counts > 0) & (counts == tested.sum(axis=1))  # nights in which all that was met was tested
    mean = np.nansum(seen[whole], axis=1) / counts[whole]
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, experiences))  # the last yellow is too pale
    figure, (axes,) = _axes(min(max(6.4, 0.25 * nights + 4), 60), 3.8)
    x = np.arange(1, nights + 1)
    for j in range(experiences):
        axes.plot(x, seen[:, j], color=colours[j], linewidth=1.5, marker="o", markersize=4)
    axes.plot(x[whole], mean, color=_INK, linewidth=2.5, linestyle=(0, (3, 1.5)), label="mean so far")
    axes.set_xticks([i + 1 for i in _number_ticks(nights)])
    axes.set(title="Retention over nights", xlabel="after night", ylabel="score", ylim=(-0.03, 1.03))
    axes.legend(loc="lower right", bbox_to_anchor=(1.01, 0.99))
    blocks = ScalarMappable(BoundaryNorm(np.arange(experiences + 1) + 0.5, experiences), ListedColormap(colours))
    ticks = [j + 1 for j in _number_ticks(experiences, _BAR_TICKS)]
    figure.colorbar(blocks, ax=axes, label="experience, in the order met", aspect=30, ticks=ticks).minorticks_off()
    return figure


def _is_loss(name: str) -> bool:
    return name in ("loss", "kl", "divergence") or name.endswith(("_loss", "_kl", "_divergence"))


def _is_reward(name: str) -> bool:
    return "reward" in name and "std" not in name


@_LOOK
def training_figure(results: Mapping[str, Any]) -> Figure | None:
    """Losses and rewards over the optimizer steps; nights follow each other, with a line where a new one starts.

    Losses are the history's columns `loss`, `kl`, `divergence` and those that end so; rewards those with `reward` in
    their name, without their standard deviations. Nights of 40 points and more are also smoothed.
    """
    nights = _split_nights([row for row in results.get("history") or [] if "step" in row])
    names = list(dict.fromkeys(name for night in nights for row in night for name in row))
    panels = {"losses": list(filter(_is_loss, names)), "rewards": list(filter(_is_reward, names))}
    panels = {title: group for title, group in panels.items() if group}
    if not panels:
        return None
    figure, all_axes = _axes(min(max(7.2, 0.25 * len(nights) + 4), 20), 0.6 + 2.8 * len(panels), len(panels))
    for axes, (title, group) in zip(all_axes, panels.items(), strict=True):
        start = 0.0
        for k, night in enumerate(nights):
            if k > 0:
                axes.axvline(start, color=_GREY, linewidth=1, linestyle=":")
            for index, name in enumerate(group):
                points = [(start + row["step"], row[name]) for row in night if row.get(name) is not None]
                label = name if not any(line.get_label() == name for line in axes.get_lines()) else None
                _curve(axes, np.array(points, dtype=float).reshape(-1, 2), _CURVES[index % len(_CURVES)], label)
            start += night[-1]["step"]
        axes.set_ylabel(title)
        axes.legend(loc="lower right", bbox_to_anchor=(1.01, 0.99), ncols=min(len(group), 3))
    all_axes[0].set_title("Training")
    all_axes[-1].set_xlabel("optimizer step" + (" (dotted: a new night)" if len(nights) > 1 else ""))
    return figure


def _curve(axes: Axes, points: np.ndarray, colour: str, label: str | None) -> None:
    """Draw (points, 2) values; when there are many, faintly, with their running mean on top."""
    window = len(points) // 10 if len(points) >= 40 else 1
    if window > 1:
        axes.plot(*points.T, color=colour, linewidth=0.8, alpha=0.3)
    smooth = np.convolve(points[:, 1], np.ones(window) / window, mode="valid") if len(points) else points[:, 1]
    middle = points[window // 2 : window // 2 + len(smooth), 0]
    axes.plot(middle, smooth, color=colour, linewidth=1.8, label=label)


def _split_nights(history: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The rows of each night: a new one starts where `night` changes or the count of steps starts again."""
    nights: list[list[Mapping[str, Any]]] = []
    for row in history:
        last = nights[-1][-1] if nights else None
        if last is None or row["step"] < last["step"] or row.get("night") != last.get("night"):
            nights.append([])
        nights[-1].append(row)
    return nights


@_LOOK
def before_after_figure(results: Mapping[str, Any]) -> Figure | None:
    """Bars: scores before and after sleep without the documents, with them in context, and on general probes."""
    metrics = results.get("metrics") or {}
    groups = {group: names for group, names in _SCORES.items() if any(metrics.get(name) is not None for name in names)}
    if not groups:
        return None
    figure, (axes,) = _axes(max(6.2, 2.2 + 1.7 * len(groups)), 3.8)
    axes.grid(False, axis="x")
    width = 0.26
    for place, names in enumerate(groups.values()):
        for index, (name, (label, colour)) in enumerate(zip(names, _BARS, strict=False)):
            value = metrics.get(name)
            if value is not None:
                x = place + (index - (len(names) - 1) / 2) * width
                look: dict[str, Any] = {"color": "white", "hatch": "///"} if index == 2 else {"color": colour}
                axes.bar(x, value, 0.92 * width, edgecolor=colour, label=label, **look)
                axes.text(x, value + 0.015, f"{value:.2f}", ha="center", fontsize=9, color=_INK)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.tick_params(axis="x", length=0)
    axes.set(title="Before and after sleep", ylabel="score", ylim=(0, 1.08), xlim=(-0.6, len(groups) - 0.4))
    handles, labels = axes.get_legend_handles_labels()
    legend = dict(zip(labels, handles, strict=True))  # one entry for the bars of all groups
    axes.legend(legend.values(), legend.keys(), loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=len(legend))
    return figure


def first_experience_figure(matrices: Matrices) -> Figure | None:
    """Score on the first experience after each night: each seed faintly, their mean, and its 95 % interval.

    Args:
        matrices: the accuracy matrices of each method's seeds.
    """
    return _methods_figure(matrices, lambda matrix: matrix[:, 0], "The first experience", "closed-book score")


def experiences_met_figure(matrices: Matrices) -> Figure | None:
    """Mean score over all experiences met so far, after each night: each seed faintly, their mean, and its 95 % interval."""
    return _methods_figure(matrices, accuracy_of_nights, "All experiences met so far", "accuracy")


@_LOOK
def _methods_figure(matrices: Matrices, score: Callable[[np.ndarray], np.ndarray], title: str, ylabel: str) -> Figure | None:
    """``score`` of each seed's matrix, a number for each night; seeds of other lengths than the first are left out."""
    curves = {name: [score(_as_array(matrix)) for matrix in seeds if len(matrix) > 1] for name, seeds in matrices.items()}
    curves = {name: [one for one in found if len(one) == len(found[0])] for name, found in curves.items() if found}
    if not curves:
        return None
    figure, (axes,) = _axes(7.2, 3.8)
    for index, (name, found) in enumerate(curves.items()):
        colour, nights = _CURVES[index % len(_CURVES)], np.arange(1, len(found[0]) + 1)
        for one in found:
            axes.plot(nights, one, color=colour, linewidth=0.8, alpha=0.3)
        pairs = [mean_interval([one[i] for one in found]) for i in range(len(nights))]
        mean = np.array([np.nan if pair[0] is None else pair[0] for pair in pairs])
        style = _LINES[index // len(_CURVES) % len(_LINES)]
        marker = "o" if len(nights) <= _MAX_CELLS else None
        axes.plot(nights, mean, style, color=colour, linewidth=2, marker=marker, markersize=4, label=name)
        if len(found) > 2:  # of two seeds it is wider than the picture
            half = np.array([pair[1] or 0.0 for pair in pairs])
            axes.fill_between(
                nights, np.clip(mean - half, 0, 1), np.clip(mean + half, 0, 1), color=colour, alpha=0.12, linewidth=0
            )
    axes.set_xticks([i + 1 for i in _number_ticks(max(len(found[0]) for found in curves.values()))])
    axes.set(title=title, xlabel="after night", ylabel=ylabel, ylim=(-0.03, 1.03))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=min(len(curves), 4))
    return figure
