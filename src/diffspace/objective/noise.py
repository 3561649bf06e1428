"""The noise levels that training visits: p(σ) of Table 1, "Noise distribution".

Each distribution is given by its quantile function σ = Q(u), u uniform on (0, 1), so that plain and stratified
draws, bins of equal probability and plots all come from one formula.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_integer, check_number
from diffspace.process import IDDPMLevels, VPSchedule
from diffspace.protocols import PAPER_SIGMA_DATA

Reduce = Callable[[Tensor], Tensor]


class NoiseDistribution(ABC):
    """A distribution of σ, by its quantile function."""

    @abstractmethod
    def quantile(self, u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Q(u), the σ below which a share u of the draws lies."""

    @property
    def target(self) -> NoiseDistribution:
        """p(σ), under which the loss is meant: this one, unless it draws in the place of another."""
        return self

    def importance(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """p(σ)/q(σ), the factor by which the mean of a loss at drawn σ becomes that under p; 1 where q is p."""
        return torch.ones_like(sigma)

    def learn(
        self, step: int, sigma: Float[Tensor, "batch"], gradient: Float[Tensor, "batch"], reduce: Reduce | None = None
    ) -> None:
        """Adapt to the squared gradients of step number `step` (nothing, except in `AdaptiveNoise`).

        Args:
            step: steps taken before this one.
            sigma: the levels of this process's samples, of shape (B,).
            gradient: `Terms.gradient`, of shape (B,).
            reduce: sums a tensor over the processes, where there are several.
        """
        return

    def from_uniform(self, u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The levels of uniform numbers in float64, kept off 0 and 1, where a quantile may be infinite."""
        tiny = torch.finfo(torch.float64).eps / 2
        return self.quantile(u.clamp(tiny, 1 - tiny))

    def sample(
        self, n: int, *, stratified: bool = False, generator: torch.Generator | None = None
    ) -> Float[Tensor, "{n}"]:
        """n draws in float64 on the generator's device.

        With `stratified`, u is drawn once in each of the n intervals [i/n, (i+1)/n), in random order: every element has
        the marginal p(σ), and a mean over the batch has less variance.
        """
        check_integer("n", n, 1)
        device = torch.device("cpu") if generator is None else generator.device
        u = torch.rand(n, dtype=torch.float64, generator=generator, device=device)
        if stratified:
            strata = torch.randperm(n, generator=generator, device=device, dtype=torch.int64)
            u = (strata + u) / n
        return self.from_uniform(u)


@dataclass(frozen=True)
class LogNormal(NoiseDistribution):
    """ln σ ~ N(P_mean, P_std²) (Table 1, EDM). The defaults are for σ_data = 0.5; see `for_data`.

    Args:
        P_mean: the mean of ln σ.
        P_std: the standard deviation of ln σ.
    """

    P_mean: float = -1.2
    P_std: float = 1.2

    def __post_init__(self) -> None:
        check_number("P_mean", self.P_mean)
        check_number("P_std", self.P_std, "(0, inf)")

    @classmethod
    def for_data(cls, sigma_data: float) -> LogNormal:
        """The paper's, moved from its σ_data = 0.5: P_mean = −1.2 + ln(σ_data/0.5)."""
        check_number("sigma_data", sigma_data, "(0, inf)")
        return cls(cls.P_mean + math.log(sigma_data / PAPER_SIGMA_DATA))

    def quantile(self, u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        normal: Tensor = torch.special.ndtri(u)
        return (self.P_mean + self.P_std * normal).exp()


@dataclass(frozen=True)
class LogUniform(NoiseDistribution):
    """ln σ ~ U(ln σ_min, ln σ_max) (Table 1, VE)."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def __post_init__(self) -> None:
        check_number("sigma_min", self.sigma_min, "(0, inf)")
        check_number("sigma_max", self.sigma_max, f"({self.sigma_min}, inf)")

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
        check_number("epsilon_t", self.epsilon_t, f"({start}, 1)")

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
