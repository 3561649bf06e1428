"""A score over the width of the average of the weights (Figure 5 of Karras et al. 2024, arXiv:2312.02696)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from diffspace.figures.style import GRAY, INK, PALETTE, tidy
from diffspace.metrics import FrechetScore


def draw_ema_sweep(
    ax: Axes, widths: Sequence[float], scores: Sequence[FrechetScore], own: FrechetScore | None = None
) -> None:
    """The Fréchet distance over σ_rel with its standard error, its least value marked.

    Widths have a logarithmic axis, and distances too where the largest is more than four times the least. The dotted
    line is the distance of real data, the dashed one that of `own`, another average of the same training.
    """
    values = [score.value for score in scores]
    errors = [score.standard_error for score in scores]
    ax.errorbar(widths, values, errors, color=PALETTE[0], marker="o", ms=4, elinewidth=1, zorder=3)
    best = values.index(min(values))
    ax.plot(widths[best], values[best], "o", ms=10, mfc="none", mec=PALETTE[1], mew=1.6, zorder=4)
    lines = [(scores[0].real, "real data", ":", INK)]
    if own is not None:
        lines.append((own.value, "the run's own average", "--", GRAY))
    for value, name, style, colour in lines:
        ax.axhline(value, color=colour, ls=style, lw=1.1, label=name, zorder=1)
    ax.set_xscale("log")
    ax.set_xticks(widths, [f"{width:g}" for width in widths])
    ax.xaxis.set_minor_locator(NullLocator())
    low, high = ax.get_ylim()
    if min(values) > 0 and max(values) > 4 * min(values):
        ax.set_yscale("log")
    elif low > 0:
        ax.set_ylim(low - 0.2 * (high - low), high + 0.2 * (high - low))
    ax.set_xlabel("width of the average, σ_rel")
    ax.set_ylabel("Fréchet distance")
    ax.legend(fontsize=8, frameon=False)
    tidy(ax)
