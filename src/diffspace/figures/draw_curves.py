"""The curves of training runs: one run in full, or the losses of several over each other."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from diffspace.figures.curves import Curve, Curves, smooth
from diffspace.figures.style import GRAY, INK, PALETTE, new_figure, tidy

_SLICES = 48
_SMOOTH = 60  # a smoothed value is the mean of up to a thirtieth of the run


def shrinking_error(sigma: float, variance: float) -> float:
    """σ²·v/(σ² + v): the error per dimension of the best multiple of x, for data of variance v about 0.

    It is what EDM's preconditioning gives with F = 0: σ² (the answer x) at low noise, v (the mean) at high noise.
    """
    return sigma**2 * variance / (sigma**2 + variance)


def curves_figure(runs: Sequence[Curves]) -> Figure:
    """All curves of one run, or the losses of several runs over each other."""
    if not runs:
        raise ValueError("runs: expected at least one")
    return _one(runs[0]) if len(runs) == 1 else _several(runs)


def _one(run: Curves) -> Figure:
    figure = new_figure(12.5, 7.2)
    halves: Any = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    upper, lower = halves
    left, right = upper.subplots(1, 2, width_ratios=[1.15, 1])
    draw_loss(left, [run])
    draw_levels(right, run)
    small: list[partial[None]] = []
    if run.trivial and any(row.points()[0] for row in run.slices(_SLICES)):
        small.append(partial(draw_map, run=run))
    small += [partial(draw_measured, name=name, curves=curves) for name, curves in run.measured.items()]
    titles = {"grad_norm": "gradient norm", "learning_rate": "learning rate", "images_per_second": "images/s"}
    small += [
        partial(_small, curve=run.training[key], title=title, logarithmic=key == "grad_norm")
        for key, title in titles.items()
        if run.training[key]
    ]
    if small:
        widths = [1.9 if draw.func is draw_map else 1 for draw in small]
        axes = lower.subplots(1, len(small), width_ratios=widths, squeeze=False)[0]
        for ax, draw in zip(axes, small, strict=True):
            draw(ax)
    figure.suptitle(_heading(run), x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    return figure


def _several(runs: Sequence[Curves]) -> Figure:
    figure = new_figure(12.5, 4.8)
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    draw_loss(left, runs)
    for run, colour in zip(runs, _colours(len(runs)), strict=True):
        for levels in run.slices(8)[-1:]:
            right.plot(*levels.points(), color=colour, label=run.name)
    _level_axes(right, next((run.trivial for run in runs if run.trivial), None))
    right.set_title("error by noise level, last eighth", loc="left")
    return figure


def draw_loss(ax: Axes, runs: Sequence[Curves]) -> None:
    """Loss over the images seen, as logged (faint) and smoothed, with the held-out loss as points."""
    smoothed: list[float] = []
    for run, colour in zip(runs, _colours(len(runs)), strict=True):
        loss = run.training["loss"]
        name = "training" if len(runs) == 1 else run.name
        if loss:
            line = smooth(loss.values, len(loss.values) // _SMOOTH)
            smoothed += line
            ax.plot(loss.images, loss.values, color=colour, alpha=0.22, lw=0.8)
            ax.plot(loss.images, line, color=colour, label=name)
        if run.held_out:
            held = PALETTE[1] if len(runs) == 1 else colour
            smoothed += run.held_out.values
            style, label = ("-", "held-out, fixed noise") if len(runs) == 1 else ("--", f"{name}, held-out")
            points = run.held_out.images, run.held_out.values
            ax.plot(*points, color=held, lw=1.1, ls=style, marker="o", ms=3.2, label=label)
    ax.set_title("loss", loc="left")
    _over_images(ax)
    if smoothed and min(smoothed) > 0:
        _logarithmic(ax, smoothed)
    if smoothed:
        ax.legend(fontsize=8)
    else:
        _nothing(ax)


def draw_levels(ax: Axes, run: Curves) -> None:
    """The squared error per dimension over σ, from the first 48th of the training to the last."""
    slices = run.slices(_SLICES)
    # the first, second, fourth, eighth and so on, and the last
    chosen = [row for i, row in enumerate(slices, 1) if i & (i - 1) == 0 or i == len(slices)]
    for i, levels in enumerate(chosen):
        shade = matplotlib.colormaps["viridis_r"](0.08 + 0.92 * (i / max(1, len(chosen) - 1)))
        ax.plot(*levels.points(), color=shade, lw=1.3, label=_count(levels.images, 0))
    if run.held_out_by_sigma:
        ax.plot(*run.held_out_by_sigma[-1].points(), color=PALETTE[1], ls="", marker="o", ms=3.2, label="held-out")
    ax.set_title("error by noise level over training", loc="left")
    if chosen or run.held_out_by_sigma:
        _level_axes(ax, run.trivial)
    else:
        tidy(ax)
        _nothing(ax)


def draw_map(ax: Axes, run: Curves) -> None:
    """The error by σ (upwards) over the images seen, as a part of the error of the best multiple of x."""
    if run.trivial is None:
        raise ValueError("run: has no held-out loss, and so no error of the trivial denoiser to compare with")
    slices = run.slices(_SLICES)
    sigma = slices[-1].sigma
    values = [
        [(v / shrinking_error(s, run.trivial) if v else float("nan")) for s, v in zip(sigma, row.mse, strict=True)]
        for row in slices
    ]
    finite = sorted(v for row in values for v in row if v == v)
    low = finite[len(finite) // 50]
    mesh = ax.pcolormesh(
        [row.images for row in slices],
        sigma,
        [list(column) for column in zip(*values, strict=True)],
        norm=LogNorm(min(low, 0.9), 1),
        cmap="viridis",
        shading="nearest",
        rasterized=True,
    )
    ax.set_yscale("log")
    ax.set_ylabel("noise level σ")
    ax.set_title("error ÷ that of the best multiple of x", loc="left")
    bar = ax.figure.colorbar(mesh, ax=ax, pad=0.02, extend="both")
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    _over_images(ax)
    ax.grid(False)


def draw_measured(ax: Axes, name: str, curves: Mapping[str, Curve]) -> None:
    """The numbers of a measurement over the images seen."""
    for (label, curve), colour in zip(curves.items(), _colours(len(curves)), strict=True):
        ax.plot(curve.images, curve.values, color=colour, marker="o", ms=3, lw=1.2, label=label)
    ax.set_title(name, loc="left")
    _over_images(ax)
    if len(curves) > 1:
        ax.legend(fontsize=7)
    values = [v for curve in curves.values() for v in curve.values]
    if min(values) > 0:
        _logarithmic(ax, values)


def _small(ax: Axes, curve: Curve, title: str, logarithmic: bool) -> None:
    ax.plot(curve.images, curve.values, color=PALETTE[0], lw=0.8, alpha=0.22)
    ax.plot(curve.images, smooth(curve.values, len(curve.values) // _SMOOTH), color=PALETTE[0], lw=1.3)
    ax.set_title(title, loc="left")
    _over_images(ax)
    if logarithmic and min(curve.values) > 0:
        _logarithmic(ax, curve.values)
    elif not logarithmic:
        ax.set_ylim(0, 1.1 * max(*curve.values, 1e-12))


def _level_axes(ax: Axes, trivial: float | None) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    points = np.concatenate([np.empty((0, 2)), *(np.asarray(line.get_xydata(), float) for line in ax.get_lines())])
    if len(points):
        (low, bottom), (high, top) = points.min(0), points.max(0)
        ax.set_ylim(bottom / 1.5, max(top, trivial or top) * 1.6)
        if trivial:
            ax.axhline(trivial, color=INK, ls=":", lw=1.1, label="trivial: the mean")
            sigma = [low * (high / low) ** (i / 60) for i in range(61)]
            best = [shrinking_error(s, trivial) for s in sigma]
            ax.plot(sigma, best, color=GRAY, ls="--", lw=1.1, label="best multiple of x", zorder=1)
        ax.legend(fontsize=7.5)
    ax.set_xlabel("noise level σ")
    ax.set_ylabel("squared error per dimension")
    tidy(ax)


def _over_images(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(5, min_n_ticks=2))
    ax.xaxis.set_major_formatter(FuncFormatter(_count))
    ax.set_xlabel("images")
    ax.set_xlim(left=0)
    tidy(ax)


def _logarithmic(ax: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis that holds these values, ticked with plain numbers where it spans little."""
    low, high = min(values), max(values)
    ax.set_yscale("log")
    ax.set_ylim(low / 1.1, high * 1.1)
    subs = (1, 1.5, 2, 3, 4, 5, 7) if high < 8 * low else (1, 2, 5) if high < 100 * low else (1,)
    ax.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _nothing(ax: Axes) -> None:
    ax.text(0.5, 0.5, "nothing logged yet", transform=ax.transAxes, ha="center", va="center", color=GRAY)


def _count(images: float, _: object) -> str:
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if images >= unit:
            return f"{images / unit:.3g} {sign}"
    return f"{images:.3g}"


def _colours(count: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(count)]


def _heading(run: Curves) -> str:
    parts = [run.name]
    if run.last:
        of = "" if run.total is None else f" of {run.total:,}"
        parts.append(f"{int(run.images):,}{of} images")
    speeds = run.training["images_per_second"].values
    if speeds:
        parts.append(f"{statistics.median(speeds):,.0f} images/s")
    if run.held_out:
        parts.append(f"held-out loss {run.held_out.values[-1]:.4g}")
    if run.last.get("skipped"):
        parts.append(f"{run.last['skipped']} steps skipped")
    return ",  ".join(parts)
