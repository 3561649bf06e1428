"""DPM-Solver and DPM-Solver++ (Lu et al. 2022, 2023) as published, and their kin: exponential integrators in ln σ.

All take the linear part of the ODE exactly: x⁺ = (m⁺/m)·x + ∫ g dμ, and differ in what they make of g (see
`quadrature`): ε in DPM-Solver, D in DPM-Solver++.
"""

from __future__ import annotations

import functools
import math
from abc import ABC
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

from diffspace._shapes import Tensor
from diffspace.protocols import Request, SigmaPath, Step
from diffspace.sampling.solvers.combination import combine
from diffspace.sampling.solvers.multistep import LinearMultistep
from diffspace.sampling.solvers.quadrature import (
    Exponential,
    check_choice,
    exponential_moments,
    line_weights,
    normalizer,
    predict,
)

__all__ = [
    "DPMSolver2",
    "DPMSolver3",
    "DPMSolverPP2M",
    "DPMSolverPP2S",
    "DPMSolverPP3M",
    "DPMSolverPP3S",
    "ExponentialHeun",
]


class _Stage(NamedTuple):
    """A stage at a level, or the result: ratio·x, and what g at the start and at the stage before count for."""

    level: float
    ratio: float
    weights: tuple[float, float]

    def state(self, x: Tensor, *gs: tuple[Tensor, float]) -> Tensor:
        pairs = zip(gs, self.weights, strict=True)
        return combine(x, self.ratio, ((value, weight * factor) for (value, factor), weight in pairs))


@functools.lru_cache(maxsize=4096)
def _stages(
    prediction: Exponential, nodes: tuple[float, ...], halved: bool, sigma: float, end: float
) -> tuple[_Stage, ...]:
    result = []
    for last, c in pairwise((0.0, *nodes, 1.0)):
        level = end if c == 1 else math.exp(math.log(sigma) + c * math.log(end / sigma))
        ratio = normalizer(prediction, level) / normalizer(prediction, sigma)
        mean, slope = exponential_moments(prediction, sigma, level, 2)
        weight = 0.0 if last == 0 else (0.5 * mean if halved else slope) * c / last
        result.append(_Stage(level, ratio, (mean - weight, weight)))
    return tuple(result)


class _SingleStep(ABC):
    """Stages at shares c of the step in ln σ, and at its end the result: each on a straight line through two g's.

    With e₀ and e₁ of `exponential_moments` for the part of the step up to c: ratio·x + e₀·g₀ + w·(g − g₀), where g₀ is
    that at the start, g that of the stage before, at c', and w = e₁·c/c'; or e₀/2·c/c', which is the same to the
    second order, where `halved`.
    """

    multistep: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False
    prediction: Exponential
    nodes: tuple[float, ...]
    halved: bool = False

    @property
    def order(self) -> int:
        return len(self.nodes) + 1

    def evaluations(self, to_zero: bool) -> int:
        return 1 if to_zero else len(self.nodes) + 1

    def step(self, path: SigmaPath, x: Tensor, t: float, t_next: float, memory: None) -> Step:
        (sigma, s), (end, s_end) = path.level(t), path.level(t_next)
        x = x if s == 1 else x / s
        denoised = yield Request(x, sigma)
        if end == 0:
            return denoised if s_end == 1 else denoised * s_end, None
        start = latest = predict(self.prediction, sigma, x, denoised)
        *between, last = _stages(self.prediction, self.nodes, self.halved, sigma, end)
        for stage in between:
            y = stage.state(x, start, latest)
            denoised = yield Request(y, stage.level)
            latest = predict(self.prediction, stage.level, y, denoised)
        x = last.state(x, start, latest)
        return x if s_end == 1 else x * s_end, None


@dataclass(frozen=True)
class DPMSolver2(_SingleStep):
    """DPM-Solver-2 with r = ½ (Lu et al. 2022, Algorithm 1): the midpoint method for ε in ln σ.

    Second order; two evaluations a step, one in a step to σ = 0.
    """

    prediction = "epsilon"
    nodes = (1 / 2,)
    halved = True


@dataclass(frozen=True)
class DPMSolver3(_SingleStep):
    """DPM-Solver-3 with r₁ = ⅓, r₂ = ⅔ (Lu et al. 2022, Algorithm 2): third order for ε in ln σ.

    Three evaluations a step, one in a step to σ = 0.
    """

    prediction = "epsilon"
    nodes = (1 / 3, 2 / 3)


@dataclass(frozen=True)
class DPMSolverPP2S(_SingleStep):
    """DPM-Solver++(2S) with r = ½ (Lu et al. 2023, Algorithm 1): the midpoint method for D in ln σ.

    Second order; two evaluations a step, one in a step to σ = 0.
    """

    prediction = "x0"
    nodes = (1 / 2,)
    halved = True


@dataclass(frozen=True)
class DPMSolverPP3S(_SingleStep):
    """DPM-Solver-3 for D in place of ε (Lu et al. 2023, "3S" in their code): third order.

    Three evaluations a step, one in a step to σ = 0.
    """

    prediction = "x0"
    nodes = (1 / 3, 2 / 3)


@dataclass(frozen=True)
class ExponentialHeun(_SingleStep):
    """x' = ratio·x + h·φ₁·g, x⁺ = x' + h·φ₂·(g' − g): Heun's method for g in ln σ, with its linear part exact.

    The exponential Runge–Kutta method of second order with c₂ = 1 (Hochbruck and Ostermann 2005, Eq. 5.3) for D or ε.
    Two evaluations a step, one in a step to σ = 0.
    """

    prediction: Exponential = "x0"
    nodes = (1.0,)

    def __post_init__(self) -> None:
        check_choice("prediction", self.prediction, Exponential)


@dataclass(frozen=True)
class DPMSolverPP2M(LinearMultistep):
    """DPM-Solver++(2M) (Lu et al. 2023, Algorithm 2): x⁺ = (σ⁺/σ)·x + (1 − σ⁺/σ)·(D + h/(2h')·(D − D')).

    h and h' are this step and the one before in ln σ, D' the evaluation before. Second order; one evaluation a step.
    With `lower_final` the last step is of first order.
    """

    lower_final: bool = True
    k = 2
    prediction = "x0"

    @property
    def order(self) -> int:
        return 2

    def weights(self, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
        return _dpm_weights(sigmas, end)


@dataclass(frozen=True)
class DPMSolverPP3M(LinearMultistep):
    """DPM-Solver++(3M) as published in its authors' code: of second order.

    x⁺ = (σ⁺/σ)·x + e₀·D + e₁·D₁ + e₂·D₂ (e of `exponential_moments`), where D₁ is the slope and D₂ the second divided
    difference of the last three D's in ln σ, in units of the step. A second difference is half of a second derivative,
    so that a polynomial would have 2·e₂·D₂: that method is `AdamsBashforth(3, "x0", "log_sigma")`, of third order. One
    evaluation a step. With `lower_final` the last two steps are of lower order.
    """

    lower_final: bool = True
    k = 3
    prediction = "x0"

    @property
    def order(self) -> int:
        return 2

    def weights(self, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
        if len(sigmas) < 3:
            return _dpm_weights(sigmas, end)
        mean, slope, bend = exponential_moments("x0", sigmas[0], end, 3)
        h = math.log(sigmas[0] / end)
        before, first = math.log(sigmas[1] / sigmas[0]) / h, math.log(sigmas[2] / sigmas[0]) / h  # −u of the nodes
        # divided differences: D₂ = ((D − D')/b − (D' − D'')/(f − b))/f, D₁ = (D − D')/b + b·D₂
        curve = (1 / (before * first), -1 / (before * (first - before)), 1 / (first * (first - before)))
        line = (1 / before, -1 / before, 0.0)
        last = (1.0, 0.0, 0.0)
        return tuple(mean * a + slope * (b + before * c) + bend * c for a, b, c in zip(last, line, curve, strict=True))


def _dpm_weights(sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
    """Those of DPM-Solver++ of order 1 and 2: e₀ for D, and e₀/2 for its rise."""
    (mean,) = exponential_moments("x0", sigmas[0], end, 1)
    return (mean,) if len(sigmas) == 1 else line_weights(mean, 0.5 * mean, sigmas[0], sigmas[1], end)
