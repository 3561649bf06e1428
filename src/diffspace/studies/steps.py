"""Single steps of a solver, where they are put, and the errors that they make: Sections 3 and D.1 of the paper.

All of it is of the process σ = t, s = 1, whose ODE is dx/dσ = (x − D(x; σ))/σ, and steps are taken by the library's
own solvers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_integer, check_number
from diffspace.oracles import GaussianMixture
from diffspace.protocols import Cond, Denoiser
from diffspace.sampling import EDMSteps, Euler, Execution, GivenSteps, Heun, RungeKutta4, Sampler, sample_from
from diffspace.sampling.solvers.base import Solver
from diffspace.sampling.steps import steps_for
from diffspace.solverlab.end_points import Continuous
from diffspace.studies.problems import log_space, quantiles

RHOS = (1.0, 3.0, 7.0, 30.0)
"""The exponents ρ of Eq. 5 that figures compare: equal steps, two of the paper, and nearly equal ratios."""

SOLVERS: Mapping[str, Solver] = MappingProxyType({"Euler": Euler(), "Heun": Heun()})
"""The solvers that figures compare, by name."""

_FINE_STEP = 0.05  # of the exact trajectories, in ln σ


def _ends(
    denoiser: Denoiser,
    x: Float[Tensor, "batch *dims"],
    sigma: float,
    end: float,
    solver: Solver,
    cond: Cond | None = None,
) -> Float[Tensor, "batch *dims"]:
    """Where one step of a solver from states x at `sigma` to the level `end` leads."""
    return sample_from(denoiser, x, sigma, sampler=Sampler(GivenSteps((sigma, end)), solver), cond=cond).x


def _check_step(sigma: float, h: float, share: float) -> None:
    check_number("sigma", sigma, "(0, inf)")
    check_number("share", share, "(0, 1)")
    check_number("h", h, "(0, inf)")
    if not h < sigma:
        raise ValueError(f"h: expected a step of less than sigma = {sigma:g}, which leads above 0, got {h:g}")


@dataclass(frozen=True)
class OneStep:
    """A step from σ to σ − h by Euler's and by Heun's method, beside the exact line through its start."""

    sigma: float
    h: float
    fine: Float[Tensor, "times"]
    exact: Float[Tensor, "times"]
    """The line x(σ) at `fine`, which reaches a little beyond both ends of the step."""
    start: float
    """x at σ."""
    end: float
    """x at σ − h on the exact line."""
    euler: float
    """Where Euler's method ends, which is the trial point of Heun's."""
    heun: float
    """Where Heun's method ends."""
    slope: float
    """dx/dσ at the start: of the tangent, which Euler's method follows."""
    trial_slope: float
    """dx/dσ at the trial point."""

    def columns(self) -> dict[str, list[float | str]]:
        """The points of the step as a table: their names, σ, x, the slopes there, and the errors of the two ends."""
        low, none = self.sigma - self.h, math.nan
        return {
            "point": ["start", "exact end", "end of Euler's method, trial point", "end of Heun's method"],
            "sigma": [self.sigma, low, low, low],
            "x": [self.start, self.end, self.euler, self.heun],
            "slope": [self.slope, none, self.trial_slope, none],
            "error": [0.0, 0.0, self.euler - self.end, self.heun - self.end],
        }


def one_step(data: GaussianMixture, *, sigma: float = 1.0, h: float = 0.7, share: float = 0.35) -> OneStep:
    """Follow one flow line of single numbers for one step (Algorithm 1 of the paper, lines 4 to 8).

    Args:
        data: a mixture of single numbers.
        sigma: where the step begins.
        h: its size, less than `sigma`.
        share: which line: that with the share P(x₀ + σε ≤ x) of the noisy data below it.
    """
    _check_step(sigma, h, share)
    low = sigma - h
    fine = torch.linspace(max(low - 0.12 * h, 0.0), sigma + 0.12 * h, 160, dtype=torch.float64, device="cpu")
    u = torch.tensor([share], dtype=torch.float64, device="cpu")
    line = quantiles(data, u, torch.cat([fine.new_tensor([sigma, low]), fine]))
    start = line[:1]
    euler, heun = (_ends(data, start, sigma, low, solver) for solver in SOLVERS.values())

    def slope(x: Tensor, level: float) -> float:
        return float((x - data(x, x.new_tensor(level))) / level)

    return OneStep(
        sigma,
        h,
        fine,
        line[2:, 0],
        start=float(start),
        end=float(line[1]),
        euler=float(euler),
        heun=float(heun),
        slope=slope(start, sigma),
        trial_slope=slope(euler, low),
    )


@dataclass(frozen=True)
class LocalErrors:
    """Errors of single steps of some solvers over their size, on one flow line."""

    h: Float[Tensor, "sizes"]
    errors: Mapping[str, Float[Tensor, "sizes"]]
    """|x − exact x| at the end of a step of each size, by the name of the solver."""
    fitted: int
    """How many of the smallest sizes the slopes are fitted to."""

    @property
    def slopes(self) -> dict[str, float]:
        """d ln error/d ln h of each solver by least squares; p + 1 for a method of order p."""
        h = self.h[: self.fitted].log()
        h = (h - h.mean()) / (h - h.mean()).square().sum()
        return {name: float(h @ error[: self.fitted].log()) for name, error in self.errors.items()}

    def columns(self) -> dict[str, list[float]]:
        """h, and the error of each solver there."""
        return {"h": self.h.tolist()} | {name: error.tolist() for name, error in self.errors.items()}


def local_errors(
    data: GaussianMixture,
    *,
    sigma: float = 1.0,
    share: float = 0.35,
    largest: float = 0.7,
    sizes: int = 13,
    solvers: Mapping[str, Solver] = SOLVERS,
) -> LocalErrors:
    """The local error of one step of each solver from σ to σ − h, for h from `largest` down to 1/256 of it.

    Args:
        data: a mixture of single numbers.
        sigma, share: the start of the steps, as in `one_step`.
        largest: the largest h, less than `sigma`.
        sizes: how many h, at equal ratios; slopes are fitted to the smaller half of them.
        solvers: by name.
    """
    _check_step(sigma, largest, share)
    check_integer("sizes", sizes, 3)
    h = log_space(largest / 256, largest, sizes)
    u = torch.tensor([share], dtype=torch.float64, device="cpu")
    line = quantiles(data, u, torch.cat([h.new_tensor([sigma]), sigma - h]))
    start, exact = line[:1], line[1:]
    errors = {}
    for name, solver in solvers.items():
        ends = torch.cat([_ends(data, start, sigma, sigma - size, solver) for size in h.tolist()])
        errors[name] = (ends - exact)[:, 0].abs()
    return LocalErrors(h, errors, fitted=sizes // 2 + 1)


@dataclass(frozen=True)
class StepSizes:
    """The levels σ_0 … σ_N = 0 of Eq. 5 for several ρ."""

    rhos: tuple[float, ...]
    sigma: Float[Tensor, "rhos levels"]

    @property
    def sizes(self) -> Float[Tensor, "rhos steps"]:
        """σ_i − σ_{i+1}."""
        return self.sigma[:, :-1] - self.sigma[:, 1:]

    def columns(self) -> dict[str, list[float]]:
        """i, and σ_i for each ρ."""
        table = {"i": [float(i) for i in range(self.sigma.shape[1])]}
        return table | {f"rho_{rho:g}": self.sigma[k].tolist() for k, rho in enumerate(self.rhos)}


def step_sizes(
    rhos: Sequence[float] = RHOS, *, num_steps: int = 18, sigma_min: float = 0.002, sigma_max: float = 80.0
) -> StepSizes:
    """σ_{i<N} = (σ_max^{1/ρ} + i/(N−1)·(σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ and σ_N = 0 (Eq. 5), as `EDMSteps` has them."""
    levels = [EDMSteps(num_steps, sigma_min, sigma_max, rho=rho).sigmas() for rho in rhos]
    return StepSizes(tuple(rhos), torch.stack(levels))


def even_levels(num_steps: int, sigma_max: float) -> list[float]:
    """σ_max·(1 − i/N): N equal steps to 0."""
    return [sigma_max * (1 - i / num_steps) for i in range(num_steps + 1)]


@dataclass(frozen=True)
class TruncationErrors:
    """RMS errors of single steps that begin on exact trajectories, for several ρ and solvers."""

    rhos: tuple[float, ...]
    sigma: Float[Tensor, "rhos steps"]
    """σ_i, where each step begins; the step from σ_min to 0 is left out."""
    errors: Mapping[str, Float[Tensor, "rhos steps"]]
    """RMS over samples and elements, in units of the data, by the name of the solver."""

    def columns(self) -> dict[str, list[float]]:
        """ρ, σ_i, and the error of each solver in the step from there."""
        rho = [rho for rho in self.rhos for _ in range(self.sigma.shape[1])]
        table = {"rho": rho, "sigma": self.sigma.flatten().tolist()}
        return table | {name: error.flatten().tolist() for name, error in self.errors.items()}


def truncation_errors(
    denoiser: Denoiser,
    latents: Float[Tensor, "batch *dims"],
    *,
    rhos: Sequence[float] = RHOS,
    num_steps: int = 18,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    solvers: Mapping[str, Solver] = SOLVERS,
    cond: Cond | None = None,
) -> TruncationErrors:
    """The local truncation error over σ (Appendix D.1, Figure 13): one step from σ_i to σ_{i+1} on exact trajectories.

    The paper compares each step with 200 smaller ones between the same levels. Here one fine run of fourth order, which
    visits the levels of all ρ, gives all trajectories; it takes fewer evaluations and is closer to the truth.

    Args:
        denoiser: D(x, sigma, cond).
        latents: unit-variance noise (B, *dims), from which the trajectories start.
        rhos: exponents of Eq. 5.
        num_steps: N, at least 2.
        sigma_min, sigma_max: the range of the levels. Default: that of the denoiser.
        solvers: by name.
        cond: named conditions, one row for each sample.
    """
    check_integer("num_steps", num_steps, 2)
    ranged = steps_for(denoiser, EDMSteps(num_steps, sigma_min, sigma_max))
    levels = torch.stack([replace(ranged, rho=rho).sigmas()[:-1] for rho in rhos])
    smooth = Continuous(denoiser)
    states = _exact_states(smooth, latents, levels, cond)

    def error(solver: Solver, k: int, i: int) -> float:
        start, end = levels[k, i : i + 2].tolist()
        reached = _ends(smooth, states[k, i], start, end, solver, cond)
        return float((reached - states[k, i + 1]).square().mean().sqrt())

    errors = {
        name: levels.new_tensor([[error(solver, k, i) for i in range(num_steps - 1)] for k in range(len(levels))])
        for name, solver in solvers.items()
    }
    return TruncationErrors(tuple(rhos), levels[:, :-1], errors)


def _exact_states(
    denoiser: Denoiser, latents: Float[Tensor, "batch *dims"], levels: Float[Tensor, "rhos levels"], cond: Cond | None
) -> Float[Tensor, "rhos levels batch *dims"]:
    """The states at all levels of one fine run that starts at the highest of them."""
    low, high = float(levels.min()), float(levels.max())
    fill = log_space(low, high, 2 + int(math.log(high / low) / _FINE_STEP))
    knots = torch.cat([levels.flatten(), fill]).sort(descending=True).values
    # equal levels of several ρ differ by their rounding
    knots = knots[torch.cat([knots.new_ones(1), knots[:-1] / knots[1:] - 1]) > 1e-9]
    sampler, execution = Sampler(GivenSteps(tuple(knots.tolist())), RungeKutta4()), Execution(trajectory=True)
    start = high * latents.to(torch.float64)
    run = sample_from(denoiser, start, float(knots[0]), sampler=sampler, cond=cond, execution=execution)
    path = torch.stack([run.x]) if run.trajectory is None else run.trajectory.x
    return path[(knots - levels[..., None]).abs().argmin(-1).to(path.device)]
