"""The panels of training runs as a picture: one run in full, or the losses of several over each other."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from diffspace.figures.curves import Curves, Line, Panel, levels_panel, loss_panel, short, shrinking_error, small_panels
from diffspace.figures.style import new_figure, plain, theme, tidy

_SLICES = 48
_STYLES: dict[str, dict[str, Any]] = {
    "line": {"lw": 1.4},
    "faint": {"lw": 0.8, "alpha": 0.22},
    "points": {"lw": 1.1, "marker": "o", "ms": 3.2},
    "dotted": {"lw": 1.1, "ls": ":"},
    "dashed": {"lw": 1.1, "ls": "--"},
}


def curves_figure(runs: Sequence[Curves]) -> Figure:
    """All curves of one run, or the losses of several runs over each other."""
    if not runs:
        raise ValueError("runs: expected at least one")
    alone, first = len(runs) == 1, runs[0]
    figure = new_figure(12.5, 7.2 if alone else 4.8)
    halves: Any = figure.subfigures(2, 1, height_ratios=[1.25, 1]) if alone else [figure]
    left, right = halves[0].subplots(1, 2, width_ratios=[1.15, 1])
    draw_panel(left, loss_panel(runs))
    draw_panel(right, levels_panel(runs, _SLICES if alone else 8, between=True))
    if not alone:
        return figure
    small = small_panels(runs)
    has_map = bool(first.trivial) and any(row.points()[0] for row in first.slices(_SLICES))
    if small or has_map:
        widths = [1.9] * has_map + [1.0] * len(small)
        axes = list(halves[1].subplots(1, len(widths), width_ratios=widths, squeeze=False)[0])
        if has_map:
            draw_map(axes.pop(0), first)
        for ax, panel in zip(axes, small, strict=True):
            draw_panel(ax, panel)
    figure.suptitle(_heading(first), x=0.01, ha="left", fontsize=11, fontweight="bold", color=theme().ink)
    return figure


def draw_panel(ax: Axes, panel: Panel) -> None:
    """The lines of a panel, with axes that what is compared with does not widen."""
    for line in panel.lines:
        ax.plot(line.x, line.y, color=_colour(line), label=plain(line.label) or None, **_STYLES[line.style])
        if line.errors:
            ax.errorbar(line.x, line.y, line.errors, ls="none", color=_colour(line), elinewidth=1, capsize=2)
    ax.set_title(plain(panel.title), loc="left")
    values = [y for line in panel.lines if line.style not in ("faint", "dashed") for y in line.ends]
    if panel.by_sigma:
        ax.set_xlabel("noise level σ")
        ax.set_ylabel("squared error per dimension")
    else:
        _over_images(ax)
    tidy(ax)
    if not values:
        ax.text(0.5, 0.5, "nothing logged yet", transform=ax.transAxes, ha="center", va="center", color=theme().gray)
        return
    if panel.by_sigma:
        ax.set_xscale("log")
    if panel.linear:
        ax.set_ylim(0, 1.1 * max(*values, 1e-12))
    elif panel.logarithmic:
        logarithmic_axis(ax, min(values), max(values))
    if any(line.label for line in panel.lines):
        ax.legend(fontsize=7.5)


def _colour(line: Line) -> Any:
    if line.colour is None:
        return theme().ink if line.style == "dotted" else theme().gray
    if line.age < 1:
        return matplotlib.colormaps["viridis_r"](0.08 + 0.92 * line.age)
    return theme().palette[line.colour % len(theme().palette)]


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
    tidy(ax)
    ax.grid(False)


def _over_images(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(5, min_n_ticks=2))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda images, _: short(images)))
    ax.set_xlabel("images")
    ax.set_xlim(left=0)


def logarithmic_axis(ax: Axes, low: float, high: float) -> None:
    """A logarithmic axis that holds these values, ticked with plain numbers where it spans little."""
    ax.set_yscale("log")
    ax.set_ylim(low / 1.1, high * 1.1)
    subs = (1, 1.5, 2, 3, 4, 5, 7) if high < 8 * low else (1, 2, 5) if high < 100 * low else (1,)
    ax.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _heading(run: Curves) -> str:
    parts = [run.name]
    if run.last:
        parts.append(run.progress)
    if speeds := run.training["images_per_second"].values:
        parts.append(f"{statistics.median(speeds):,.0f} images/s")
    if run.held_out:
        parts.append(f"held-out loss {run.held_out.values[-1]:.4g}")
    if run.last.get("skipped"):
        parts.append(f"{run.last['skipped']} steps skipped")
    return ",  ".join(parts)
