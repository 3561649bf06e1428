"""A solver that was found for one denoiser and one sequence of levels, as plain numbers (`fit_solver`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from diffspace._shapes import Tensor
from diffspace.protocols import Request, SigmaPath, Step
from diffspace.sampling.steps import GivenSteps

__all__ = ["FittedSolver"]


@dataclass(frozen=True)
class FittedSolver:
    """A linear multistep solver for one sequence of levels: x⁺ = x + Σ_{j ≤ i} w_ij·ε_j in step i (`fit_solver`).

    ε_j = (x_j − D_j)/σ_j of every earlier evaluation counts, in the unscaled state, so that the process makes no
    difference. `levels` are N+1, falling; row i of `weights` holds i+1 numbers. It steps between these levels alone,
    which its `Sampler` holds as `GivenSteps`. A table for one grid has no limit of many steps: `order` is 1 by
    declaration only.
    """

    levels: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    multistep: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        rows = [len(row) for row in self.weights]
        if rows != list(range(1, GivenSteps(self.levels).num_steps + 1)):
            raise ValueError(f"weights: expected rows of 1, 2, … {len(self.levels) - 1} numbers, got {rows}")
        if not all(math.isfinite(w) for row in self.weights for w in row):
            raise ValueError("weights: expected finite numbers")

    @property
    def order(self) -> int:
        return 1

    def evaluations(self, to_zero: bool) -> int:
        return 1

    def step(self, path: SigmaPath, x: Tensor, t: float, t_next: float, memory: tuple[Tensor, ...] | None) -> Step:
        (sigma, s), (end, s_end) = path.level(t), path.level(t_next)
        past = memory or ()
        i = len(past)
        wanted = self.levels[i : i + 2]
        if len(wanted) < 2 or not all(
            math.isclose(a, b, rel_tol=1e-6) for a, b in zip((sigma, end), wanted, strict=True)
        ):
            raise ValueError(
                f"steps: step {i} goes from σ = {sigma:g} to {end:g}, but the solver was fitted to other levels; "
                "use GivenSteps(solver.levels)"
            )
        x = x if s == 1 else x / s
        denoised = yield Request(x, sigma)
        past = (*past, (x - denoised).div_(sigma))
        x = x.clone()
        for epsilon, weight in zip(past, self.weights[i], strict=True):
            x.add_(epsilon, alpha=weight)
        return x if s_end == 1 else x * s_end, past
