"""Noise schedules σ(t) with derivative and inverse in closed form (Table 1, "Schedule").

Every method takes a float or a tensor and returns the same type. Times are dimensionless; σ is in units of the data.
The forms are chosen to keep full relative precision near σ = 0 (expm1, log1p, products of sines).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffspace.checks import check_number
from diffspace.process._functions import functions
from diffspace.process.scalings import Interpolating, NoScaling, VariancePreserving
from diffspace.protocols import Real


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

    scaling = VariancePreserving()

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

    def __post_init__(self) -> None:
        check_number("C_2", self.C_2, "(0, inf)")

    scaling = VariancePreserving()

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
