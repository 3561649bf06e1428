"""The quality of samples over what they cost, beside their distance from the end points of the ODE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffspace.figures.errors import nfe_axes
from diffspace.figures.style import COLUMN, DASHES, new_figure, plain, theme
from diffspace.metrics.sweep import SweepPoint

_MOST = 4.0  # times the score of the best; what is far above says nothing


def sweep_figure(points: Sequence[SweepPoint], real: float | None, title: str, score: str) -> Figure:
    """The scores and the distances of a sweep, over the evaluations, beside each other."""
    figure = new_figure(1.6 * COLUMN, 3.4)
    left, right = figure.subplots(1, 2)
    draw_quality(left, points, real, score)
    draw_distances(right, points)
    left.set_title(plain(title), loc="left", fontsize=9)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=7.5, frameon=False)
    return figure


def draw_quality(
    ax: Axes, points: Sequence[SweepPoint], real: float | None = None, score: str = "Fréchet distance"
) -> None:
    """The score over NFE with two standard errors, a line for each method; dotted: real data.

    Of the schedulers of diffusers the best on average has a colour, the others are grey.
    """
    lines = _lines(points, lambda point: None if point.quality is None else point.quality.value)
    for (name, line), style in zip(lines.items(), _styles(lines), strict=True):
        values = [point.quality.value for point in line if point.quality is not None]
        errors = [2 * point.quality.standard_error for point in line if point.quality is not None]
        ax.errorbar([point.nfe for point in line], values, errors, label=_label(name, style), **style)
    if real is not None:
        ax.axhline(real, color=theme().ink, ls=":", lw=1.1, label="real data", zorder=1)
    nfe_axes(ax, [point.nfe for line in lines.values() for point in line], score)
    best = [point.quality.value for line in lines.values() for point in line if point.quality is not None]
    if best:
        least = min(best if real is None else [*best, real])
        ax.set_ylim(0.9 * least, 1.1 * min(max(best), _MOST * min(best)))


def draw_distances(ax: Axes, points: Sequence[SweepPoint]) -> None:
    """The root mean square distance from the end points of the ODE over NFE, in the same styles."""
    lines = _lines(points, lambda point: None if point.quality is None else point.quality.value)
    for (_, line), style in zip(lines.items(), _styles(lines), strict=True):
        known = [(point.nfe, point.rms) for point in line if point.rms]
        if known:
            ax.plot(*zip(*known, strict=True), **{name: value for name, value in style.items() if name != "elinewidth"})
    nfe_axes(ax, [point.nfe for line in lines.values() for point in line], "RMS distance of end points")


def _lines(points: Sequence[SweepPoint], value: Any) -> dict[str, list[SweepPoint]]:
    """The points of each method that have a value, by rising NFE; those of diffusers first, to lie below."""
    lines: dict[str, list[SweepPoint]] = {}
    for point in sorted(points, key=lambda point: (not point.name.startswith("diffusers:"), point.nfe)):
        if value(point) is not None:
            lines.setdefault(point.name, []).append(point)
    return lines


def _styles(lines: dict[str, list[SweepPoint]]) -> list[dict[str, Any]]:
    """A colour and a dash for each line; grey for the schedulers of diffusers but the best."""
    others = {name: line for name, line in lines.items() if name.startswith("diffusers:")}
    best = min(others, key=lambda name: _mean_score(others[name]), default=None)
    coloured = [name for name in lines if name not in others or name == best]
    styles = []
    for name in lines:
        style: dict[str, Any] = {"color": theme().gray, "alpha": 0.5, "lw": 0.8, "elinewidth": 0.6, "zorder": 2}
        if name in coloured:
            place = coloured.index(name)
            colour, dash = (ring[place % len(ring)] for ring in (theme().palette, DASHES))
            style = {"color": colour, "ls": dash, "marker": "o", "ms": 3.5, "elinewidth": 1, "zorder": 3}
        styles.append(style)
    return styles


def _mean_score(line: Sequence[SweepPoint]) -> float:
    return fmean(math.log(max(point.quality.value, 1e-300)) for point in line if point.quality is not None)


def _label(name: str, style: dict[str, Any]) -> str:
    """A name for the key; none for grey lines."""
    return plain(name.replace("diffusers:", "diffusers: ")) if "marker" in style else "_"
