"""Steps and weights found rather than guessed: the least error of end points for a denoiser and a budget.

All searches use the method of Levenberg and Marquardt, with derivatives by differences: of runs, or near the exact
paths without any. A few samples that start near the boundary between two ends have errors far above all others; the
loss Σ ln(1 + e²/c²), with c² a multiple of the median of e², lets them count no more than their share. Which multiple
is best depends on the problem (`search_solver` tries several).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.protocols import Denoiser, data_scale
from diffspace.sampling.driver import round_sigmas
from diffspace.sampling.runs import check_deterministic, sample
from diffspace.sampling.sampler import Execution, Sampler
from diffspace.sampling.solvers.base import Solver
from diffspace.sampling.start import is_finite
from diffspace.sampling.steps import EDMSteps, GivenSteps, steps_for
from diffspace.solverlab.end_points import Continuous, Reference, mean_squares
from diffspace.solverlab.family import Family, Runs, Table, in_float64, robust_scale, solve_damped
from diffspace.solverlab.near_paths import NearFamily, NearPaths
from diffspace.tensors import evaluating

Progress = Callable[[int, int, float], None]

_DIFFERENCE = 1e-4  # of the parameters of a search
SEARCHES = 4  # for levels near the exact paths, from as many starts
_MODES = 10  # how many cosines a change of the steps is made of, where there are more steps than that

ROBUSTNESS = 30.0
"""c² in units of the median of e²."""

_OF_STEPS = 3.0  # the same for steps alone, whose errors are larger


class Search(NamedTuple):
    """How a table is searched for: the most steps of Levenberg and Marquardt, c², and the noise not to be amplified."""

    iterations: int
    robustness: float
    noise: float


class Counted:
    """Tells the iterations of all searches together; a search that ends early is counted as if it had not."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def stage(self, iterations: int) -> Progress | None:
        """For a search of that many iterations."""
        if self.progress is None:
            return None
        tell, before = self.progress, self.done
        self.done += iterations
        return lambda i, _, rms: tell(before + i, self.total, rms)


class TooFewLevels(ValueError):
    """The table of a model has too few levels for a solver, or none where they are needed."""


class Spacing:
    """Levels σ_0 > … > σ_{N−1} as the exponentials of N−1 free numbers, the logarithms of the gaps in ln σ."""

    def __init__(self, denoiser: object, truth: Reference, num_steps: int) -> None:
        self.denoiser, self.num_steps = denoiser, num_steps
        self.first, self.lowest = truth.sigma_max, float(steps_for(denoiser, EDMSteps()).sigma_min or 0)
        some = torch.linspace(self.lowest, self.first, 7, dtype=torch.float64, device="cpu")
        self.continuous = torch.equal(round_sigmas(denoiser, some), some)

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

    def moves(self, table: Table) -> bool:
        """Whether small changes of the levels are possible."""
        return self.continuous and len(table.levels) > 1

    def known(self, found: tuple[float, ...]) -> tuple[float, ...]:
        """The levels as `sample` will take them: rounded to those that the model knows."""
        levels = round_sigmas(self.denoiser, torch.tensor(found, dtype=torch.float64, device="cpu"))
        if not bool((levels.diff() < 0).all()):
            raise TooFewLevels(f"num_steps: {len(levels) - 1} is more than the levels of the model allow")
        return tuple(levels.tolist())


def minimise(
    residuals: Callable[[Tensor], Tensor],
    slopes: Callable[[Tensor, Tensor], Tensor],
    at: Tensor,
    iterations: int,
    robustness: float,
    progress: Progress | None,
    costs: Tensor | None = None,
    tries: int = 8,
) -> Tensor:
    """Levenberg and Marquardt on the robust loss of residuals (B, …), whose slopes are (B, …, parameters).

    `costs`, one for each parameter, times its square are added to the mean square of an error. A step that raises the
    loss is tried shorter, `tries` times in all; then the search ends.
    """
    costs = torch.zeros_like(at) if costs is None else costs
    r, damping = residuals(at), 1e-3

    def loss_of(squares: Tensor, at: Tensor, scale: float) -> float:
        return float((squares / scale).log1p().mean()) + float(costs @ at**2) / scale

    for i in range(iterations if len(at) else 0):
        squares = mean_squares(r)
        scale = float(robust_scale(squares, robustness))
        loss = loss_of(squares, at, scale)
        if progress is not None:
            progress(i, iterations, float(squares.mean().sqrt()))
        jacobian = in_float64(slopes(at, r).reshape(len(r), -1, len(at)))
        trust = in_float64(1 / (1 + squares / scale))
        normal = torch.einsum("b,bdi,bdj->ij", trust, jacobian, jacobian).cpu()
        gradient = torch.einsum("b,bdi,bd->i", trust, jacobian, in_float64(r.reshape(len(r), -1))).cpu()
        if not (float(normal.diagonal().max()) > 0 and is_finite(normal) and is_finite(gradient)):
            break  # no small change moves an end, or it moves one out of sight
        normal, gradient = normal + costs.diag() * r.numel(), gradient + costs * at * r.numel()
        for _ in range(tries):
            move = -solve_damped(normal, gradient, damping)
            move = move * min(1.0, 1 / max(float(move.abs().max()), 1e-30))
            tried = residuals(at + move)
            if loss_of(mean_squares(tried), at + move, scale) < loss:
                break
            damping *= 8
        else:
            break
        at, r, damping = at + move, tried, max(damping / 8, 1e-9)
    return at


def _find_levels(
    ends: Callable[[list[tuple[float, ...]]], Tensor],
    truth: Reference,
    spacing: Spacing,
    iterations: int,
    robustness: float,
    progress: Progress | None,
    searches: int = 1,
) -> tuple[float, ...]:
    """The N levels, and then 0, from which runs end nearest to `truth`; `ends` makes one run for each list of levels.

    What is varied are cosines of the position along the steps, which keeps many steps smooth and the runs few. The best
    of the starts are each searched from, and the best of what they lead to is taken.
    """

    def residuals(free: Tensor) -> Tensor:
        return ends([spacing.levels(row) for row in free]) - truth.x

    def losses(free: Tensor) -> Tensor:  # of runs that diverge: infinite
        squares = mean_squares(residuals(free).flatten(0, 1)).reshape(len(free), -1)
        return squares.log().mean(1).nan_to_num(math.inf)

    starts = torch.stack(spacing.starts())
    n = starts.shape[1]
    positions = (torch.arange(n, dtype=torch.float64, device="cpu") + 0.5) / max(n, 1)
    modes = torch.cos(math.pi * positions[:, None] * torch.arange(min(n, _MODES), dtype=torch.int64, device="cpu"))

    def moved(origin: Tensor, told: Progress | None) -> Tensor:
        def slopes(at: Tensor, r: Tensor) -> Tensor:
            nudged = at + _DIFFERENCE * torch.eye(len(at), dtype=torch.float64, device="cpu")
            return ((residuals(origin + nudged @ modes.T) - r) / _DIFFERENCE).movedim(0, -1)

        def run(at: Tensor) -> Tensor:
            return residuals((origin + modes @ at)[None])[0]

        found = minimise(run, slopes, origin.new_zeros(modes.shape[1]), iterations, robustness, told)
        return origin + modes @ found

    counted = Counted(progress, searches * iterations)
    ranked = starts[losses(starts).argsort()[:searches].cpu()]
    found = torch.stack([moved(origin, counted.stage(iterations)) for origin in ranked])
    return spacing.levels(found[0] if len(found) == 1 else found[int(losses(found).argmin())])


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
    check_deterministic(Sampler(GivenSteps((1.0, 0.0)), solver))
    smooth, execution = Continuous(denoiser, batch_size), Execution(device=truth.x.device)

    def end(levels: tuple[float, ...]) -> Tensor:
        sampler = Sampler(GivenSteps(levels), solver)
        try:
            return sample(smooth, latents=truth.latents, cond=truth.cond, sampler=sampler, execution=execution).x
        except FloatingPointError:  # the solver diverges, so the search avoids it
            return torch.full_like(truth.x, math.inf)

    spacing = Spacing(denoiser, truth, num_steps)
    levels = _find_levels(
        lambda every: torch.stack([end(each) for each in every]), truth, spacing, iterations, _OF_STEPS, progress
    )
    return Sampler(GivenSteps(spacing.known(levels)), solver)


class _Polish:
    """The end of runs as a function of all the numbers of a table and, if `spacing` is given, of its levels."""

    def __init__(self, family: Family, table: Table, spacing: Spacing | None) -> None:
        self.family, self.table, self.spacing = family, table, spacing
        free = torch.zeros(0, dtype=torch.float64, device="cpu")
        if spacing is not None:
            free = spacing.starts((*table.levels.tolist(), 0.0))[0]
        self.start = torch.cat([table.numbers, free])
        self.runs = Runs([], [])  # the latest

    def _levels(self, z: Tensor) -> Tensor:
        if self.spacing is None:
            return self.table.levels
        free = z[len(self.table.numbers) :]
        return torch.tensor(self.spacing.levels(free)[:-1], dtype=torch.float64, device="cpu")

    def at(self, z: Tensor) -> Table:
        """The table that parameters describe."""
        return self.table.with_numbers(z[: len(self.table.numbers)])._replace(levels=self._levels(z))

    def residuals(self, z: Tensor) -> Tensor:
        self.runs = self.family.run(self.at(z))
        return self.runs.end - self.family.ends

    def slopes(self, z: Tensor, r: Tensor) -> Tensor:
        slopes = self.family.slopes(self.at(z), self.runs, self.spacing is not None)
        if self.spacing is None:
            return slopes
        count = len(self.table.numbers)
        moved = [
            self._levels(z + _DIFFERENCE * unit)
            for unit in torch.eye(len(z), dtype=torch.float64, device="cpu")[count:]
        ]
        gaps = torch.stack([(m / self._levels(z)).log()[1:] / _DIFFERENCE for m in moved], -1)
        return torch.cat([slopes[..., :count], slopes[..., count:] @ gaps.to(slopes)], -1)


def find_table(family: Family, near: NearPaths, spacing: Spacing, search: Search, progress: Progress | None) -> Table:
    """The levels from which stagewise fits of three quarters of the samples end nearest, and the table of all there.

    The levels are searched `near` the exact paths, without an evaluation.
    """
    iterations, robustness, noise = search
    stand_in = NearFamily(near.few(), family.mean)
    truth = stand_in.truth
    some = slice(0, max(1, 3 * len(truth.x) // 4))

    def ends(every: list[tuple[float, ...]]) -> Tensor:
        levels = torch.tensor(every, dtype=torch.float64, device="cpu")[:, :-1]
        return stand_in.stagewise(levels, some, noise, robustness)[1].reshape(len(every), *truth.x.shape)

    found = spacing.known(_find_levels(ends, truth, spacing, iterations, robustness, progress, SEARCHES))
    levels = torch.tensor([found[:-1]], dtype=torch.float64, device="cpu")
    return family.stagewise(levels, slice(None), noise, robustness)[0][0]


def polish(family: Family, table: Table, spacing: Spacing, search: Search, progress: Progress | None) -> Table:
    """The numbers and levels near those of `table` with which the runs themselves end nearest."""
    iterations, robustness, noise = search
    problem = _Polish(family, table, spacing if spacing.moves(table) else None)
    costs = torch.zeros_like(problem.start)
    costs[: len(table.numbers)] = (noise * family.scale) ** 2
    how = iterations, robustness, progress, costs, family.tries
    return problem.at(minimise(problem.residuals, problem.slopes, problem.start, *how))


def fit_multistep(
    denoiser: Denoiser,
    num_steps: int,
    truth: Reference,
    *,
    mean: float | None = None,
    iterations: int = 8,
    noise: float = 1e-5,
    robustness: float = ROBUSTNESS,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Sampler:
    """The linear multistep solver of N evaluations, a `FittedSolver` with its levels, that ends nearest to `truth`.

    For given levels the weights are found in a single run, each row by least squares towards the exact paths, and the
    levels are moved so that what remains is least. Then levels and weights are moved together, so that the ends
    themselves are nearest. `search_solver` judges the result on samples that it has not seen.

    Args:
        denoiser, num_steps, batch_size, progress: as in `optimize_steps`.
        truth: the exact paths of calibration seeds: `reference(…, execution=Execution(trajectory=True))`.
        mean: that of the data; the solver then begins with it instead of an evaluation, and takes N+1 steps.
        iterations: the most steps of Levenberg and Marquardt for the levels; half as many follow for all numbers.
        noise: that of D which weights are not to amplify, in units of the standard deviation of the data.
        robustness: c² of the loss, in units of the median of e².
    """
    if truth.path is None:
        raise ValueError("truth: has no trajectory; make it by reference(…, execution=Execution(trajectory=True))")
    with evaluating(Continuous(denoiser), grad=False):
        family, near = Family(denoiser, truth, batch_size, mean), NearPaths(denoiser, truth)
        spacing = Spacing(denoiser, truth, num_steps + (mean is not None))
        first, then = (Search(count, robustness, noise) for count in (iterations, -(-iterations // 2)))
        counted = Counted(progress, SEARCHES * first.iterations + then.iterations)
        table = find_table(family, near, spacing, first, counted.stage(SEARCHES * first.iterations))
        return polish(family, table, spacing, then, counted.stage(then.iterations)).sampler(mean)
