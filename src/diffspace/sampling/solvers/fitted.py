"""A solver that was found for one denoiser and one sequence of levels, as plain numbers (`fit_solver`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffspace._shapes import Tensor
from diffspace.protocols import Request
from diffspace.sampling.solvers.base import Point, Step, UnscaledSolver, combine
from diffspace.sampling.steps import GivenSteps


@dataclass(frozen=True)
class FittedSolver(UnscaledSolver):
    """A linear multistep solver for one sequence of levels: x⁺ = x + Σ_{j ≤ i} w_ij·ε_j in step i (`fit_solver`).

    ε_j = (x_j − D_j)/σ_j of every earlier evaluation is used. `levels` are N+1, falling; row i of `weights` holds i+1
    numbers. It steps between these levels alone, which its `Sampler` holds as `GivenSteps`. A table for one grid has
    no limit of many steps: `order` is 1 by declaration only.
    """

    levels: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    order = 1
    multistep = True

    def __post_init__(self) -> None:
        rows = [len(row) for row in self.weights]
        if rows != list(range(1, GivenSteps(self.levels).num_steps + 1)):
            raise ValueError(f"weights: expected rows of 1, 2, … {len(self.levels) - 1} numbers, got {rows}")
        if not all(math.isfinite(w) for row in self.weights for w in row):
            raise ValueError("weights: expected finite numbers")

    def unscaled_step(self, x: Tensor, start: Point, end: Point, memory: tuple[Tensor, ...] | None) -> Step:
        past = memory or ()
        i = len(past)
        pairs = zip((start.sigma, end.sigma), self.levels[i:], strict=False)
        if i == len(self.weights) or not all(math.isclose(a, b, rel_tol=1e-6) for a, b in pairs):
            raise ValueError(
                f"steps: step {i} goes from σ = {start.sigma:g} to {end.sigma:g}, but the solver was fitted to others; "
                "use GivenSteps(solver.levels)"
            )
        denoised = yield Request(x, start.sigma)
        past = (*past, (x - denoised).div_(start.sigma))
        return combine(x, 1.0, zip(past, self.weights[i], strict=True)), past

    step_to_zero = UnscaledSolver.step
