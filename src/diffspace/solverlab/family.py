"""Linear multistep solvers of N evaluations, as what is fitted: weights by least squares, and slopes of their ends.

Step i of such a solver is written around the newest evaluation,

    x_{i+1} = D_i + a_i·(x_i − D_i) + Σ_{j<i} w_ij·(D_j − D_i),

in which the numbers are nearly independent. `FittedSolver` holds the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.protocols import Denoiser, stated
from diffspace.sampling.driver import as_tensor
from diffspace.sampling.sampler import Sampler
from diffspace.sampling.solvers.multistep import FittedSolver, polynomial_weights
from diffspace.sampling.steps import GivenSteps
from diffspace.solverlab.end_points import Continuous, Reference

_TOGETHER = 2**17  # elements of a batch, where the caller sets no limit: enough to hide the overhead of a call
_AT_HAND = 2**25  # elements of the largest tensors, 256 MiB
_DIFFERENCE = 1e-3  # of x, in units of σ, and of ln σ


class Table(NamedTuple):
    """A solver: its N levels, without the 0 at the end, and a row of numbers for each step.

    Row i holds a_i and then w_i0 … w_i,i−1.
    """

    levels: Tensor
    rows: tuple[Tensor, ...]

    @property
    def numbers(self) -> Tensor:
        """All the numbers of the rows, one after the other."""
        return torch.cat(self.rows)

    def with_numbers(self, numbers: Tensor) -> Table:
        """The same with other numbers."""
        return self._replace(rows=torch.split(numbers, [len(row) for row in self.rows]))

    def sampler(self, mean: float | None) -> Sampler:
        """The same as a `FittedSolver`."""
        levels = (*self.levels.tolist(), 0.0)
        return Sampler(GivenSteps(levels), FittedSolver(levels, tuple(tuple(row.tolist()) for row in self.rows), mean))


class Runs(NamedTuple):
    """The states x_0 … x_N and the denoised D_0 … D_{N−1} of a run, each (B, elements)."""

    states: list[Tensor]
    denoised: list[Tensor]

    @property
    def end(self) -> Tensor:
        """x_N."""
        return self.states[-1]


class Family:
    """The solvers of N evaluations for a denoiser, as functions on the calibration samples of `truth`.

    With `mean`, that of the data, the first D is this number and no evaluation: its limit as σ → ∞. There are then N+1
    levels for N evaluations. P solvers, or P changes of one, are run side by side as (P, B, elements).
    """

    tries = 8
    """How often a step of `polish` is tried, shorter and shorter."""

    def __init__(self, denoiser: Denoiser, truth: Reference, batch_size: int | None = None, mean: float | None = None):
        self.denoiser, self.truth, self.mean = denoiser, truth, mean
        self.shape = truth.x.shape[1:]
        made_for = stated(denoiser, "made_for")
        if made_for is not None and made_for(self.shape) is not None:
            raise ValueError("denoiser: holds values of each sample; a solver is fitted for any samples")
        self.start = (truth.latents.to(truth.x) * truth.sigma_max).flatten(1)
        self.ends = truth.x.flatten(1)
        self.scale = float(self.ends.std(correction=0)) or 1.0
        self.evaluations = 0
        """Of a sample, made so far."""
        self.batch_size = batch_size or max(len(self.start), _TOGETHER // self.start.shape[1])
        self._evaluate = Continuous(denoiser, self.batch_size)

    def denoise(self, i: int, x: Tensor, sigma: float, rows: slice = slice(None)) -> Tensor:
        """D_i of (…, b, elements) at a level, for some of the samples."""
        if i == 0 and self.mean is not None:
            return torch.full_like(x, self.mean)
        flat = x.reshape(-1, *self.shape)
        self.evaluations += len(flat)
        changes, cond = len(flat) // x.shape[-2], self.truth.cond
        own = cond and {name: torch.cat([value[rows]] * changes) for name, value in cond.items()}
        found: Tensor = self._evaluate(flat, as_tensor(sigma, x), own)
        return found.reshape(x.shape)

    def cost(self, table: Table, levels: bool) -> int:
        """Evaluations of a sample that `slopes` makes."""
        return slopes_cost(len(table.levels), levels)

    def nudged(self, i: int, runs: Runs, x: Tensor, levels: tuple[float, float], rows: slice) -> Tensor:
        """D_i at x, near the x_i of `runs`, some of the samples, and at the second of two levels, near the first."""
        return self.denoise(i, x, levels[1], rows)

    def run(self, table: Table) -> Runs:
        """Where the samples go."""
        states, denoised = [self.start], list[Tensor]()
        for i, row in enumerate(table.rows):
            denoised.append(self.denoise(i, states[i], float(table.levels[i])))
            states.append(_step(states[i], denoised, row))
        return Runs(states, denoised)

    def stagewise(self, levels: Tensor, rows: slice, noise: float, robustness: float) -> tuple[list[Table], Tensor]:
        """For each of P lists of levels the table whose every step leads nearest to the exact paths, and the ends.

        Row i minimises Σ_b ρ(‖x_{i+1} − x*(σ_{i+1})‖²) over the samples in `rows`, around the weights of exponential
        Adams–Bashforth, which rule where the data say no more than the `noise` of D (`regress`).
        """
        together = max(1, _AT_HAND // (self.start.numel() * (levels.shape[1] + 1)))
        groups = [self._stagewise(group, rows, noise, robustness) for group in torch.split(levels, together)]
        return [table for tables, _ in groups for table in tables], torch.cat([ends for _, ends in groups])

    def _stagewise(self, levels: Tensor, rows: slice, noise: float, robustness: float) -> tuple[list[Table], Tensor]:
        x = self.start.expand(len(levels), *self.start.shape)
        denoised: list[Tensor] = []
        found: list[Tensor] = []
        for i in range(levels.shape[1]):
            denoised.append(
                torch.stack([self.denoise(i, *each) for each in zip(x, levels[:, i].tolist(), strict=True)])
            )
            last = i + 1 == levels.shape[1]
            target = (
                self.ends if last else torch.stack([self.truth.at(s).flatten(1) for s in levels[:, i + 1].tolist()])
            )
            features = _features(x, denoised)
            prior = torch.stack([_adams_bashforth(row, last) for row in levels[:, : i + 2]])
            row = regress(features[:, rows], (target - denoised[i])[:, rows], prior, noise * self.scale, robustness)
            found.append(row)
            x = denoised[i] + (features @ row.to(features)[:, None, :, None])[..., 0]
        return [Table(levels[p], tuple(row[p] for row in found)) for p in range(len(levels))], x

    def slopes(self, table: Table, runs: Runs, levels: bool) -> Tensor:
        """d end / d (numbers, and ln σ_i of the levels but the first): (B, elements, parameters), by differences."""
        total = len(table.numbers) + (len(table.levels) - 1) * levels
        together = max(1, _AT_HAND // (self.start.shape[1] * total * (len(table.levels) + 2)))
        return torch.cat([self._slopes(table, runs, levels, rows) for rows in _blocks(len(self.start), together)])

    def _slopes(self, table: Table, runs: Runs, levels: bool, rows: slice) -> Tensor:
        runs = Runs(*([part[rows] for part in parts] for parts in runs))
        states, ds = runs
        count = len(table.numbers)
        moved = states[0].new_zeros(count + (len(table.levels) - 1) * levels, *states[0].shape)  # slopes of x_i
        denoised: list[Tensor] = []  # slopes of D_j
        live: list[int] = []
        first = 0
        for i, row in enumerate(table.rows):
            own, level = torch.zeros_like(moved), float(table.levels[i])
            if live and (i > 0 or self.mean is None):
                size = moved[live].square().mean(-1, keepdim=True).sqrt()
                step = _DIFFERENCE * level / size.clamp_min(torch.finfo(moved.dtype).tiny)
                nudged = self.nudged(i, runs, states[i] + step * moved[live], (level, level), rows)
                own[live] = torch.where(size > 0, (nudged - ds[i]) / step, 0)
            if levels and i > 0:
                change = _DIFFERENCE if level * (1 + _DIFFERENCE) < self.truth.sigma_max else -_DIFFERENCE
                nudged = self.nudged(i, runs, states[i], (level, level * (1 + change)), rows)
                own[count + i - 1] = (nudged - ds[i]) / change
                live.append(count + i - 1)
            denoised.append(own)
            moved = _step(moved, denoised, row)
            features = _features(states[i], ds[: i + 1]).movedim(-1, 0)
            moved[first : first + len(row)] = features
            live += range(first, first + len(row))
            first += len(row)
        return moved.movedim(0, -1)


def slopes_cost(num_levels: int, levels: bool) -> int:
    """Evaluations of a sample that the slopes of its end take, with respect to all numbers and levels but the first."""
    n = num_levels
    return n * (n * n - 1) // 6 + levels * n * (n - 1) // 2


def _blocks(count: int, size: int) -> Iterator[slice]:
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


def _step(x: Tensor, denoised: list[Tensor], row: Tensor) -> Tensor:
    a, *weights = row.tolist()
    new: Tensor = denoised[-1] * (1 - a - sum(weights)) + x * a
    for d, weight in zip(denoised, weights, strict=False):
        new = new.add_(d, alpha=weight)
    return new


def _features(x: Tensor, denoised: list[Tensor]) -> Tensor:
    """What the numbers of a row multiply, in a last dimension."""
    return torch.stack([x - denoised[-1], *(d - denoised[-1] for d in denoised[:-1])], -1)


def _adams_bashforth(levels: Tensor, to_zero: bool) -> Tensor:
    """a and the w of exponential Adams–Bashforth of third order in x₀, for the last step of those between `levels`."""
    values = levels.tolist()
    if to_zero:
        return torch.zeros(len(values), dtype=torch.float64, device="cpu")
    *nodes, end = values
    weights = polynomial_weights("x0", "log_sigma", tuple(nodes[::-1][:3]), end)
    row = torch.zeros(len(nodes), dtype=torch.float64, device="cpu")
    row[0] = end / nodes[-1]
    for k, weight in enumerate(weights[1:]):
        row[len(nodes) - 1 - k] = weight
    return row


def in_float64(x: Tensor) -> Tensor:
    """In double precision, on a device that has it."""
    return x.cpu().double() if x.device.type == "mps" else x.double()


def robust_scale(squares: Tensor, robustness: float) -> Tensor:
    """c² of each row of squared errors, which is not 0 where most errors are, as those of finite data can be."""
    tiny = torch.finfo(squares.dtype).tiny
    return robustness * squares.median(-1).values + 1e-9 * squares.mean(-1) + tiny


def regress(features: Tensor, target: Tensor, prior: Tensor, noise: float, robustness: float) -> Tensor:
    """The weights w with features·w = target, for each of P problems by reweighted least squares.

    features (P, B, elements, k), target (P, B, elements), prior (P, k). `noise` is the standard deviation of D that is
    not to be amplified: a weight that differs from the prior by w costs as much as an error of noise·w.
    """
    features, target = in_float64(features), in_float64(target)
    row = prior.to(features)
    missing = target - (features @ row[:, None, :, None])[..., 0]
    products = features.mT @ features  # of each sample, once for all weightings
    aims = (features.mT @ missing[..., None])[..., 0]
    whole, size = missing.square().sum(-1), features.shape[2]
    change = torch.zeros_like(row)
    for _ in range(4):
        explained = (change[:, None] * (2 * aims - (products @ change[:, None, :, None])[..., 0])).sum(-1)
        squares = (whole - explained).clamp_min(0) / size
        trust = 1 / (1 + squares / robust_scale(squares, robustness)[:, None])
        normal: Tensor = torch.einsum("pb,pbij->pij", trust, products)
        aim = torch.einsum("pb,pbi->pi", trust, aims)
        diverged = ~(torch.isfinite(normal).all(2) & torch.isfinite(aim)).all(1, keepdim=True)
        normal, aim = normal.masked_fill(diverged[..., None], 0), aim.masked_fill(diverged, 0)  # the prior it is
        cost = (noise**2 * trust.sum(1) * size).nan_to_num(1.0)
        change = solve_damped(normal + torch.diag_embed(cost[:, None].expand_as(row)), aim, 0.0)
    return (row + change).cpu()


def solve_damped(normal: Tensor, aim: Tensor, damping: float) -> Tensor:
    """(A + damping·diag A)⁻¹·b, for symmetric A that may be singular: its columns are brought to one scale before."""
    diagonal = normal.diagonal(dim1=-2, dim2=-1)
    floor = 1e-24 * diagonal.amax(-1, keepdim=True) + torch.finfo(normal.dtype).tiny
    scale = (diagonal + floor).sqrt()
    scaled = normal / scale[..., :, None] / scale[..., None, :]
    eye = torch.eye(normal.shape[-1], dtype=normal.dtype, device=normal.device)
    solution: Tensor = torch.linalg.solve(scaled + (damping + 1e-14) * eye, aim / scale) / scale
    return solution
