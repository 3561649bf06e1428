"""Signal scalings s(t): x_t = s(t)·(x₀ + σ(t)·ε) (Section 2 of the paper).

Each takes t and the schedule's σ(t), σ̇(t), so that a scaling defined through σ works with any schedule.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffspace.process._functions import functions
from diffspace.protocols import Real


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
