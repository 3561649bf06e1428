"""Noise schedules σ(t) (Table 1, "Schedule") and signal scalings s(t) of x_t = s(t)·(x₀ + σ(t)·ε).

Every method takes a float or a tensor and returns the same type. Times are dimensionless; σ is in units of the data.
A scaling takes t and the schedule's σ(t), σ̇(t), so that one defined through σ works with any schedule. Closed forms
keep full relative precision near σ = 0 (expm1, log1p, products of sines); plain functions have derivatives by autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_number
from diffspace.protocols import Real


def functions(value: object) -> Any:
    """`torch` for a tensor, `math` for a number: `functions(t).sqrt(t)` works on both, and is fast on floats."""
    return torch if isinstance(value, Tensor) else math


@dataclass(frozen=True)
class NoScaling:
    """s = 1: VE, DDIM and EDM (Table 1)."""

    def s(self, t: Real, sigma: Real) -> Real:
        return 0 * t + 1.0

    def s_dot(self, t: Real, sigma: Real, sigma_dot: Real) -> Real:
        return 0 * t


@dataclass(frozen=True)
class VariancePreserving:
    """s = 1/√(1 + σ²), ṡ = −σ·σ̇·s³: data of unit variance keep it at every t (Table 1, VP)."""

    def s(self, t: Real, sigma: Real) -> Real:
        return 1 / functions(sigma).sqrt(1 + sigma**2)  # type: ignore[no-any-return]

    def s_dot(self, t: Real, sigma: Real, sigma_dot: Real) -> Real:
        return -sigma * sigma_dot * self.s(t, sigma) ** 3


@dataclass(frozen=True)
class Interpolating:
    """s = 1/(1 + σ), ṡ = −σ̇·s²: x_t runs on straight lines from data to noise (rectified flow)."""

    def s(self, t: Real, sigma: Real) -> Real:
        return 1 / (1 + sigma)

    def s_dot(self, t: Real, sigma: Real, sigma_dot: Real) -> Real:
        return -sigma_dot * self.s(t, sigma) ** 2


@dataclass(frozen=True)
class EDMSchedule:
    """σ(t) = t, with s = 1: DDIM's choice and the paper's (Section 3)."""

    scaling = NoScaling()

    def sigma(self, t: Real) -> Real:
        return t

    def sigma_dot(self, t: Real) -> Real:
        return 0 * t + 1.0

    def sigma_inv(self, sigma: Real) -> Real:
        return sigma


@dataclass(frozen=True)
class VPSchedule:
    """σ(t) = √(e^{½β_d·t² + β_min·t} − 1), t ∈ [0, 1]: the variance-preserving SDE of Song et al.

    σ̇ = ½(β_min + β_d·t)·(σ + 1/σ) and σ⁻¹(σ) = (√(β_min² + 2β_d·ln(1 + σ²)) − β_min)/β_d.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    scaling = VariancePreserving()

    def __post_init__(self) -> None:
        check_number("beta_d", self.beta_d, "(0, inf)")
        check_number("beta_min", self.beta_min, f"({-0.5 * self.beta_d}, inf)")

    @classmethod
    def spanning(cls, sigma_min: float, sigma_max: float, epsilon_s: float = 1e-3) -> VPSchedule:
        """The schedule with σ(ε_s) = σ_min and σ(1) = σ_max.

        β_min may be slightly negative, as for the paper's 0.002 and 80: σ is then real from t = −2β_min/β_d on.
        ValueError if β_d would not be positive.
        """
        for name, value in (("sigma_min", sigma_min), ("sigma_max", sigma_max), ("epsilon_s", epsilon_s)):
            check_number(name, value, "(0, inf)")
        start, end = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
        beta_d = 2 * (end - start / epsilon_s) / (1 - epsilon_s)
        if beta_d <= 0:
            raise ValueError(
                f"sigma_min, sigma_max: no VP schedule rises from σ({epsilon_s:g}) = {sigma_min:g} "
                f"to σ(1) = {sigma_max:g}; use a larger epsilon_s or a smaller sigma_min"
            )
        return cls(beta_d, end - 0.5 * beta_d)

    def sigma(self, t: Real) -> Real:
        m = functions(t)
        return m.sqrt(m.expm1((0.5 * self.beta_d * t + self.beta_min) * t))  # type: ignore[no-any-return]

    def sigma_dot(self, t: Real) -> Real:
        sigma = self.sigma(t)
        return 0.5 * (self.beta_min + self.beta_d * t) * (sigma + 1 / sigma)

    def sigma_inv(self, sigma: Real) -> Real:
        m = functions(sigma)
        log = m.log1p(sigma**2)
        root = m.sqrt(self.beta_min**2 + 2 * self.beta_d * log)
        if self.beta_min <= 0:
            return (root - self.beta_min) / self.beta_d  # type: ignore[no-any-return]
        # the same with the difference of near equals at small σ multiplied out
        return 2 * log / (root + self.beta_min)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class VESchedule:
    """σ(t) = √t: the variance-exploding SDE of Song et al."""

    scaling = NoScaling()

    def sigma(self, t: Real) -> Real:
        return functions(t).sqrt(t)  # type: ignore[no-any-return]

    def sigma_dot(self, t: Real) -> Real:
        return 0.5 / functions(t).sqrt(t)  # type: ignore[no-any-return]

    def sigma_inv(self, sigma: Real) -> Real:
        return sigma**2


@dataclass(frozen=True)
class CosineSchedule:
    """The cosine schedule of improved DDPM in continuous time, t ∈ [0, 1).

    ᾱ(t) = cos²θ(t)/cos²θ(0) with θ(t) = ½π·(t + C_2)/(1 + C_2), and σ² = 1/ᾱ − 1
    = sin(θ − θ₀)·sin(θ + θ₀)/cos²θ (Nichol and Dhariwal 2021, Eq. 17; σ is infinite at t = 1).
    """

    C_2: float = 0.008
    scaling = VariancePreserving()

    def __post_init__(self) -> None:
        check_number("C_2", self.C_2, "(0, inf)")

    @property
    def _rate(self) -> float:
        return 0.5 * math.pi / (1 + self.C_2)

    def sigma(self, t: Real) -> Real:
        m = functions(t)
        theta = self._rate * (t + self.C_2)
        product = m.sin(self._rate * t) * m.sin(theta + self._rate * self.C_2)
        return m.sqrt(product) / m.cos(theta)  # type: ignore[no-any-return]

    def sigma_dot(self, t: Real) -> Real:
        m = functions(t)
        sigma = self.sigma(t)
        return (sigma + 1 / sigma) * m.tan(self._rate * (t + self.C_2)) * self._rate  # type: ignore[no-any-return]

    def sigma_inv(self, sigma: Real) -> Real:
        m = functions(sigma)
        theta_0 = self._rate * self.C_2
        cos_0, sin_0 = math.cos(theta_0), math.sin(theta_0)
        # with h = √(1 + σ²): cos θ = cos θ₀/h, sin θ = r/h, and sin(θ − θ₀) written without cancellation
        r = m.sqrt(sigma**2 + sin_0**2)
        sine = cos_0 * sigma**2 / (r + sin_0)
        return m.atan2(sine, cos_0**2 + r * sin_0) / self._rate  # type: ignore[no-any-return]


@dataclass(frozen=True)
class FlowSchedule:
    """σ(t) = t/(1 − t), with s = 1 − t: rectified flow, x_t = (1 − t)·x₀ + t·ε, t ∈ [0, 1)."""

    scaling = Interpolating()

    def sigma(self, t: Real) -> Real:
        return t / (1 - t)

    def sigma_dot(self, t: Real) -> Real:
        return 1 / (1 - t) ** 2

    def sigma_inv(self, sigma: Real) -> Real:
        return sigma / (1 + sigma)


Function = Callable[[Tensor], Any]
"""Of a tensor of times; one with a method `derivative`, such as a `Formula`, is called with floats too."""

_GRID = 257
_MAX_ITERATIONS = 200


def _evaluate(function: Function, t: Real, name: str) -> Real:
    """function(t), a float for a float; a constant function may return a number."""
    if hasattr(function, "derivative"):  # of floats and tensors alike
        exact: Any = function
        known: Real = exact(t)
        return known
    at = t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64, device="cpu")
    value = function(at)
    if not isinstance(value, Tensor):
        value = torch.full_like(at, float(value))
    if value.shape != at.shape:
        raise ValueError(f"{name}: expected a result like the times, {tuple(at.shape)}, got {tuple(value.shape)}")
    return value if isinstance(t, Tensor) else float(value)


def _differentiate(function: Function, t: Real, name: str) -> Real:
    if hasattr(function, "derivative"):
        known: Real = function.derivative(t)
        return known
    with torch.enable_grad():
        at = t.detach() if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64, device="cpu")
        at = at.clone().requires_grad_()
        value = _evaluate(function, at, name)
        slope = torch.zeros_like(at)
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value.sum(), at, allow_unused=True, materialize_grads=True)
    return slope if isinstance(t, Tensor) else float(slope)


@dataclass(frozen=True)
class CallableSchedule:
    """σ(t) given as a function of a tensor of times, increasing from σ(0) = 0.

    `t_max` bounds the times; if it is None, σ⁻¹ extends its search as needed. σ⁻¹ brackets the root and combines Newton
    steps with bisection. ValueError if σ(t) is not increasing (use `GivenTimes` instead) or does not reach the level.
    """

    function: Function
    t_max: float | None = None
    scaling = NoScaling()

    def __post_init__(self) -> None:
        if self.t_max is not None:
            check_number("t_max", self.t_max, "(0, inf)")

    def sigma(self, t: Real) -> Real:
        return _evaluate(self.function, t, "sigma")

    def sigma_dot(self, t: Real) -> Real:
        return _differentiate(self.function, t, "sigma")

    def sigma_inv(self, sigma: Real) -> Real:
        if not isinstance(sigma, Tensor):
            return float(self._invert(torch.tensor([sigma], dtype=torch.float64, device="cpu")))
        return self._invert(sigma.detach().to(torch.float64).reshape(-1)).reshape(sigma.shape).to(sigma.dtype)

    def _upper_bound(self, largest: float) -> float:
        bound = 1.0 if self.t_max is None else self.t_max
        while self.t_max is None and self.sigma(bound) < largest and bound < 1e12:
            bound *= 2
        reached = self.sigma(bound)
        if not reached >= largest * (1 - 1e-12):
            raise ValueError(f"sigma: expected at most {reached:g}, the schedule's at t = {bound:g}, got {largest:g}")
        return bound

    def _invert(self, target: Tensor) -> Tensor:
        if target.numel() == 0:
            return target
        bound = self._upper_bound(float(target.max()))
        times = torch.linspace(0, bound, _GRID, dtype=torch.float64, device=target.device)
        grid = self.sigma(times)
        if not bool((grid.diff() > 0).all()):
            raise ValueError("sigma: σ(t) is not increasing, so it has no inverse; use GivenTimes instead")
        lowest = float(target.min())
        if not lowest >= float(grid[0]) * (1 - 1e-12):
            raise ValueError(f"sigma: expected at least {float(grid[0]):g}, the schedule's at t = 0, got {lowest:g}")
        above = torch.searchsorted(grid, target).clamp_max(_GRID - 1)
        low, high = times[(above - 1).clamp_min(0)], times[above]
        t, step = 0.5 * (low + high), high - low
        for _ in range(_MAX_ITERATIONS):
            excess = self.sigma(t) - target
            high = torch.where(excess >= 0, t, high)
            low = torch.where(excess <= 0, t, low)
            newton = t - excess / self.sigma_dot(t)
            correction = (newton - t).abs()
            found = (correction <= 4e-16 * t) | (high - low <= 4e-16 * t)
            if bool(found.all()):
                break
            # bisection where Newton leaves the bracket, or creeps
            good = (newton > low) & (newton < high) & (correction <= 0.5 * step)
            previous, t = t, torch.where(found, t, torch.where(good, newton, 0.5 * (low + high)))
            step = (t - previous).abs()
        return t


@dataclass(frozen=True)
class CallableScaling:
    """s(t) given as a function of a tensor of times, positive everywhere."""

    function: Function

    def s(self, t: Real, sigma: Real) -> Real:
        return _evaluate(self.function, t, "s")

    def s_dot(self, t: Real, sigma: Real, sigma_dot: Real) -> Real:
        return _differentiate(self.function, t, "s")
