"""A score over the width of the average of the weights (Figure 5 of Karras et al. 2024, arXiv:2312.02696)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from edmkit.figures.style import GRAY, INK, PALETTE, tidy
from edmkit.metrics import FrechetScore

__all__ = ["draw_ema_sweep"]


def draw_ema_sweep(
    ax: Axes, widths: Sequence[float], scores: Sequence[FrechetScore], own: FrechetScore | None = None
) -> None:
    """The Fréchet distance over σ_rel with its standard error, its least value marked; both axes logarithmic.

    The dotted line is what real data reach, the dashed one another average of the same training, where given.
    """
    values = [score.value for score in scores]
    errors = [0.0 if score.value_std is None else score.value_std / score.sets**0.5 for score in scores]
    ax.errorbar(widths, values, errors, color=PALETTE[0], marker="o", ms=4, elinewidth=1, zorder=3)
    best = values.index(min(values))
    ax.plot(widths[best], values[best], "o", ms=10, mfc="none", mec=PALETTE[1], mew=1.6, zorder=4)
    lines = [(scores[0].real, "real data", ":", INK)]
    if own is not None:
        lines.append((own.value, "the run's own average", "--", GRAY))
    for value, name, style, colour in lines:
        ax.axhline(value, color=colour, ls=style, lw=1.1, label=name, zorder=1)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(widths, [f"{width:g}" for width in widths])
    low, high = min(*values, *(v for v, *_ in lines)), max(*values, *(v for v, *_ in lines))
    ticks = [m * 10.0**k for k in range(-6, 9) for m in (1, 1.5, 2, 3, 5, 7)]
    ax.set_ylim(low / 1.25, high * 1.25)
    ax.set_yticks([t for t in ticks if low / 1.25 <= t <= high * 1.25])
    ax.yaxis.set_major_formatter("{x:g}")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
    ax.set_xlabel("width of the average, σ_rel")
    ax.set_ylabel("Fréchet distance")
    ax.legend(fontsize=8)
    tidy(ax)
