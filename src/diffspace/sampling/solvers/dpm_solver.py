"""DPM-Solver and DPM-Solver++ (Lu et al. 2022, 2023) as published, and their kin: exponential integrators in ln σ.

All integrate the linear part of the ODE exactly: x⁺ = (m⁺/m)·x + ∫ g dμ, where g is ε in DPM-Solver and D in
DPM-Solver++ (see `quadrature`). A single step costs one evaluation for each stage, and one where it goes to σ = 0.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from diffspace._shapes import Tensor
from diffspace.checks import check_choice
from diffspace.protocols import Request
from diffspace.sampling.solvers.base import Point, Step, UnscaledSolver, combine
from diffspace.sampling.solvers.multistep import LinearMultistep
from diffspace.sampling.solvers.quadrature import Exponential, exponential_moments, line_weights, normalizer, predict


class _Stage(NamedTuple):
    """A stage at a level, or the result: ratio·x, and the weights of g at the start and at the stage before."""

    level: float
    ratio: float
    weights: tuple[float, float]


@functools.lru_cache(maxsize=4096)
def _stages(prediction: Exponential, nodes: tuple[float, ...], halved: bool, sigma: float, end: float) -> list[_Stage]:
    result = []
    for last, c in pairwise((0.0, *nodes, 1.0)):
        level = end if c == 1 else math.exp(math.log(sigma) + c * math.log(end / sigma))
        ratio = normalizer(prediction, level) / normalizer(prediction, sigma)
        mean, slope = exponential_moments(prediction, sigma, level, 2)
        weight = 0.0 if last == 0 else (0.5 * mean if halved else slope) * c / last
        result.append(_Stage(level, ratio, (mean - weight, weight)))
    return result


class _SingleStep(UnscaledSolver):
    """Stages at shares c of the step in ln σ, and the result at its end: each on a straight line through two g's.

    With e₀ and e₁ of `exponential_moments` for the part of the step up to c: ratio·x + e₀·g₀ + w·(g − g₀), where g₀ is
    that at the start, g that of the stage before, at c', and w = e₁·c/c'; or w = e₀/2·c/c' where `halved`, which is
    the same to the second order.
    """

    prediction: Exponential
    nodes: tuple[float, ...]
    halved: bool = False

    @property
    def order(self) -> int:
        return len(self.nodes) + 1

    def unscaled_step(self, x: Tensor, start: Point, end: Point, memory: None) -> Step:
        y, level, first = x, start.sigma, None
        for stage in _stages(self.prediction, self.nodes, self.halved, start.sigma, end.sigma):
            g, factor = predict(self.prediction, level, y, (yield Request(y, level)))
            first = first or (g, factor)
            terms = (first[0], stage.weights[0] * first[1]), (g, stage.weights[1] * factor)
            y, level = combine(x, stage.ratio, terms), stage.level
        return y, None


@dataclass(frozen=True)
class DPMSolver2(_SingleStep):
    """DPM-Solver-2 with r = ½ (Lu et al. 2022, Algorithm 1): the midpoint method for ε in ln σ, of second order."""

    prediction = "epsilon"
    nodes = (1 / 2,)
    halved = True


@dataclass(frozen=True)
class DPMSolver3(_SingleStep):
    """DPM-Solver-3 with r₁ = ⅓, r₂ = ⅔ (Lu et al. 2022, Algorithm 2): third order for ε in ln σ."""

    prediction = "epsilon"
    nodes = (1 / 3, 2 / 3)


@dataclass(frozen=True)
class DPMSolverPP2S(_SingleStep):
    """DPM-Solver++(2S) with r = ½ (Lu et al. 2023, Algorithm 1): `DPMSolver2` for D in place of ε."""

    prediction = "x0"
    nodes = (1 / 2,)
    halved = True


@dataclass(frozen=True)
class DPMSolverPP3S(_SingleStep):
    """DPM-Solver++(3S), as in the code of Lu et al. 2023: `DPMSolver3` for D in place of ε."""

    prediction = "x0"
    nodes = (1 / 3, 2 / 3)


@dataclass(frozen=True)
class ExponentialHeun(_SingleStep):
    """x' = ratio·x + h·φ₁·g, x⁺ = x' + h·φ₂·(g' − g): Heun's method for g in ln σ, with its linear part exact.

    The exponential Runge–Kutta method of second order with c₂ = 1 (Hochbruck and Ostermann 2005, Eq. 5.3) for D or ε.
    """

    prediction: Exponential = "x0"
    nodes = (1.0,)

    def __post_init__(self) -> None:
        check_choice("prediction", self.prediction, Exponential)


@dataclass(frozen=True)
class DPMSolverPP2M(LinearMultistep):
    """DPM-Solver++(2M) (Lu et al. 2023, Algorithm 2): x⁺ = (σ⁺/σ)·x + (1 − σ⁺/σ)·(D + h/(2h')·(D − D')).

    h and h' are this step and the one before in ln σ, D' the evaluation before. Second order; with `lower_final` the
    last step is of first order.
    """

    lower_final: bool = True
    k = 2
    prediction = "x0"
    order = 2

    def weights_at(self, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
        (mean,) = exponential_moments("x0", sigmas[0], end, 1)
        return (mean,) if len(sigmas) == 1 else line_weights(mean, 0.5 * mean, sigmas[0], sigmas[1], end)


@dataclass(frozen=True)
class DPMSolverPP3M(DPMSolverPP2M):
    """DPM-Solver++(3M) as published in its authors' code: of second order.

    x⁺ = (σ⁺/σ)·x + e₀·D + e₁·D₁ + e₂·D₂ (e of `exponential_moments`), where D₁ is the slope and D₂ the second divided
    difference of the last three D's in ln σ, in units of the step. A second difference is half of a second derivative,
    so a polynomial would have 2·e₂·D₂: that method is `AdamsBashforth(3, "x0", "log_sigma")`, of third order. With
    `lower_final` the last two steps are of lower order.
    """

    k = 3

    def weights_at(self, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
        if len(sigmas) < 3:
            return super().weights_at(sigmas, end)
        mean, slope, bend = exponential_moments("x0", sigmas[0], end, 3)
        h = math.log(sigmas[0] / end)
        before, first = math.log(sigmas[1] / sigmas[0]) / h, math.log(sigmas[2] / sigmas[0]) / h  # −u of the nodes
        # divided differences: D₂ = ((D − D')/b − (D' − D'')/(f − b))/f, D₁ = (D − D')/b + b·D₂
        curve = (1 / (before * first), -1 / (before * (first - before)), 1 / (first * (first - before)))
        line = (1 / before, -1 / before, 0.0)
        last = (1.0, 0.0, 0.0)
        return tuple(mean * a + slope * (b + before * c) + bend * c for a, b, c in zip(last, line, curve, strict=True))
