"""Linear multistep solvers: one evaluation a step, and a combination of it and the ones before."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.protocols import Request, SigmaPath, Step
from diffspace.sampling.solvers.combination import combine
from diffspace.sampling.solvers.quadrature import (
    Prediction,
    Variable,
    check_choice,
    lagrange_weights,
    normalizer,
    predict,
)

__all__ = [
    "DEIS",
    "LMS",
    "AdamsBashforth",
    "LinearMultistep",
    "Past",
    "add_past",
    "check_count",
    "epsilon_weights",
    "polynomial_weights",
]


class Past(NamedTuple):
    """One earlier evaluation: its noise level, and g there as a tensor and the factor on it (see `predict`)."""

    sigma: float
    value: Tensor
    factor: float


def add_past(x: Tensor, ratio: float, past: tuple[Past, ...], weights: tuple[float, ...]) -> Tensor:
    """ratio·x + Σ_j w_j·g_j."""
    pairs = zip(past, weights, strict=True)
    return combine(x, ratio, ((node.value, weight * node.factor) for node, weight in pairs))


def polynomial_weights(
    prediction: Prediction, variable: Variable, nodes: tuple[float, ...], end: float, sigma_data: float = 1.0
) -> tuple[float, ...]:
    """m(end)·∫ ℓ_j(u) dμ from the first node to `end`: what g at each node counts for there (see `quadrature`)."""
    at, to = (torch.tensor(values, dtype=torch.float64) for values in (nodes, end))
    weights = lagrange_weights(prediction, variable, at, to, sigma_data) * normalizer(prediction, end, sigma_data)
    return tuple(weights.tolist())


def check_count(k: int, most: int) -> None:
    """ValueError unless k is a number of evaluations from 1 to `most`."""
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= most:
        raise ValueError(f"k: {k!r}; want 1 to {most} evaluations")


class LinearMultistep(ABC):
    """x⁺ = (m⁺/m)·x + Σ_j w_j·g_j over the last k evaluations, fewer in the first steps.

    g and m are those of `prediction` (see `quadrature`). With `lower_final` the last k − 1 steps of a run count on
    fewer evaluations too, down to the last one's own: steadier where few steps are long in ln σ, at the price of an
    error that falls with the square of the step however high k, if with a small factor. A step to σ = 0 ends at D.
    """

    multistep: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False
    k: int
    prediction: Prediction
    sigma_data: float = 1.0
    lower_final: bool = False

    @property
    @abstractmethod
    def order(self) -> int: ...

    def evaluations(self, to_zero: bool) -> int:
        return 1

    @abstractmethod
    def weights(self, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
        """What each g counts for at `end`; the levels of the evaluations, the newest first. Called once for each."""

    @property
    def reaches_zero(self) -> bool:
        """Whether the weights of a step to σ = 0 are finite."""
        return False

    def corrected(self, x: Tensor, past: tuple[Past, ...]) -> Tensor:
        """The state at the newest evaluation, now that it is known; the others are those that led to it."""
        return x

    def step(self, path: SigmaPath, x: Tensor, t: float, t_next: float, memory: tuple[Past, ...] | None) -> Step:
        (sigma, s), (end, s_end) = path.level(t), path.level(t_next)
        x = x if s == 1 else x / s
        denoised = yield Request(x, sigma)
        past = (Past(sigma, *predict(self.prediction, sigma, x, denoised, self.sigma_data)), *(memory or ()))
        if end == 0 and not self.reaches_zero:
            return denoised if s_end == 1 else denoised * s_end, None
        left = path.steps_left(t) if self.lower_final else self.k
        x = self.corrected(x, past[: 1 + min(self.k, left + 1)])
        used = past[: min(self.k, left)]
        ratio = normalizer(self.prediction, end, self.sigma_data) / normalizer(self.prediction, sigma, self.sigma_data)
        x = add_past(x, ratio, used, _weights(self, tuple(node.sigma for node in used), end))
        return x if s_end == 1 else x * s_end, past[: self.k]


@functools.lru_cache(maxsize=4096)
def _weights(solver: LinearMultistep, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
    return solver.weights(sigmas, end)


@dataclass(frozen=True)
class AdamsBashforth(LinearMultistep):
    """The Adams–Bashforth method with weights for the steps as they are: of the declared order on any steps.

    x⁺/m⁺ = x/m + Σ_j w_j·g_j over the last k evaluations, w_j = ∫ ℓ_j(u) dμ (see `quadrature`), fewer in the first
    steps, and in the last ones too with `lower_final`. `prediction` says what is interpolated (ε, x₀ or v), `variable`
    in which variable it is a polynomial:

    - ε in σ: `LMS`; ε in "vp": `DEIS`;
    - ε or x₀ in ln σ: exponential Adams–Bashforth, that is what DPM-Solver and DPM-Solver++ are truncations of;
    - v in the angle arctan(σ/σ_d): no step is singular, not even the one to σ = 0.

    A step to σ = 0 is Euler's, but for ε and v in a variable that is finite there. `sigma_data` has an effect on v and
    on the angle alone.
    """

    k: int = 3
    prediction: Prediction = "epsilon"
    variable: Variable = "log_sigma"
    sigma_data: float = 1.0
    lower_final: bool = False

    def __post_init__(self) -> None:
        check_count(self.k, 6)
        check_choice("prediction", self.prediction, Prediction)
        check_choice("variable", self.variable, Variable)
        if not (math.isfinite(self.sigma_data) and self.sigma_data > 0):
            raise ValueError(f"sigma_data: {self.sigma_data}; want a positive finite number")

    @property
    def order(self) -> int:
        return min(self.k, 2) if self.lower_final else self.k

    @property
    def reaches_zero(self) -> bool:
        return self.prediction != "x0" and self.variable != "log_sigma"

    def weights(self, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
        return polynomial_weights(self.prediction, self.variable, sigmas, end, self.sigma_data)


def LMS(k: int = 4) -> AdamsBashforth:
    """The linear multistep method of k-diffusion: Adams–Bashforth with ε a polynomial in σ, of order k.

    It is what iPNDM_v is meant to be, whose published coefficients for unequal steps are not those of a polynomial.
    """
    return AdamsBashforth(k, "epsilon", "sigma")


def DEIS(k: int = 3) -> AdamsBashforth:
    """tAB-DEIS (Zhang and Chen 2023): Adams–Bashforth with ε a polynomial in the time of a VP schedule, of order k."""
    return AdamsBashforth(k, "epsilon", "vp")


def epsilon_weights(nodes: list[float], end: float, k: int = 3) -> list[float]:
    """The weights of exponential Adams–Bashforth in ε, for past evaluations latest first, returned oldest first."""
    weights = [-nodes[0]] if end == 0 else list(polynomial_weights("epsilon", "log_sigma", tuple(nodes[:k]), end))
    return [0.0] * (len(nodes) - len(weights)) + weights[::-1]
