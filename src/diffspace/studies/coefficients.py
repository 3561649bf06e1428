"""What the preconditioning of a network does over σ: its coefficients, and the variances and the weight they lead to.

The network's training target is F*(y, n) = (y − c_skip·(y + n))/c_out (Eq. 8), and with n = σ·ε it is a·y + b·ε.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_number
from diffspace.objective import EDMWeight, InverseVariance, NoiseDistribution, UniformWeight
from diffspace.preconditioning import (
    EDMPreconditioning,
    EpsilonPrediction,
    FlowPrediction,
    Preconditioning,
    VPrediction,
    X0Prediction,
)
from diffspace.presets import EDM, IDDPM, VE, VP

COLUMNS = {"VP": VP, "VE": VE, "iDDPM": IDDPM, "EDM": EDM}
"""Table 1 by the names of its columns."""

Weight = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CoefficientCurves:
    """c_skip, c_out, c_in and c_noise over σ, NaN where σ is outside the range of the network."""

    sigma: Float[Tensor, "levels"]
    c_skip: Float[Tensor, "levels"]
    c_out: Float[Tensor, "levels"]
    c_in: Float[Tensor, "levels"]
    c_noise: Float[Tensor, "levels"]


def column(name: str, sigma_data: float) -> Preconditioning:
    """The preconditioning of a column of Table 1; that of EDM has σ_data."""
    return EDMPreconditioning(sigma_data) if name == "EDM" else COLUMNS[name].preconditioning


def coefficient_curves(preconditioning: Preconditioning, sigma: Float[Tensor, "levels"]) -> CoefficientCurves:
    """The four functions of Eq. 7."""
    low, high = preconditioning.sigma_range
    known = (sigma >= low) & (sigma <= high)
    values = (*preconditioning.coefficients(sigma), preconditioning.c_noise(sigma))
    return CoefficientCurves(sigma, *(torch.where(known, value, torch.nan) for value in values))


@dataclass(frozen=True)
class TargetCurves:
    """What a network sees and is trained to give over σ, on data of standard deviation `sigma_data`."""

    sigma: Float[Tensor, "levels"]
    sigma_data: float
    c_out: Float[Tensor, "levels"]
    """By which the network's errors are amplified, without its sign."""
    input_variance: Float[Tensor, "levels"]
    """c_in²·(σ² + σ_data²) (Eq. 114)."""
    signal: Float[Tensor, "levels"]
    """a = (1 − c_skip)/c_out, the coefficient of y in the target."""
    noise: Float[Tensor, "levels"]
    """b = −c_skip·σ/c_out, the coefficient of ε."""
    effective_weight: Float[Tensor, "levels"]
    """λ·c_out²."""

    @property
    def target_variance(self) -> Float[Tensor, "levels"]:
        """a²·σ_data² + b² (Eq. 120)."""
        return (self.signal * self.sigma_data) ** 2 + self.noise**2

    @property
    def signal_share(self) -> Float[Tensor, "levels"]:
        """The part of the target's variance that is signal: 0 for ε-prediction, 1 for x₀-prediction."""
        return (self.signal * self.sigma_data) ** 2 / self.target_variance


def target_curves(
    preconditioning: Preconditioning, weight: Weight, sigma: Float[Tensor, "levels"], sigma_data: float
) -> TargetCurves:
    """Variances of input and target and the effective weight under a preconditioning, with the loss's weight λ(σ)."""
    check_number("sigma_data", sigma_data, "(0, inf)")
    c_skip, c_out, c_in = preconditioning.coefficients(sigma)
    return TargetCurves(
        sigma,
        sigma_data,
        c_out.abs(),
        c_in**2 * (sigma**2 + sigma_data**2),
        (1 - c_skip) / c_out,
        -c_skip * sigma / c_out,
        weight(sigma) * c_out**2,
    )


def predictions(sigma_data: float) -> dict[str, tuple[Preconditioning, Weight]]:
    """Table 1's columns with their λ, and ε-, v-, x₀- and flow-prediction with λ = 1/c_out², by name."""
    chosen: dict[str, tuple[Preconditioning, Weight]] = {}
    for name in COLUMNS:
        chosen[name] = column(name, sigma_data), EDMWeight(sigma_data) if name == "EDM" else InverseVariance()
    v, flow = VPrediction(), FlowPrediction()
    return chosen | {
        "ε": (EpsilonPrediction(), InverseVariance()),
        "v": (v, v.weight),
        "x₀": (X0Prediction(), UniformWeight()),
        "flow": (flow, flow.weight),
    }


def training_density(noise: NoiseDistribution, sigma: Float[Tensor, "levels"]) -> Float[Tensor, "levels"]:
    """The density of ln σ under a noise distribution, as means over the cells around rising levels.

    It is the slope of the inverse of the quantile function, so that discrete levels have one too.
    """
    u = torch.linspace(0, 1, 40_001, dtype=torch.float64, device="cpu")[1:-1]
    edges = sigma.log()
    middles = 0.5 * (edges[1:] + edges[:-1])
    edges = torch.cat([2 * edges[:1] - middles[:1], middles, 2 * edges[-1:] - middles[-1:]])
    levels = noise.quantile(u).log()
    above = torch.searchsorted(levels, edges).clamp(1, len(u) - 1)
    low, high = levels[above - 1], levels[above]
    share = ((edges - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    below = u[above - 1] + share * (u[above] - u[above - 1])
    # beyond the ends nothing is drawn
    below = torch.where(edges < levels[0], 0.0, torch.where(edges > levels[-1], 1.0, below))
    return below.diff() / edges.diff()
