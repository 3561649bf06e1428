"""The stochastic part of Algorithm 2: noise added before each step, and removed by it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffspace.checks import check_number


@dataclass(frozen=True)
class Churn:
    """σ̂ = (1 + γ)·σ, γ = min(S_churn/N, √2 − 1) where S_tmin ≤ σ ≤ S_tmax, else 0 (Algorithm 2, lines 4 to 6).

    The noise that lifts x from σ to σ̂ has variance S_noise²·(σ̂² − σ²). `S_churn=0` is the deterministic sampler.
    """

    S_churn: float = 0.0
    S_tmin: float = 0.0
    S_tmax: float = math.inf
    S_noise: float = 1.0

    def __post_init__(self) -> None:
        for name in ("S_churn", "S_tmin", "S_noise"):
            check_number(name, getattr(self, name), "[0, inf)")
        if not self.S_tmax >= self.S_tmin:
            raise ValueError(f"S_tmax: expected at least S_tmin = {self.S_tmin}, got {self.S_tmax}")

    def gamma(self, sigma: float, num_steps: int) -> float:
        """γ at the noise level σ in a run of `num_steps` steps."""
        if not self.S_tmin <= sigma <= self.S_tmax:
            return 0.0
        return min(self.S_churn / num_steps, math.sqrt(2) - 1)
