"""The small problems on which the article's statements are shown, and what is known about them in closed form."""

from __future__ import annotations

import math

import torch

from diffspace._shapes import Float, Tensor
from diffspace.oracles import GaussianMixture
from diffspace.process import CosineSchedule, FlowSchedule, Formula, Process, VESchedule, VPSchedule
from diffspace.sampling import Samples

_CELLS, _LONGEST = 192, 160  # of the grid on which quantiles are first sought; iterations, every fourth of which halves


def three_modes() -> GaussianMixture:
    """Numbers around −1, 0.2 and 1.2, on which flow lines part twice: samples of shape (1,)."""
    means = torch.tensor([[-1.0], [0.2], [1.2]], dtype=torch.float64, device="cpu")
    stds = torch.tensor([0.12, 0.08, 0.15], dtype=torch.float64, device="cpu")
    return GaussianMixture(means, stds, weights=torch.tensor([0.4, 0.25, 0.35], dtype=torch.float64, device="cpu"))


def strange_process() -> Process:
    """An unusual process that works: σ(t) rises and falls on its way, and s(t) swings around a fading signal."""
    return Process(
        sigma=Formula("3 t (1 + 0.55 sin(14 t))", "sigma"),
        s=Formula("(1 + 0.35 sin(11 t)) / sqrt(1 + 4 t^2)", "s"),
        t_max=1.0,
    )


def processes() -> dict[str, tuple[Process, float]]:
    """The processes of Table 1 and of two later papers by name, each with the time where σ(t) is 80."""
    named = {
        "VP": Process(VPSchedule()),
        "VE": Process(VESchedule()),
        "EDM": Process(),
        "cosine": Process(CosineSchedule()),
        "rectified flow": Process(FlowSchedule()),
    }
    return {name: (process, process.sigma_inv(80.0)) for name, process in named.items()}


def cumulative(
    data: GaussianMixture, x: Float[Tensor, "*points"], sigma: Float[Tensor, "*levels"]
) -> Float[Tensor, "*points"]:
    """P(x₀ + σε ≤ x) of a mixture of single numbers; σ is broadcast against x."""
    std = (data.variances[:, 0] + sigma[..., None] ** 2).sqrt()
    shares: Tensor = torch.special.ndtr((x[..., None] - data.means[:, 0]) / std)
    return (data.weights * shares).sum(-1)


def quantiles(
    data: GaussianMixture, u: Float[Tensor, "lines"], sigma: Float[Tensor, "times"]
) -> Float[Tensor, "times lines"]:
    """The x with P(x₀ + σε ≤ x) = u of a mixture of single numbers, at each σ, by Newton's method and bisection.

    In one dimension flow lines do not cross, so each of them joins the points of one u at all σ: this is the exact
    solution of the ODE, without a solver.
    """
    shape = (len(sigma), len(u))
    reach = 9 * (float(data.variances.max()) + sigma**2).sqrt()
    first, last = float(data.means.min()) - reach, float(data.means.max()) + reach
    grid = first[:, None] + (last - first)[:, None] * torch.linspace(
        0, 1, _CELLS + 1, dtype=torch.float64, device="cpu"
    )
    above = torch.searchsorted(cumulative(data, grid, sigma[:, None]), u.expand(shape).contiguous()).clamp(1, _CELLS)
    low, high = grid.gather(1, above - 1).flatten(), grid.gather(1, above).flatten()
    level, share = sigma.repeat_interleave(len(u)), u.repeat(len(sigma))
    x, spread = 0.5 * (low + high), high - low
    found, left = x.clone(), torch.arange(len(x), dtype=torch.int64, device="cpu")
    for k in range(_LONGEST):
        below, density = _law(data, x, level)
        excess = below - share
        low, high = torch.where(excess <= 0, x, low), torch.where(excess >= 0, x, high)
        newton = x - excess / density
        # Newton's steps alone would creep where there is hardly any density between two modes
        usable = newton.isfinite() & (k % 4 < 3)
        after = torch.where(usable, torch.clamp(newton, low, high), 0.5 * (low + high))
        found[left] = after
        # the error after a step of Newton's method is about the square of the step
        small = ((after - x).abs() < 1e-7 * spread) & usable
        going = ~(small | (high - low < 1e-14 * spread))
        if not bool(going.any()):
            break
        left, x, level, share = left[going], after[going], level[going], share[going]
        low, high, spread = low[going], high[going], spread[going]
    return found.reshape(shape)


def _law(data: GaussianMixture, x: Float[Tensor, "n"], sigma: Float[Tensor, "n"]) -> tuple[Tensor, Tensor]:
    """P(x₀ + σε ≤ x) and the density there."""
    std = (data.variances[:, 0] + sigma[:, None] ** 2).sqrt()
    z = (x[:, None] - data.means[:, 0]) / std
    density = torch.exp(-0.5 * z**2) / (std * math.sqrt(2 * math.pi))
    return torch.special.ndtr(z) @ data.weights, density @ data.weights


def states(run: Samples) -> Float[Tensor, "levels batch *dims"]:
    """The unscaled states of a run that kept its trajectory."""
    if run.trajectory is None:
        raise ValueError("run: has no trajectory; make it with execution=Execution(trajectory=True)")
    return run.trajectory.x


def even(count: int) -> Float[Tensor, "{count}"]:
    """The middles (i + ½)/n of n equal parts of (0, 1)."""
    return (torch.arange(count, dtype=torch.float64, device="cpu") + 0.5) / count


def log_space(low: float, high: float, count: int) -> Float[Tensor, "{count}"]:
    """Numbers at equal ratios, both ends included."""
    return torch.linspace(math.log(low), math.log(high), count, dtype=torch.float64, device="cpu").exp()
