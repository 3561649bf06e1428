"""Flow lines of the probability-flow ODE, the densities that they cross, and how straight they are.

With x_t = s(t)·x(σ(t)) all processes have the same unscaled lines x(σ) on the same data: σ(t) and s(t) decide at which
time, and how large, a point of a line is seen, and so how straight the line looks to a solver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_integer, check_number
from diffspace.oracles import GaussianMixture
from diffspace.process import Process
from diffspace.sampling import Euler, Execution, GivenSteps, GivenTimes, Heun, Sampler, sample_from
from diffspace.sampling.solvers.base import Solver
from diffspace.studies.problems import even, quantiles, states

_FINE = 2048
_MARGIN = 1.08  # between the outermost line and the edge of the density


def _table(t: Tensor, sigma: Tensor, s: Tensor, x: Tensor) -> dict[str, list[float]]:
    """Columns t, σ, s, and x of each line."""
    table = {"t": t, "sigma": sigma, "s": s} | {f"x_{k}": line for k, line in enumerate(x.T)}
    return {name: values.tolist() for name, values in table.items()}


@dataclass(frozen=True)
class FlowLines:
    """Lines x_t of the ODE over the density p_t(x) of single numbers, from `t[0]` down to `t[-1]` = 0."""

    t: Float[Tensor, "times"]
    sigma: Float[Tensor, "times"]
    s: Float[Tensor, "times"]
    x: Float[Tensor, "times lines"]
    at: Float[Tensor, "columns"]
    """The times of the columns of `density`, rising from 0."""
    reach: float
    """The rows of `density` are at equal distances from −reach to reach."""
    density: Float[Tensor, "columns rows"]
    f: Float[Tensor, "columns"]
    """The drift coefficient of dx = f·x dt + g dω at `at`, NaN where it is not defined."""
    g: Float[Tensor, "columns"]

    def columns(self) -> dict[str, list[float]]:
        """The lines as a table: t, σ, s and x of each line."""
        return _table(self.t, self.sigma, self.s, self.x)


def check_process(process: Process, t_max: float) -> None:
    """ValueError where σ(t) or s(t) is not positive and finite between 0 and t_max, or σ(0) is not 0."""
    check_number("t_max", t_max, "(0, inf)")
    t = torch.linspace(0, t_max, _FINE, dtype=torch.float64, device="cpu")
    sigma, s = process.sigma(t), process.s(t)
    for name, values, first in (("sigma", sigma, 1), ("s", s, 0)):
        bad = ~(torch.isfinite(values) & (values > 0))[first:]
        if bool(bad.any()):
            k = first + int(bad.nonzero()[0])
            raise ValueError(
                f"{name}: expected a positive number at every t up to {t_max:g}, "
                f"got {float(values[k]):.3g} at t = {float(t[k]):.3g}"
            )
    if float(sigma[0]) != 0:
        raise ValueError(f"sigma: expected 0 at t = 0, where the data are, got {float(sigma[0]):.3g}")


def spread_times(process: Process, t_max: float, num_steps: int, *, scale: float = 0.02) -> list[float]:
    """N+1 times from t_max to 0 at which σ(t), s(t) and t itself have changed by equal amounts.

    σ counts by its logarithm above `scale`, below which nothing happens to data of about unit size.
    """
    check_integer("num_steps", num_steps, 2)
    # where σ rises slowly from 0, as t⁹ does, times must be dense near t_max, and where it falls steeply, near 0
    share = torch.linspace(0, 1, 2 * _FINE, dtype=torch.float64, device="cpu")
    t = t_max * torch.cat([share, share**4, share**12]).sort().values
    change = torch.log1p(process.sigma(t) / scale).diff().abs() + process.s(t).log().diff().abs()
    total = torch.cat([t.new_zeros(1), (change + change.sum() * 0.5 * t.diff() / t_max).cumsum(0)])
    wanted = torch.linspace(0, float(total[-1]), num_steps + 1, dtype=torch.float64, device="cpu")
    above = torch.searchsorted(total, wanted).clamp(1, len(t) - 1)
    low, high = total[above - 1], total[above]
    times = t[above - 1] + (wanted - low) / (high - low).clamp_min(1e-300) * (t[above] - t[above - 1])
    times[0], times[-1] = 0.0, t_max
    return list(reversed(times.tolist()))


def flow_lines(
    data: GaussianMixture,
    process: Process,
    t_max: float,
    *,
    lines: int = 25,
    num_steps: int = 40,
    columns: int = 160,
    rows: int = 160,
    solver: Solver | None = None,
) -> FlowLines:
    """Integrate the ODE of Algorithm 1 on single numbers in the process's own time, from t_max to 0.

    The lines begin at equal shares of p_t at t_max. σ(t) need not be increasing.

    Args:
        data: a mixture of single numbers.
        process: any σ(t) and s(t), positive for t > 0, with σ(0) = 0.
        t_max: where the lines begin.
        lines: how many.
        num_steps: of the solver, placed by `spread_times`.
        columns, rows: the size of the grid of p_t(x).
        solver: of the ODE. Default: Heun's method.
    """
    if data.sample_shape != (1,):
        raise ValueError(f"data: expected single numbers, of shape (1,), got {data.sample_shape}")
    check_process(process, t_max)
    times = spread_times(process, t_max, num_steps)
    first = process.sigma(t_max)
    start = quantiles(data, even(lines), torch.tensor([first], dtype=torch.float64, device="cpu"))[0]
    sampler = Sampler(GivenTimes(tuple(times)), solver or Heun(), process)
    run = sample_from(data, start[:, None], first, sampler=sampler, execution=Execution(trajectory=True))
    t = torch.tensor(times, dtype=torch.float64, device="cpu")
    s = process.s(t)
    x = s[:, None] * states(run)[:, :, 0]
    at = torch.linspace(0, t_max, columns, dtype=torch.float64, device="cpu")
    reach = _MARGIN * float(x.abs().max())
    density = marginal(data, process.sigma(at), process.s(at), reach, rows)
    return FlowLines(t, process.sigma(t), s, x, at, reach, density, *coefficients(process, at))


def marginal(
    data: GaussianMixture, sigma: Float[Tensor, "times"], s: Float[Tensor, "times"], reach: float, rows: int
) -> Float[Tensor, "times rows"]:
    """p_t(x) = p(x/s; σ)/s of single numbers (Eq. 20) at some (σ, s), for x at equal distances from −reach to reach."""
    x = reach * torch.linspace(-1, 1, rows, dtype=torch.float64, device="cpu") / s[:, None]
    log = data.log_prob(x.reshape(-1, 1), sigma.repeat_interleave(rows)).reshape(x.shape)
    return log.exp() / s[:, None]


def coefficients(process: Process, t: Float[Tensor, "times"]) -> tuple[Float[Tensor, "times"], Float[Tensor, "times"]]:
    """f and g of dx = f·x dt + g dω (Eqs. 28, 34), NaN where they are not finite: g, where σ falls."""
    f, g = process.f(t), process.g(t)
    return torch.where(torch.isfinite(f), f, torch.nan), torch.where(torch.isfinite(g), g, torch.nan)


@dataclass(frozen=True)
class ScheduledLines:
    """Flow lines of the same data and latents under one process, over equal steps of its time from 0 to `t_max`."""

    t_max: float
    sigma: Float[Tensor, "times"]
    s: Float[Tensor, "times"]
    x: Float[Tensor, "times lines"]
    """Scaled, x_t = s(t)·x(σ(t))."""
    reach: float
    density: Float[Tensor, "times rows"]
    """p_t(x) for x at equal distances from −reach to reach."""
    deviation: float
    """How far the lines are from straight ones in x and t, as a part of the distances that they go: 0 is straight."""

    def columns(self) -> dict[str, list[float]]:
        """The lines as a table: t, σ, s and x of each line."""
        t = torch.linspace(0, self.t_max, len(self.sigma), dtype=torch.float64, device="cpu")
        return _table(t, self.sigma, self.s, self.x)


def deviation(x: Float[Tensor, "times lines *dims"]) -> float:
    """How far lines, given at equal steps of time, are from straight ones, as a part of the distances that they go."""
    u = torch.linspace(0, 1, len(x), dtype=x.dtype, device=x.device).reshape(-1, *[1] * (x.ndim - 1))
    chord = x[0] + (x[-1] - x[0]) * u
    return float((x - chord).square().mean().sqrt() / (x[-1] - x[0]).square().mean().sqrt())


def between(one: Process, end: float, other: Process, other_end: float, share: float) -> tuple[Process, float]:
    """A process on the way from one to another, and its t_max: at share 0 it is the first, at 1 the second.

    σ and s at equal parts of the times up to `end` and `other_end` are the geometric means of theirs with the weights
    1 − share and share, and so is t_max. Any process with σ(0) = 0 and s > 0 leads to the data, and this is one.
    """
    check_number("share", share, "[0, 1]")
    if share in (0, 1):
        return (other, other_end) if share else (one, end)
    t_max = end ** (1 - share) * other_end**share

    def sigma(t: Tensor) -> Any:
        u = t / t_max
        return one.sigma(u * end) ** (1 - share) * other.sigma(u * other_end) ** share

    def s(t: Tensor) -> Any:
        u = t / t_max
        return one.s(u * end) ** (1 - share) * other.s(u * other_end) ** share

    return Process(sigma=sigma, s=s, t_max=t_max), t_max


def lines_under(
    data: GaussianMixture, process: Process, t_max: float, *, lines: int = 25, columns: int = 160, rows: int = 160
) -> ScheduledLines:
    """The exact flow lines of single numbers, scaled, as a process shows them.

    Args:
        data: a mixture of single numbers.
        process, t_max: the process, and the time where the lines begin.
        lines: how many.
        columns, rows: times, and places at each.
    """
    check_process(process, t_max)
    u = torch.linspace(0, 1, columns, dtype=torch.float64, device="cpu")
    sigma, s = process.sigma(u * t_max), process.s(u * t_max)
    x = s[:, None] * quantiles(data, even(lines), sigma)
    reach = _MARGIN * float(x.abs().max())
    density = marginal(data, sigma, s, reach, rows)
    return ScheduledLines(t_max, sigma, s, x, reach, density, deviation(x))


def octave_errors(
    data: GaussianMixture, process: Process, sigma: Float[Tensor, "levels"], *, lines: int = 32
) -> Float[Tensor, "levels"]:
    """How curved flow lines are over σ: the error of one Euler step in t from σ to σ/2, against the exact line.

    RMS over the lines, unscaled, in units of the data: comparable between processes, and 0 where lines are straight.
    """
    x, exact = (quantiles(data, even(lines), level) for level in (sigma, sigma / 2))
    denoised = data(x.reshape(-1, 1), sigma.repeat_interleave(lines)).reshape(x.shape)
    t, end = process.sigma_inv(sigma), process.sigma_inv(sigma / 2)
    s, s_end = process.s(t)[:, None], process.s(end)[:, None]
    rate, drift = process.sigma_dot(t) / sigma, process.s_dot(t) / process.s(t)
    slope = (rate + drift)[:, None] * s * x - rate[:, None] * s * denoised
    reached = (s * x + (end - t)[:, None] * slope) / s_end
    return (reached - exact).square().mean(1).sqrt()


@dataclass(frozen=True)
class Tangents:
    """Unscaled lines under σ = t, s = 1, with D at some of their points: the tangent at (σ, x) meets σ = 0 at D."""

    sigma: Float[Tensor, "times"]
    x: Float[Tensor, "times lines"]
    at: Float[Tensor, "points"]
    x_at: Float[Tensor, "points lines"]
    denoised: Float[Tensor, "points lines"]


def tangents(
    data: GaussianMixture, *, sigma_max: float = 2.5, lines: int = 4, at: Sequence[float] = (2.1, 1.0, 0.4)
) -> Tangents:
    """Flow lines of σ = t, s = 1 and their tangents, which a step of Euler's method to σ = 0 follows to D(x; σ)."""
    sigma = sigma_max * torch.linspace(0, 1, 160, dtype=torch.float64, device="cpu") ** 2
    points = torch.tensor(at, dtype=torch.float64, device="cpu")
    x, x_at = (quantiles(data, even(lines), levels) for levels in (sigma, points))
    denoised = data(x_at.reshape(-1, 1), points.repeat_interleave(lines)).reshape(x_at.shape)
    return Tangents(sigma, x, points, x_at, denoised)


@dataclass(frozen=True)
class SteppedLines:
    """What a solver makes of some lines: its states between its steps, beside the exact lines."""

    sigma: Float[Tensor, "levels"]
    x: Float[Tensor, "levels lines"]
    fine: Float[Tensor, "times"]
    exact: Float[Tensor, "times lines"]
    error: float
    """RMS distance of the ends from the exact ones."""


def stepped_lines(
    data: GaussianMixture, levels: Sequence[float], *, solver: Solver | None = None, lines: int = 12
) -> SteppedLines:
    """Run a solver of the ODE with σ = t, s = 1 over given noise levels, the last of which is 0."""
    sampler = Sampler(GivenSteps(tuple(levels)), solver or Euler())
    sigma = torch.tensor(levels, dtype=torch.float64, device="cpu")
    start = quantiles(data, even(lines), sigma[:1])[0]
    run = sample_from(data, start[:, None], levels[0], sampler=sampler, execution=Execution(trajectory=True))
    fine = levels[0] * torch.linspace(0, 1, 160, dtype=torch.float64, device="cpu") ** 2
    exact = quantiles(data, even(lines), fine)
    return SteppedLines(
        sigma, states(run)[:, :, 0], fine, exact, float((run.x[:, 0] - exact[0]).square().mean().sqrt())
    )
