"""How far a solver ends from the exact solution, over the evaluations it spends (Figure 2 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from diffspace.figures.style import GRAY, INK, PALETTE, tidy
from diffspace.solverlab import Measurement, SolverComparison, pareto

_NOTE: Any = {"textcoords": "offset points", "fontsize": 7, "zorder": 5}
_TICKS = (1, 2, 3, 5, 8, 10, 15, 20, 35, 50, 79, 100, 200, 500)


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


def _axes(ax: Axes, nfes: Sequence[int], unit: str) -> None:
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
    """A line for each sampler; both axes logarithmic, where a straight line of slope −p is a solver of order p."""
    draw_errors(ax, {name: _curve(line) for (name, _), line in _lines(comparison).items()}, unit)


def draw_errors(ax: Axes, curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], unit: str) -> None:
    """A line for each name through (evaluations, errors); both axes logarithmic."""
    for (name, curve), colour in zip(curves.items(), PALETTE, strict=False):
        ax.plot(*curve, color=colour, marker="o", ms=3.5, label=name)
    _axes(ax, [nfe for nfes, _ in curves.values() for nfe in nfes], unit)
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
            ax.plot(*_curve(line), color=GRAY, alpha=0.35, linewidth=0.7, zorder=1)
    if beside in lines:
        ax.plot(*_curve(lines[beside]), color=PALETTE[1], linewidth=1.4, marker="o", ms=3, zorder=3)
        last = lines[beside][-1].nfe, lines[beside][-1].error.rms
        clear = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
        ax.annotate(", ".join(beside), last, (4, 9), color=PALETTE[1], ha="right", bbox=clear, **_NOTE)
    best = pareto(comparison, margin=0.05)  # a step of less would have a number for nothing
    front = [row for row in best if row.error.rms > 0]
    ax.plot(*_curve(front), color=PALETTE[0], linewidth=2, marker="o", ms=11, zorder=4)
    for i, row in enumerate(best):
        if row.error.rms > 0:
            bold: Any = {"color": "white", "ha": "center", "va": "center", "fontweight": "bold"}
            ax.annotate(str(i + 1), (row.nfe, row.error.rms), (0, -0.5), **bold, **_NOTE)
        key_text = f"{i + 1}  NFE {row.nfe}" + ("" if row.error.rms > 0 else ": no error")
        key_text += f"\n    {row.solver.replace(':', ' ')}\n    {row.steps.replace(':', ' ')}"
        place = 1.02, 1 - i / max(8, len(best))
        ax.annotate(key_text, place, (0, 0), "axes fraction", color=PALETTE[0], va="top", **_NOTE)
    rows = [row for line in lines.values() for row in line]
    _axes(ax, [row.nfe for row in rows], unit)
    if front:  # what is far above it says nothing
        low, high = front[-1].error.rms, max(row.error.rms for row in rows)
        ax.set_ylim(low / 2, min(high, 10 * front[0].error.rms) * 1.5)
    floor = comparison.reference_error.rms
    if front and floor > ax.get_ylim()[0]:
        ax.axhline(floor, color=INK, linewidth=0.8, linestyle=":")
        ax.text(0.99, floor, "the reference's own error", transform=ax.get_yaxis_transform(), ha="right", fontsize=7)
