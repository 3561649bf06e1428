"""How far from the truth: end points of the ODE to many digits, and the error of others against them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from diffspace._shapes import Float, Tensor
from diffspace.guidance.wrapper import Wrapper
from diffspace.protocols import Cond, Denoiser, TimeSteps, stated
from diffspace.sampling.driver import round_sigmas
from diffspace.sampling.runs import Trajectory, check_deterministic, home, kept_steps, sample
from diffspace.sampling.sampler import Execution, Sampler
from diffspace.sampling.solvers.multistep import AdamsBashforth
from diffspace.sampling.steps import EDMSteps, GivenTimes, RangedSteps, steps_for
from diffspace.sampling.streams import initial_latents

REFERENCE_SAMPLER = Sampler(EDMSteps(400), AdamsBashforth(4, "x0", "log_sigma"))
"""Exponential Adams–Bashforth of order 4 in x₀, with 400 EDM steps."""


class EndPointError(NamedTuple):
    """The root mean square over elements and samples, and the median over samples of each sample's root mean square.

    Few samples, those that start near a boundary between two ends, make most of the first; the second is of the rest.
    """

    rms: float
    median: float


def mean_squares(residuals: Float[Tensor, "batch *dims"]) -> Float[Tensor, "batch"]:
    """The mean square over the elements of each sample."""
    return residuals.reshape(len(residuals), -1).square().mean(1)


def end_point_error(x: Float[Tensor, "batch *dims"], exact: Float[Tensor, "batch *dims"]) -> EndPointError:
    """The distance of end points from the exact ones; ValueError where they have another shape."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x: expected a tensor such as the x of samples, got {type(x).__name__}")
    if x.shape != exact.shape:
        raise ValueError(f"x: expected the shape of the exact end points, {tuple(exact.shape)}, got {tuple(x.shape)}")
    return error_from(mean_squares(x.to(exact) - exact))


def error_from(squares: Float[Tensor, "batch"]) -> EndPointError:
    """The error of samples with these mean squares."""
    return EndPointError(float(squares.mean().sqrt()), float(squares.sqrt().median()))


@dataclass(frozen=True, eq=False)
class Reference:
    """End points x of the ODE from unit-variance `latents`, to within `error`, after `nfe` evaluations in all.

    `error` estimates the distance of x from the truth by that from the same with half the steps (`richardson`). It does
    not tell the last step, from the lowest level to 0, which all of them take alike: by default it ends at x = D, which
    is the convention of most samplers. Euler's, Heun's and Runge and Kutta's in the time of another process, and
    multistep methods whose weights reach σ = 0, end up to half of x − D at that level away from it. `path` holds the
    fine run itself, where it was kept, or every k-th of its states (`every`).
    """

    latents: Float[Tensor, "batch *dims"]
    x: Float[Tensor, "batch *dims"]
    sigmas: Float[Tensor, "levels"]
    cond: Cond | None
    error: EndPointError
    nfe: int
    path: Trajectory | None = None
    every: int = 1

    @property
    def sigma_max(self) -> float:
        """The level at which the samples start."""
        return float(self.sigmas[0])

    def at(self, sigma: float) -> Float[Tensor, "batch *dims"]:
        """The states on the exact paths at a level (`along`)."""
        return self.along(sigma)[0]

    def along(self, sigma: float) -> tuple[Float[Tensor, "batch *dims"], Float[Tensor, "batch *dims"]]:
        """The states x on the exact paths at a level, and D there, without an evaluation.

        x is the cubic Hermite interpolant in ln σ of the fine run, whose slopes are those of the ODE, x − D; its own
        slope tells D between the levels. Below the last level before 0 both are the end points; a level that is
        one of the reference's up to rounding (1e-9) is that level.
        """
        if self.path is None:
            raise ValueError("path: the reference has no trajectory; make it with execution=Execution(trajectory=True)")
        levels = self._kept
        if sigma < levels[-1] * (1 - 1e-9):
            return self.x, self.x
        if not sigma <= self.sigma_max * (1 + 1e-9):
            raise ValueError(f"sigma: {sigma:g} is above {self.sigma_max:g}, where the reference starts")
        sigma = min(max(sigma, levels[-1]), levels[0])
        right = min(max(sum(level >= sigma for level in levels), 1), len(levels) - 1)
        h = math.log(levels[right] / levels[right - 1])
        u = math.log(sigma / levels[right - 1]) / h
        ends = self.path.x[right - 1 : right + 1]
        slopes = ends - self.path.denoised[right - 1 : right + 1]
        x = ends[0] * ((1 + 2 * u) * (1 - u) ** 2) + ends[1] * (u * u * (3 - 2 * u))
        x = x + slopes[0] * (h * u * (1 - u) ** 2) - slopes[1] * (h * u * u * (1 - u))
        slope = (ends[1] - ends[0]) * (6 * u * (1 - u) / h)
        slope = slope + slopes[0] * ((1 - u) * (1 - 3 * u)) + slopes[1] * (u * (3 * u - 2))
        return x, x - slope

    @functools.cached_property
    def _kept(self) -> list[float]:
        """The levels of the states that the path holds, without 0."""
        levels: list[float] = self.sigmas[kept_steps(len(self.sigmas) - 1, self.every)[:-1]].tolist()
        return levels

    def rows(self, rows: slice) -> Reference:
        """That of some of the samples."""
        path = self.path and Trajectory(self.path.x[:, rows], self.path.denoised[:, rows])
        cond = self.cond and {name: value[rows] for name, value in self.cond.items()}
        return replace(self, latents=self.latents[rows], x=self.x[rows], cond=cond, path=path)

    def error_of(self, x: Float[Tensor, "batch *dims"]) -> EndPointError:
        """The distance of other end points from these."""
        return end_point_error(x, self.x)


def richardson(coarse: EndPointError, fine: EndPointError, order: int) -> EndPointError:
    """The error of N steps, given the distances of N/4 steps from N/2 (`coarse`) and of N/2 from N (`fine`).

    Errors that fall by the factor r with each doubling leave fine/(r − 1). r = coarse/fine is what was seen, at most
    the 2^order of the method; where steps are too few, or rounding prevails, the distances fall less, and r is taken to
    be at least 2.
    """
    ratios = [min(max(c / f, 2.0), 2.0**order) if f else 2.0 for c, f in zip(coarse, fine, strict=True)]
    return EndPointError(*(f / (r - 1) for f, r in zip(fine, ratios, strict=True)))


class Continuous(Wrapper):
    """A denoiser at any σ, without the rounding to levels that it states, which would make σ jump, and without a range.

    It evaluates `batch_size` samples at a time, by default all, where the model is, and gives D where x is.
    """

    round_sigma = sigma_min = sigma_max = sampling_range = None

    def __init__(self, denoiser: Denoiser, batch_size: int | None = None) -> None:
        super().__init__(denoiser)
        self.batch_size = batch_size

    def forward(self, x: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        place, size = home(self.denoiser, x), self.batch_size or len(x)
        dtype = torch.float32 if place.type == "mps" else x.dtype
        parts = []
        for first in range(0, len(x), size):
            rows = slice(first, first + size)
            own = cond and {name: value[rows].to(place) for name, value in cond.items()}
            levels = (sigma if sigma.ndim == 0 else sigma[rows]).to(place, dtype)
            parts.append(self.denoiser(x[rows].to(place, dtype), levels, own).to(x))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _between_known_levels(denoiser: Denoiser, steps: TimeSteps | GivenTimes) -> TimeSteps | GivenTimes:
    """The steps with their first and last level as the model rounds them: samplers start and end there."""
    if not isinstance(steps, RangedSteps):
        return steps
    ends = torch.tensor([steps.sigma_min, steps.sigma_max], dtype=torch.float64, device="cpu")
    low, high = round_sigmas(denoiser, ends).tolist()
    return replace(steps, sigma_min=low, sigma_max=high)


def reference(
    denoiser: Denoiser,
    *,
    seeds: Sequence[int] | None = None,
    shape: Sequence[int] | None = None,
    latents: Float[Tensor, "batch *dims"] | None = None,
    cond: Cond | None = None,
    sampler: Sampler | None = None,
    execution: Execution | None = None,
) -> Reference:
    """The end points that every solver of the ODE should reach, and how well they are known.

    Args:
        denoiser, seeds, shape, latents, cond: as in `sample`.
        sampler: run with its N steps, and with N/2 and N/4 to tell the error; N is even and at least 8. Default:
            `REFERENCE_SAMPLER`, 400 steps of a method of fourth order. Of the levels of a model that has a table, the
            first and the last are rounded, those between are not.
        execution: as in `sample`; `trajectory` keeps the run with N steps, for `Reference.at`; some 64 states of it are
            enough to fit solvers to.
    """
    sampler, execution = sampler or REFERENCE_SAMPLER, execution or Execution()
    check_deterministic(sampler)
    num_steps = sampler.steps.num_steps
    if num_steps < 8 or num_steps % 2:
        raise ValueError(f"sampler: expected an even number of at least 8 steps, got {num_steps}")
    if latents is None:
        known = stated(denoiser, "sample_shape") if shape is None else shape
        if seeds is None or known is None:
            raise ValueError("seeds, shape: give both, or latents")
        latents = initial_latents(seeds, known)
    sampler = replace(sampler, steps=_between_known_levels(denoiser, steps_for(denoiser, sampler.steps)))
    continuous = Continuous(denoiser)
    plain = replace(execution, trajectory=False)
    coarser, coarse = (
        sample(continuous, latents=latents, cond=cond, sampler=sampler.with_num_steps(fewer), execution=plain)
        for fewer in (num_steps // 4, num_steps // 2)
    )
    fine = sample(continuous, latents=latents, cond=cond, sampler=sampler, execution=execution)
    distances = end_point_error(coarser.x, coarse.x), end_point_error(coarse.x, fine.x)
    error = richardson(*distances, sampler.solver.order)
    nfe = coarser.nfe + coarse.nfe + fine.nfe
    every = int(execution.trajectory) or 1
    return Reference(latents, fine.x, fine.sigmas, cond, error, nfe, fine.trajectory, every)
