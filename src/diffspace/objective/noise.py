"""The noise levels that training visits: p(σ) of Table 1, "Noise distribution".

Each distribution is given by its quantile function σ = Q(u), u uniform on (0, 1), so that plain and stratified
draws, bins of equal probability and plots all come from one formula.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from diffspace._shapes import Float, Tensor
from diffspace.process import IDDPMLevels, VPSchedule

__all__ = ["IDDPMUniform", "LogNormal", "LogUniform", "NoiseDistribution", "VPUniform"]


class NoiseDistribution(ABC):
    """A distribution of σ, by its quantile function."""

    @abstractmethod
    def quantile(self, u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Q(u), the σ below which a share u of the draws lies."""

    @property
    def target(self) -> NoiseDistribution:
        """p(σ), under which the loss is meant: itself, except for a distribution that draws in the place of another."""
        return self

    def from_uniform(self, u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The levels of uniform numbers in float64, kept off 0 and 1, where a quantile may be infinite."""
        tiny = torch.finfo(torch.float64).eps / 2
        return self.quantile(u.clamp(tiny, 1 - tiny))

    def importance(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """p(σ)/q(σ), by which a loss at a drawn σ is multiplied so that its mean is that under p.

        1, except for a distribution q that draws in the place of another one, p.
        """
        return torch.ones_like(sigma)

    def sample(
        self, n: int, *, stratified: bool = False, generator: torch.Generator | None = None
    ) -> Float[Tensor, "{n}"]:
        """n draws in float64 on the generator's device.

        With `stratified`, u is drawn once in each of the n intervals [i/n, (i+1)/n), which are dealt to the batch
        in random order: every element has the marginal p(σ), and a mean over the batch has less variance.
        """
        if n < 1:
            raise ValueError(f"n: {n}; want at least 1 draw")
        device = torch.device("cpu") if generator is None else generator.device
        u = torch.rand(n, dtype=torch.float64, generator=generator, device=device)
        if stratified:
            strata = torch.randperm(n, generator=generator, device=device)
            u = (strata + u) / n
        return self.from_uniform(u)


def _check(sigma_min: float, sigma_max: float) -> None:
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"sigma_min, sigma_max: {sigma_min}, {sigma_max}; want 0 < sigma_min < sigma_max")


@dataclass(frozen=True)
class LogNormal(NoiseDistribution):
    """ln σ ~ N(P_mean, P_std²) (Table 1, EDM)."""

    P_mean: float = -1.2
    P_std: float = 1.2

    def __post_init__(self) -> None:
        if not math.isfinite(self.P_mean):
            raise ValueError(f"P_mean: {self.P_mean}; want a finite number")
        if not (math.isfinite(self.P_std) and self.P_std > 0):
            raise ValueError(f"P_std: {self.P_std}; want a positive finite number")

    def quantile(self, u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        normal: Tensor = torch.special.ndtri(u)
        return (self.P_mean + self.P_std * normal).exp()


@dataclass(frozen=True)
class LogUniform(NoiseDistribution):
    """ln σ ~ U(ln σ_min, ln σ_max) (Table 1, VE)."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def __post_init__(self) -> None:
        _check(self.sigma_min, self.sigma_max)

    def quantile(self, u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** u


@dataclass(frozen=True)
class VPUniform(NoiseDistribution):
    """σ⁻¹(σ) ~ U(ε_t, 1) under the VP schedule (Table 1, VP)."""

    beta_d: float = 19.9
    beta_min: float = 0.1
    epsilon_t: float = 1e-5

    def __post_init__(self) -> None:
        VPSchedule(self.beta_d, self.beta_min)
        # with a negative β_min, σ is real from t = −2β_min/β_d on
        start = max(0.0, -2 * self.beta_min / self.beta_d)
        if not start < self.epsilon_t < 1:
            raise ValueError(f"epsilon_t: {self.epsilon_t}; want a time above {start:g} (where σ > 0), below 1")

    def quantile(self, u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return VPSchedule(self.beta_d, self.beta_min).sigma(self.epsilon_t + (1 - self.epsilon_t) * u)


@dataclass(frozen=True)
class IDDPMUniform(NoiseDistribution):
    """σ = u_j, j ~ U{0, …, M − 1} (Table 1, iDDPM + DDIM)."""

    M: int = 1000
    C_1: float = 0.001
    C_2: float = 0.008

    def __post_init__(self) -> None:
        IDDPMLevels(self.M, self.C_1, self.C_2)

    def quantile(self, u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        table = IDDPMLevels(self.M, self.C_1, self.C_2).table().to(u)
        return table[(u * self.M).long().clamp(0, self.M - 1)]
