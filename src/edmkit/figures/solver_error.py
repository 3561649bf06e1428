"""How far a solver ends from the exact solution, over the evaluations it spends (Figure 2 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from edmkit._shapes import Tensor
from edmkit.figures.style import PALETTE, tidy
from edmkit.protocols import Cond, Denoiser, Solver
from edmkit.sampling import EDMSteps, Heun, initial_latents, sample

__all__ = ["SolverError", "draw_solver_error", "solver_error"]


@dataclass(frozen=True)
class SolverError:
    """Root mean square distance of end points from the reference solution, for one solver, at each NFE."""

    name: str
    nfe: tuple[int, ...]
    error: tuple[float, ...]


def solver_error(
    denoiser: Denoiser,
    shape: Sequence[int],
    solvers: Mapping[str, Solver],
    *,
    seeds: Sequence[int] = range(16),
    cond: Cond | None = None,
    steps: Sequence[int] = (2, 3, 4, 6, 8, 12, 18, 27, 40),
    reference_steps: int = 200,
) -> list[SolverError]:
    """Error of each solver with EDM steps at every number of steps.

    The reference is Heun with `reference_steps` steps, whose error is (reference_steps/N)² times less than that of N.
    """
    latents = initial_latents(seeds, shape)

    def end(num_steps: int, solver: Solver) -> tuple[Tensor, int]:
        result = sample(denoiser, latents=latents, cond=cond, steps=EDMSteps(num_steps), solver=solver)
        return result.x, result.nfe

    exact, _ = end(reference_steps, Heun())
    results = []
    for name, solver in solvers.items():
        points = []
        for n in steps:
            x, nfe = end(n, solver)
            points.append((nfe, float((x - exact).square().mean().sqrt())))
        results.append(SolverError(name, tuple(nfe for nfe, _ in points), tuple(error for _, error in points)))
    return results


def draw_solver_error(ax: Axes, results: Sequence[SolverError], unit: str = "RMS distance of end points") -> None:
    """Both axes logarithmic; a straight line of slope −p is a solver of order p."""
    for result, colour in zip(results, PALETTE, strict=False):
        ax.plot(result.nfe, result.error, color=colour, marker="o", ms=3.5, label=result.name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    nfes = sorted({nfe for result in results for nfe in result.nfe})
    ticks = [t for t in (2, 3, 5, 10, 20, 35, 50, 100, 200) if nfes[0] <= t <= nfes[-1]]
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("evaluations of the denoiser (NFE)")
    ax.set_ylabel(unit)
    ax.legend(fontsize=8)
    tidy(ax)
