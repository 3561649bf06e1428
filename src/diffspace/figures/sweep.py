"""The quality of samples over what they cost, beside their distance from the end points of the ODE."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffspace.figures.draw_curves import logarithmic_axis
from diffspace.figures.errors import nfe_axes
from diffspace.figures.style import COLUMN, DASHES, new_figure, plain, theme
from diffspace.metrics.sweep import SweepPoint, targets

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
    """The score over NFE, a line for each method; dotted: real data.

    Bars are standard errors of the difference from Heun's method with 35 evaluations; the band has those of its own
    score, which all of the same seeds share. Of the schedulers of diffusers the best on average has a colour, the
    others are grey. What has more than four times the least score is cut off.
    """
    known, lines = targets(points), _lines(points)
    for guidance, target in known.items():
        if target.quality is not None:
            value, error = target.quality.value, target.quality.standard_error
            label = f"{target.name}, NFE {target.nfe} ± {error:.2g}" if len(known) == 1 else f"guidance {guidance}"
            ax.axhspan(value - error, value + error, color=theme().gray, alpha=0.13, lw=0, label=label, zorder=0)
    shown = []
    for (name, line), style in zip(lines.items(), _styles(lines), strict=True):
        pairs = [(point.quality, known.get(point.guidance)) for point in line if point.quality is not None]
        values = [quality.value for quality, _ in pairs]
        errors = [
            (quality.above(to.quality) if to is not None and to.quality is not None else quality).standard_error
            for quality, to in pairs
        ]
        shown += values
        ax.errorbar([point.nfe for point in line], values, errors, label=_label(name, style), **style)
    if real is not None:
        ax.axhline(real, color=theme().ink, ls=":", lw=1.1, label="real data", zorder=1)
    nfe_axes(ax, [point.nfe for line in lines.values() for point in line], score)
    if shown and min(*shown, real or 1.0) > 0:
        ends = [value for value in shown if value <= _MOST * min(shown)] + [real or min(shown)]
        logarithmic_axis(ax, 0.95 * min(ends), 1.1 * max(ends))
    else:  # an unbiased score may be below 0
        ax.set_yscale("linear")


def draw_distances(ax: Axes, points: Sequence[SweepPoint]) -> None:
    """The root mean square distance from the end points of the ODE over NFE, in the same styles."""
    lines = _lines(points)
    for (_, line), style in zip(lines.items(), _styles(lines), strict=True):
        known = [(point.nfe, point.rms) for point in line if point.rms]
        if known:
            ax.plot(*zip(*known, strict=True), **{name: value for name, value in style.items() if name != "elinewidth"})
    nfe_axes(ax, [point.nfe for line in lines.values() for point in line], "RMS distance of end points")


def _lines(points: Sequence[SweepPoint]) -> dict[str, list[SweepPoint]]:
    """The points of each method that have a score, by rising NFE; those of diffusers first, to lie below."""
    lines: dict[str, list[SweepPoint]] = {}
    for point in sorted(points, key=lambda point: (not point.name.startswith("diffusers:"), point.nfe)):
        if point.quality is not None:
            lines.setdefault(point.name, []).append(point)
    return lines


def _styles(lines: dict[str, list[SweepPoint]]) -> list[dict[str, Any]]:
    """A colour and a dash for each line; grey for the schedulers of diffusers but the best."""
    others = {name: line for name, line in lines.items() if name.startswith("diffusers:")}
    best = min(others, key=_mean_of(others), default=None)
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


def _mean_of(lines: Mapping[str, Sequence[SweepPoint]]) -> Callable[[str], float]:
    """The mean score of each line: geometric, or plain where one is not positive, as one without bias may be."""
    scores = {name: [point.quality.value for point in line if point.quality] for name, line in lines.items()}
    positive = all(value > 0 for values in scores.values() for value in values)
    return lambda name: fmean(map(math.log, scores[name]) if positive else scores[name])


def _label(name: str, style: dict[str, Any]) -> str:
    """A name for the key; none for grey lines."""
    return plain(name.replace("diffusers:", "diffusers: ")) if "marker" in style else "_"
