"""Linear multistep solvers: one evaluation a step, and a combination of it with earlier ones."""

from __future__ import annotations

import functools
from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_choice, check_integer, check_number
from diffspace.protocols import Request
from diffspace.sampling.solvers.base import Point, Step, UnscaledSolver, combine
from diffspace.sampling.solvers.quadrature import Prediction, Variable, lagrange_weights, normalizer, predict


class Past(NamedTuple):
    """One earlier evaluation: its noise level, and g there as a tensor and the factor on it (see `predict`)."""

    sigma: float
    value: Tensor
    factor: float


def add_past(x: Tensor, ratio: float, past: tuple[Past, ...], weights: tuple[float, ...]) -> Tensor:
    """ratio·x + Σ_j w_j·g_j."""
    return combine(x, ratio, ((g.value, w * g.factor) for g, w in zip(past, weights, strict=True)))


class LinearMultistep(UnscaledSolver):
    """x⁺ = (m⁺/m)·x + Σ_j w_j·g_j over the last k evaluations, fewer in the first steps; a subclass gives `weights`.

    g and m are those of `prediction` (see `quadrature`). With `lower_final` the last k − 1 steps of a run use fewer
    evaluations too, down to the last one's own: steadier where few steps are long in ln σ, at the price of an error
    that falls with the square of the step for any k, with a small factor. A step to σ = 0 ends at D.
    """

    multistep = True
    k: int
    prediction: Prediction
    sigma_data: float = 1.0
    lower_final: bool = False

    @abstractmethod
    def weights(self, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
        """The weight of each g in the state at `end`; `sigmas` are the levels of the evaluations, newest first."""

    def corrected(self, x: Tensor, past: tuple[Past, ...]) -> Tensor:
        """The state at the newest evaluation, now that it is known; the others are those that led to it."""
        return x

    def unscaled_step(self, x: Tensor, start: Point, end: Point, memory: tuple[Past, ...] | None) -> Step:
        denoised = yield Request(x, start.sigma)
        newest = Past(start.sigma, *predict(self.prediction, start.sigma, x, denoised, self.sigma_data))
        past = (newest, *(memory or ()))
        left = start.steps_left if self.lower_final else self.k
        x = self.corrected(x, past[: 1 + min(self.k, left + 1)])
        used = past[: min(self.k, left)]
        m, m_end = (normalizer(self.prediction, point.sigma, self.sigma_data) for point in (start, end))
        weights = _weights(self, tuple(node.sigma for node in used), end.sigma)
        return add_past(x, m_end / m, used, weights), past[: self.k]


@functools.lru_cache(maxsize=4096)
def _weights(solver: LinearMultistep, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
    return solver.weights(sigmas, end)


def polynomial_weights(
    prediction: Prediction, variable: Variable, nodes: tuple[float, ...], end: float, sigma_data: float = 1.0
) -> tuple[float, ...]:
    """m(end)·∫ ℓ_j(u) dμ from the first node to `end`: the weights of g at each node there (see `quadrature`)."""
    at, to = (torch.tensor(values, dtype=torch.float64) for values in (nodes, end))
    weights = lagrange_weights(prediction, variable, at, to, sigma_data) * normalizer(prediction, end, sigma_data)
    return tuple(weights.tolist())


class _Polynomial(LinearMultistep):
    """The Adams–Bashforth method for `prediction` as a polynomial in `variable`."""

    variable: Variable

    def __post_init__(self) -> None:
        check_integer("k", self.k, 1, 6)

    @property
    def order(self) -> int:
        return min(self.k, 2) if self.lower_final else self.k

    def weights(self, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
        return polynomial_weights(self.prediction, self.variable, sigmas, end, self.sigma_data)

    def step_to_zero(self, x: Tensor, start: Point, end: Point, memory: tuple[Past, ...] | None) -> Step:
        """By the weights where they are finite, else to D."""
        finite = self.prediction != "x0" and self.variable != "log_sigma"
        return (self.step if finite else super().step_to_zero)(x, start, end, memory)


@dataclass(frozen=True)
class AdamsBashforth(_Polynomial):
    """The Adams–Bashforth method with weights for the actual steps: of the declared order on any steps.

    x⁺/m⁺ = x/m + Σ_j w_j·g_j over the last k evaluations, w_j = ∫ ℓ_j(u) dμ (see `quadrature`), fewer in the first
    steps, and in the last ones too with `lower_final`. `prediction` says what is interpolated (ε, x₀ or v), `variable`
    in which variable it is a polynomial:

    - ε in σ: `LMS`; ε in "vp": `DEIS`;
    - ε or x₀ in ln σ: exponential Adams–Bashforth, which DPM-Solver and DPM-Solver++ truncate;
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
        super().__post_init__()
        check_choice("prediction", self.prediction, Prediction)
        check_choice("variable", self.variable, Variable)
        check_number("sigma_data", self.sigma_data, "(0, inf)")


@dataclass(frozen=True)
class LMS(_Polynomial):
    """The linear multistep method of k-diffusion: Adams–Bashforth with ε a polynomial in σ, of order k.

    iPNDM_v is meant to be this method, but its published coefficients for unequal steps are not those of a polynomial.
    """

    k: int = 4
    prediction = "epsilon"
    variable = "sigma"


@dataclass(frozen=True)
class DEIS(_Polynomial):
    """tAB-DEIS (Zhang and Chen 2023): Adams–Bashforth with ε a polynomial in the time of a VP schedule, of order k."""

    k: int = 3
    prediction = "epsilon"
    variable = "vp"


_EQUAL_STEPS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


@dataclass(frozen=True)
class IPNDM(LinearMultistep):
    """x⁺ = x + (σ⁺ − σ)·Σ_j c_j·ε_j, c_j of Adams and Bashforth for equal steps (Zhang and Chen 2023).

    On steps that are not equal in σ the method is of second order for any k ≥ 2. It is still among the best at few
    evaluations, where the order has no effect yet. A step to σ = 0 is Euler's.
    """

    k: int = 4
    prediction = "epsilon"

    def __post_init__(self) -> None:
        check_integer("k", self.k, 1, 4)

    @property
    def order(self) -> int:
        return min(self.k, 2)

    def weights(self, sigmas: tuple[float, ...], end: float) -> tuple[float, ...]:
        return tuple((end - sigmas[0]) * c for c in _EQUAL_STEPS[len(sigmas) - 1])


def epsilon_weights(nodes: list[float], end: float, k: int = 3) -> list[float]:
    """The weights of exponential Adams–Bashforth in ε, for past evaluations latest first, returned oldest first."""
    weights = [-nodes[0]] if end == 0 else list(polynomial_weights("epsilon", "log_sigma", tuple(nodes[:k]), end))
    return [0.0] * (len(nodes) - len(weights)) + weights[::-1]
