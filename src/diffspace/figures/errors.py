"""Errors over what decides them: the noise level, the evaluations of a solver, the width of an average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from diffspace.figures.style import DASHES, theme, tidy
from diffspace.metrics import FrechetScore
from diffspace.objective import LossBySigma, NoiseDistribution
from diffspace.solverlab import Measurement, SolverComparison, pareto

_NOTE: Any = {"textcoords": "offset points", "fontsize": 7, "zorder": 5}
_TICKS = (1, 2, 3, 5, 8, 10, 15, 20, 35, 50, 79, 100, 200, 500)


def draw_loss_by_sigma(ax: Axes, curves: Mapping[str, LossBySigma], noise: NoiseDistribution | None = None) -> None:
    """Mean squared error per dimension over σ, with ±2 standard errors (Figure 5a of the paper).

    The dotted line is the trivial denoiser of the first curve, the dashed one the attainable minimum if a curve has
    one. The band marks the levels between the 5 % and 95 % quantiles of the training noise.
    """
    for (name, curve), colour in zip(curves.items(), theme().palette, strict=False):
        sigma, mse, error = curve.sigma.numpy(), curve.mse.numpy(), curve.standard_error.numpy()
        ax.plot(sigma, mse, color=colour, label=name, zorder=3)
        ax.fill_between(sigma, (mse - 2 * error).clip(min=mse * 1e-2), mse + 2 * error, color=colour, alpha=0.18, lw=0)
        if curve.attainable is not None:
            ideal = f"{name}: ideal denoiser of it"
            ax.plot(sigma, curve.attainable.numpy(), color=colour, ls="--", lw=1.1, label=ideal)
    first = next(iter(curves.values()))
    sigma = first.sigma.numpy()
    ax.plot(sigma, first.trivial.numpy(), color=theme().ink, ls=":", lw=1.1, label="trivial: answers the mean")
    ax.plot(sigma, sigma**2, color=theme().gray, ls=":", lw=1.1, label="identity: answers x")
    if noise is not None:
        low, high = noise.quantile(first.sigma.new_tensor([0.05, 0.95])).tolist()
        ax.axvspan(low, high, color=theme().gray, alpha=0.15, lw=0, label="90 % of training noise")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(float(first.sigma[0]), float(first.sigma[-1]))
    lowest = min(float(curve.mse.min()) for curve in curves.values())
    ax.set_ylim(lowest / 3, float(first.trivial.max()) * 3)
    ax.set_xlabel("noise level σ")
    ax.set_ylabel("E‖D(y + n; σ) − y‖² per dimension")
    ax.legend(fontsize=7.5)
    tidy(ax)


def _lines(comparison: SolverComparison) -> dict[tuple[str, str], list[Measurement]]:
    """The measurements of each sampler that did not fail, by rising NFE, each once."""
    lines: dict[tuple[str, str], list[Measurement]] = {}
    for row in sorted(comparison.within(max(comparison.budgets)), key=lambda row: row.nfe):
        line = lines.setdefault((row.solver, row.steps), [])
        if row.error.rms > 0 and (not line or line[-1].nfe < row.nfe):  # 0 has no place on a logarithmic axis
            line.append(row)
    return {key: line for key, line in lines.items() if line}


def _curve(line: Sequence[Measurement]) -> tuple[list[int], list[float]]:
    return [row.nfe for row in line], [row.error.rms for row in line]


def nfe_axes(ax: Axes, nfes: Sequence[int], unit: str) -> None:
    """Two logarithmic axes, the horizontal one for these evaluations."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    if nfes:
        ticks = [t for t in _TICKS if min(nfes) <= t <= max(nfes)]
        ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("evaluations of the denoiser (NFE)")
    ax.set_ylabel(unit)
    tidy(ax)


def draw_solver_error(ax: Axes, comparison: SolverComparison, unit: str = "RMS distance of end points") -> None:
    """A line for each sampler (Figure 2 of the paper); on both logarithmic axes, order p is a slope of −p."""
    draw_errors(ax, {name: _curve(line) for (name, _), line in _lines(comparison).items()}, unit)


def draw_errors(ax: Axes, curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], unit: str) -> None:
    """A line for each name through (evaluations, errors); both axes logarithmic."""
    for (name, curve), colour, dash in zip(curves.items(), theme().palette, DASHES, strict=False):
        ax.plot(*curve, color=colour, ls=dash, marker="o", ms=3.5, label=name)
    nfe_axes(ax, [nfe for nfes, _ in curves.values() for nfe in nfes], unit)
    ax.legend(fontsize=8)


def draw_pareto(
    ax: Axes,
    comparison: SolverComparison,
    *,
    beside: tuple[str, str] = ("heun", "edm"),
    unit: str = "RMS distance of end points",
) -> None:
    """The front of least error for the evaluations, numbered, with a key at its right side; all others in grey.

    `beside` names the solver and the steps of one line to compare with, where it is there. The dotted line is the
    reference's own error: nothing below it is known.
    """
    lines = _lines(comparison)
    for key, line in lines.items():
        if key != beside:
            ax.plot(*_curve(line), color=theme().gray, alpha=0.35, linewidth=0.7, zorder=1)
    if beside in lines:
        ax.plot(*_curve(lines[beside]), color=theme().palette[1], linewidth=1.4, marker="o", ms=3, zorder=3)
        last = lines[beside][-1].nfe, lines[beside][-1].error.rms
        clear = {"facecolor": theme().paper, "alpha": 0.8, "linewidth": 0, "pad": 1}
        ax.annotate(", ".join(beside), last, (4, 9), color=theme().palette[1], ha="right", bbox=clear, **_NOTE)
    best = pareto(comparison, margin=0.05)  # a step of less would have a number for nothing
    front = [row for row in best if row.error.rms > 0]
    ax.plot(*_curve(front), color=theme().palette[0], linewidth=2, marker="o", ms=11, zorder=4)
    for i, row in enumerate(best):
        if row.error.rms > 0:
            bold: Any = {"color": theme().paper, "ha": "center", "va": "center", "fontweight": "bold"}
            ax.annotate(str(i + 1), (row.nfe, row.error.rms), (0, -0.5), **bold, **_NOTE)
        key_text = f"{i + 1}  NFE {row.nfe}" + ("" if row.error.rms > 0 else ": no error")
        key_text += f"\n    {row.solver.replace(':', ' ')}\n    {row.steps.replace(':', ' ')}"
        place = 1.02, 1 - i / max(8, len(best))
        ax.annotate(key_text, place, (0, 0), "axes fraction", color=theme().palette[0], va="top", **_NOTE)
    rows = [row for line in lines.values() for row in line]
    nfe_axes(ax, [row.nfe for row in rows], unit)
    if front:  # what is far above it says nothing
        low, high = front[-1].error.rms, max(row.error.rms for row in rows)
        ax.set_ylim(low / 2, min(high, 10 * front[0].error.rms) * 1.5)
    floor = comparison.reference_error.rms
    if front and floor > ax.get_ylim()[0]:
        ax.axhline(floor, color=theme().ink, linewidth=0.8, linestyle=":")
        ax.text(0.99, floor, "the reference's own error", transform=ax.get_yaxis_transform(), ha="right", fontsize=7)


def draw_ema_sweep(
    ax: Axes, widths: Sequence[float], scores: Sequence[FrechetScore], own: FrechetScore | None = None
) -> None:
    """The Fréchet distance over σ_rel with its standard error, its least value marked (Figure 5 of arXiv:2312.02696).

    Distances have a logarithmic axis where the largest is more than four times the least. The dotted line is the
    distance of real data, the dashed one that of `own`, another average of the same training.
    """
    values = [score.value for score in scores]
    errors = [score.standard_error for score in scores]
    ax.errorbar(widths, values, errors, color=theme().palette[0], marker="o", ms=4, elinewidth=1, zorder=3)
    best = values.index(min(values))
    ax.plot(widths[best], values[best], "o", ms=10, mfc="none", mec=theme().palette[1], mew=1.6, zorder=4)
    lines = [(scores[0].real, "real data", ":", theme().ink)]
    if own is not None:
        lines.append((own.value, "the run's own average", "--", theme().gray))
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
