"""Linear multistep solvers: one evaluation a step, and a polynomial through it and the ones before."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch

from edmkit._shapes import Tensor
from edmkit.protocols import Request, SigmaPath, Step
from edmkit.sampling.quadrature import Prediction, Variable, check_choice, factors, lagrange_weights, normalizer

__all__ = ["AdamsBashforth", "Past", "epsilon_weights", "predict"]


class Past(NamedTuple):
    """One earlier evaluation: its noise level and g = p·x + q·D there (see `quadrature`)."""

    sigma: float
    g: Tensor


@functools.lru_cache(maxsize=4096)
def _weights(
    prediction: Prediction, variable: Variable, nodes: tuple[float, ...], end: float, sigma_data: float
) -> tuple[float, ...]:
    at, to = (torch.tensor(values, dtype=torch.float64) for values in (nodes, end))
    return tuple(lagrange_weights(prediction, variable, at, to, sigma_data).tolist())


def predict(prediction: Prediction, sigma: float, x: Tensor, denoised: Tensor, sigma_data: float) -> Tensor:
    """g = p·x + q·D of the unscaled x."""
    p, q = factors(prediction, sigma, sigma_data)
    if p == 0:
        return denoised
    return torch.sub(x, denoised).mul_(p) if p == -q else x.mul(p).add_(denoised, alpha=q)


@dataclass(frozen=True)
class AdamsBashforth:
    """The Adams–Bashforth method with weights for the steps as they are: of the declared order on any steps.

    x⁺/m⁺ = x/m + Σ_j w_j·g_j over the last k evaluations, w_j = ∫ ℓ_j(u) dμ (see `quadrature`), fewer in the first
    steps. `prediction` says what is interpolated (ε, x₀ or v), `variable` in which variable it is a polynomial:

    - ε in σ: LMS of k-diffusion; ε in "vp": DEIS (Zhang and Chen 2023);
    - ε or x₀ in ln σ: exponential Adams–Bashforth, that is what DPM-Solver and DPM-Solver++ are truncations of;
    - v in the angle arctan(σ/σ_d): no step is singular, not even the one to σ = 0.

    A step to σ = 0 is Euler's, but for ε and v in a variable that is finite there. `sigma_data` has an effect on v and
    on the angle alone.
    """

    k: int = 3
    prediction: Prediction = "epsilon"
    variable: Variable = "log_sigma"
    sigma_data: float = 1.0
    multistep: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (isinstance(self.k, int) and 1 <= self.k <= 6):
            raise ValueError(f"k: {self.k!r}; want 1 to 6 evaluations")
        check_choice("prediction", self.prediction, Prediction)
        check_choice("variable", self.variable, Variable)
        if not (math.isfinite(self.sigma_data) and self.sigma_data > 0):
            raise ValueError(f"sigma_data: {self.sigma_data}; want a positive finite number")

    @property
    def order(self) -> int:
        return self.k

    def evaluations(self, to_zero: bool) -> int:
        return 1

    def step(self, path: SigmaPath, x: Tensor, t: float, t_next: float, memory: tuple[Past, ...] | None) -> Step:
        (sigma, s), (end, s_end) = path.level(t), path.level(t_next)
        x = x if s == 1 else x / s
        denoised = yield Request(x, sigma)
        past = (Past(sigma, predict(self.prediction, sigma, x, denoised, self.sigma_data)), *(memory or ()))[: self.k]
        x = self._advance(x, denoised, past, end)
        return x if s_end == 1 else x * s_end, past

    def _advance(self, x: Tensor, denoised: Tensor, past: tuple[Past, ...], end: float) -> Tensor:
        if end == 0 and (self.prediction == "x0" or self.variable == "log_sigma"):
            return denoised
        weights = _weights(self.prediction, self.variable, tuple(node.sigma for node in past), end, self.sigma_data)
        m_end = normalizer(self.prediction, end, self.sigma_data)
        x = x * (m_end / normalizer(self.prediction, past[0].sigma, self.sigma_data))
        for node, weight in zip(past, weights, strict=True):
            x.add_(node.g, alpha=m_end * weight)
        return x


def epsilon_weights(nodes: list[float], end: float, k: int = 3) -> list[float]:
    """The weights of exponential Adams–Bashforth in ε, for past evaluations latest first, returned oldest first."""
    used = nodes[:k]
    weights = [-nodes[0]] if end == 0 else list(_weights("epsilon", "log_sigma", tuple(used), end, 1.0))
    return [0.0] * (len(nodes) - len(weights)) + weights[::-1]
