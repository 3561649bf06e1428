"""Steps and weights found rather than guessed: the least error of end points for a denoiser and a budget.

Both searches move the noise levels by the method of Levenberg and Marquardt, with differences of whole runs as
derivatives. A few samples that start near the boundary between two ends have errors far above all others; the loss
Σ ln(1 + e²/c²), with c² a multiple of the median of e², lets them count no more than their share. Which multiple is
best depends on the problem (`search_solver` tries several).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from diffspace._shapes import Tensor
from diffspace.protocols import Denoiser, Request, data_scale
from diffspace.sampling.driver import round_sigmas
from diffspace.sampling.runs import sample
from diffspace.sampling.sampler import Execution, Sampler
from diffspace.sampling.solvers.base import Point, Solver, Step, UnscaledSolver
from diffspace.sampling.solvers.multistep import FittedSolver, epsilon_weights
from diffspace.sampling.steps import EDMSteps, GivenSteps, steps_for
from diffspace.solverlab.end_points import Continuous, Reference, mean_squares

Progress = Callable[[int, int, float], None]

_MODES = 10  # how many cosines a change of the steps is made of, where there are more steps than that


ROBUSTNESS = 3.0
"""c² in units of the median of e²."""


def _scale(squares: Tensor, robustness: float) -> float:
    """c², which is not 0 where most errors are, as those of finite data can be."""
    return robustness * float(squares.median()) + 1e-9 * float(squares.mean()) + torch.finfo(torch.float64).tiny


class _Spacing:
    """Levels σ_0 > … > σ_{N−1} as the exponentials of N−1 free numbers, the logarithms of the gaps in ln σ."""

    def __init__(self, denoiser: object, truth: Reference, num_steps: int) -> None:
        self.denoiser, self.num_steps = denoiser, num_steps
        self.first, self.lowest = truth.sigma_max, float(steps_for(denoiser, EDMSteps()).sigma_min or 0)

    def starts(self, levels: tuple[float, ...] | None = None) -> list[Tensor]:
        """These levels; without, EDM steps that end at several levels, with several ρ."""
        if self.num_steps == 1:
            return [torch.zeros(0, dtype=torch.float64, device="cpu")]
        if levels is not None:
            return [self._free(torch.tensor(levels, dtype=torch.float64, device="cpu"))]
        scale = data_scale(self.denoiser)
        ends = [end for end in (self.lowest, 0.02 * scale, 0.1 * scale, 0.3 * scale) if self.lowest <= end < self.first]
        spaced = (EDMSteps(self.num_steps, end, self.first, rho=rho) for end in ends for rho in (2.5, 7.0, 20.0))
        return [self._free(steps.sigmas()) for steps in spaced]

    def _free(self, levels: Tensor) -> Tensor:
        return (-levels[:-1].log().diff()).log()

    def levels(self, free: Tensor) -> tuple[float, ...]:
        gaps, room = free.exp(), math.log(self.first / self.lowest)
        gaps = gaps * min(1.0, room / max(float(gaps.sum()), room * 1e-9))
        inner = (math.log(self.first) - gaps.cumsum(0)).exp().clamp_min(self.lowest)
        return (self.first, *inner.tolist(), 0.0)

    def known(self, free: Tensor) -> tuple[float, ...]:
        """The levels as `sample` will take them: rounded to those that the model knows."""
        levels = round_sigmas(self.denoiser, torch.tensor(self.levels(free), dtype=torch.float64, device="cpu"))
        if not bool((levels.diff() < 0).all()):
            raise ValueError(f"num_steps: {len(levels) - 1} is more than the levels of the model allow")
        return tuple(levels.tolist())


def _minimise(
    residuals: Callable[[Tensor], Tensor],
    starts: list[Tensor],
    iterations: int,
    robustness: float,
    progress: Progress | None,
) -> Tensor:
    """Levenberg and Marquardt on the robust loss of residuals (B, …), from the best of some starts.

    What is varied are cosines of the position along the steps, which keeps many steps smooth and the runs few.
    """
    start = min(starts, key=lambda free: float(mean_squares(residuals(free)).log().mean()))
    n = len(start)
    positions = (torch.arange(n, dtype=torch.float64, device="cpu") + 0.5) / max(n, 1)
    modes = torch.cos(math.pi * positions[:, None] * torch.arange(min(n, _MODES), dtype=torch.int64, device="cpu"))
    at, damping, difference = torch.zeros(modes.shape[1], dtype=torch.float64, device="cpu"), 1e-2, 1e-4
    r = residuals(start)
    for i in range(iterations if n else 0):
        squares = mean_squares(r)
        scale = _scale(squares, robustness)
        loss = (squares / scale).log1p().mean()
        if progress is not None:
            progress(i, iterations, float(squares.mean().sqrt()))
        unit = torch.eye(len(at), dtype=torch.float64, device="cpu") * difference
        slopes = torch.stack([(residuals(start + modes @ (at + u)) - r) / difference for u in unit], -1)
        flat, slopes = r.reshape(len(r), -1), slopes.reshape(len(r), -1, len(at))
        trust = 1 / (1 + squares / scale)
        normal = torch.einsum("b,bdi,bdj->ij", trust, slopes, slopes).cpu()
        gradient = torch.einsum("b,bdi,bd->i", trust, slopes, flat).cpu()
        if not (float(normal.diagonal().max()) > 0 and bool(torch.isfinite(normal).all())):
            break  # no small change of the levels moves an end, or it moves one out of sight
        diagonal = normal.diagonal().diag() + 1e-12 * normal.diagonal().max() * torch.eye(
            len(at), dtype=torch.float64, device="cpu"
        )
        for _ in range(6):
            move = -torch.linalg.solve(normal + damping * diagonal, gradient)
            move = move * min(1.0, 1 / max(float(move.abs().max()), 1e-30))
            tried = residuals(start + modes @ (at + move))
            if (mean_squares(tried) / scale).log1p().mean() < loss:
                break
            damping *= 6
        else:
            break
        at, r, damping = at + move, tried, max(damping / 5, 1e-6)
    return start + modes @ at


def _end(denoiser: Denoiser, truth: Reference, levels: tuple[float, ...], solver: Solver) -> Tensor:
    """Where the samples end; infinite values where the solver diverges, so that the search avoids it."""
    sampler, execution = Sampler(GivenSteps(levels), solver), Execution(device=truth.x.device)
    try:
        return sample(denoiser, latents=truth.latents, cond=truth.cond, sampler=sampler, execution=execution).x
    except FloatingPointError:
        return torch.full_like(truth.x, math.inf)


def _find_levels(
    denoiser: Denoiser,
    num_steps: int,
    truth: Reference,
    make_solver: Callable[[], Solver],
    batch_size: int | None,
    iterations: int,
    progress: Progress | None,
    robustness: float = ROBUSTNESS,
    start: tuple[float, ...] | None = None,
) -> tuple[float, ...]:
    """The N levels, and then 0, from which a solver ends nearest to `truth`, as `sample` will take them."""
    spacing, smooth = _Spacing(denoiser, truth, num_steps), Continuous(denoiser, batch_size)

    def residuals(free: Tensor) -> Tensor:
        return _end(smooth, truth, spacing.levels(free), make_solver()) - truth.x

    return spacing.known(_minimise(residuals, spacing.starts(start), iterations, robustness, progress))


def optimize_steps(
    denoiser: Denoiser,
    solver: Solver,
    num_steps: int,
    truth: Reference,
    *,
    iterations: int = 12,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Sampler:
    """The solver with the N levels, and then 0, from which it ends nearest to `truth`.

    The search takes about (N + 1)·`iterations` runs. Judge the result on other seeds.

    Args:
        denoiser: D(x, sigma, cond).
        solver: any solver of the ODE.
        num_steps: N.
        truth: the end points of calibration seeds (`reference`).
        iterations: the most steps of Levenberg and Marquardt.
        batch_size: samples evaluated at a time. Default: all.
        progress: progress(i, iterations, rms) is called before each iteration.
    """
    levels = _find_levels(denoiser, num_steps, truth, lambda: solver, batch_size, iterations, progress)
    return Sampler(GivenSteps(levels), solver)


class _Stagewise(UnscaledSolver):
    """Makes the table of a `FittedSolver` while it samples: each row by least squares towards the exact paths.

    Row i minimises Σ_b ρ(‖x + Σ_j w_j·ε_j − x*(σ_{i+1})‖²) + ridge·‖w − a‖² over the samples in `rows`, where a are
    the weights of exponential Adams–Bashforth, which rules where the data say nothing.
    """

    order = 1
    multistep = True

    def __init__(self, truth: Reference, rows: slice, ridge: float, robustness: float) -> None:
        self.truth, self.rows, self.ridge, self.robustness = truth, rows, ridge, robustness
        self.table: list[tuple[float, ...]] = []

    def unscaled_step(self, x: Tensor, start: Point, end: Point, memory: tuple[Tensor, list[float]] | None) -> Step:
        sigma = start.sigma
        denoised = yield Request(x, sigma)
        past, nodes = memory if memory is not None else (x.new_empty(*x.shape, 0), [])
        past, nodes = torch.cat([past, ((x - denoised) / sigma)[..., None]], -1), [sigma, *nodes]
        analytic = x.new_tensor(epsilon_weights(nodes, end.sigma))
        missing = self.truth.at(end.sigma) - x
        weights = analytic + self._regress(past, missing - past @ analytic)
        self.table.append(tuple(weights.tolist()))
        return x + past @ weights, (past, nodes)

    step_to_zero = UnscaledSolver.step

    def _regress(self, past: Tensor, missing: Tensor) -> Tensor:
        """The change of weights that explains what is missing, by reweighted least squares."""
        rows, target = past[self.rows], missing[self.rows]
        design, target = rows.reshape(len(rows), -1, rows.shape[-1]), target.reshape(len(rows), -1)
        change = target.new_zeros(past.shape[-1])
        for _ in range(4):
            squares = mean_squares(target - design @ change)
            trust = 1 / (1 + squares / _scale(squares, self.robustness))
            weighted = (design * trust[:, None, None]).flatten(0, 1)
            normal = weighted.T @ design.flatten(0, 1)
            eye = torch.eye(len(change), dtype=normal.dtype, device=normal.device)
            # all ε are 0 where the denoiser changes nothing: then any weights will do
            damped = normal + (self.ridge * float(normal.diagonal().mean()) or 1.0) * eye
            change = torch.linalg.solve(damped, weighted.T @ target.flatten())
        return change


def fit_multistep(
    denoiser: Denoiser,
    num_steps: int,
    truth: Reference,
    *,
    iterations: int = 8,
    ridge: float = 1e-6,
    robustness: float = ROBUSTNESS,
    start: tuple[float, ...] | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Sampler:
    """The linear multistep solver of N evaluations, a `FittedSolver` with its levels, that ends nearest to `truth`.

    For given levels the weights are found in a single run, each row by least squares towards the exact paths, and the
    levels are moved so that what remains is least. Three quarters of the samples fit the weights during the search, all
    judge the levels; in the end all fit. `search_solver` judges the result on samples that it has not seen.

    Args:
        denoiser, num_steps, iterations, batch_size, progress: as in `optimize_steps`.
        truth: the exact paths of calibration seeds: `reference(…, execution=Execution(trajectory=True))`.
        ridge: how much the weights are drawn to the analytic ones, in units of the mean square of the ε_j.
        robustness: c² of the loss, in units of the median of e².
        start: N + 1 levels to start from. Default: the best of several EDM steps.
    """
    if truth.path is None:
        raise ValueError("truth: has no trajectory; make it by reference(…, execution=Execution(trajectory=True))")
    some = slice(0, max(1, 3 * len(truth.x) // 4))

    def make_solver() -> Solver:
        return _Stagewise(truth, some, ridge, robustness)

    how = batch_size, iterations, progress, robustness, start
    levels = _find_levels(denoiser, num_steps, truth, make_solver, *how)
    fitting = _Stagewise(truth, slice(None), ridge, robustness)
    _end(Continuous(denoiser, batch_size), truth, levels, fitting)
    return Sampler(GivenSteps(levels), FittedSolver(levels, tuple(fitting.table)))
