"""The preconditionings of Table 1, and ε-, v-, x₀- and flow-prediction as choices of the same four functions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import MOST_LEVELS, check_integer, check_number
from diffspace.process import FlowSchedule, IDDPMLevels, NoiseLevels, VPSchedule, nearest_level, round_to_levels
from diffspace.protocols import Schedule


class TimeMap(ABC):
    """The noise level as the input of a network, and the σ that the network was trained on."""

    @property
    @abstractmethod
    def sigma_range(self) -> tuple[float, float]:
        """(σ_min, σ_max) of the network."""

    @abstractmethod
    def c_noise(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The noise level as the input of the network."""

    def round_sigma(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The nearest σ that the network knows; σ itself where it was trained on a continuum."""
        return sigma


@dataclass(frozen=True)
class ContinuousTime(TimeMap):
    """c_noise = factor·σ⁻¹(σ), for times between t_min and t_max of a schedule.

    The defaults are those of VP in Table 1: factor = M − 1 = 999 and t from ε_t = 1e-5 to 1.
    """

    schedule: Schedule = field(default_factory=VPSchedule)
    factor: float = 999.0
    t_min: float = 1e-5
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_number("t_min", self.t_min, "[0, inf)")
        check_number("t_max", self.t_max, f"({self.t_min}, inf)")
        check_number("factor", self.factor)
        if self.factor == 0:
            raise ValueError("factor: 0 would give every level the same c_noise")
        low, high = self.sigma_range
        if not 0 <= low < high:
            raise ValueError(f"schedule: σ must rise from 0 or above, got {low:g} at t_min and {high:g} at t_max")

    @property
    def sigma_range(self) -> tuple[float, float]:
        ends = self.schedule.sigma(torch.tensor([self.t_min, self.t_max], dtype=torch.float64, device="cpu"))
        return float(ends[0]), float(ends[1])

    def c_noise(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return self.factor * self.schedule.sigma_inv(sigma)


@dataclass(frozen=True)
class LevelIndex(TimeMap):
    """c_noise = n, the index of the trained level nearest to σ; `round_sigma` returns that level."""

    levels: NoiseLevels
    _table: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # computed here, not at the first use, so that torch.compile and torch.export can trace its users
        object.__setattr__(self, "_table", self.levels.table())

    @property
    def sigma_range(self) -> tuple[float, float]:
        return float(self._table[0]), float(self._table[-1])

    def _table_for(self, sigma: Tensor) -> Tensor:
        return self._table.to(sigma.device, torch.promote_types(sigma.dtype, torch.float32))

    def c_noise(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return nearest_level(self._table_for(sigma), sigma).to(sigma.dtype)

    def round_sigma(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return round_to_levels(self._table_for(sigma), sigma)


@dataclass(frozen=True)
class InterpolatedIndex(LevelIndex):
    """c_noise = n + ln(σ/σ_n)/ln(σ_{n+1}/σ_n), the index of the trained levels made continuous in ln σ.

    A trained level has its integer index; σ outside the table has the index of the nearer end. For networks that accept
    any real time, such as those with the sinusoidal embeddings of DDPM.
    """

    def c_noise(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        table = self._table_for(sigma)
        if len(table) == 1:
            return torch.zeros_like(sigma)
        within = sigma.to(table.dtype).clamp(table[0], table[-1]).contiguous()
        upper = torch.searchsorted(table, within).clamp_min(1)
        lower = upper - 1
        # ratios, because differences of logarithms in float32 would blur the index at neighbouring levels
        share = (within / table[lower]).log() / (table[upper] / table[lower]).log()
        return (lower + share).to(sigma.dtype)

    def round_sigma(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return sigma


class Coefficients(NamedTuple):
    """c_skip, c_out, c_in, each of the shape of σ."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor


class Preconditioning(TimeMap):
    """The four functions c_skip, c_out, c_in, c_noise of Eq. 7, and the σ that the network was trained on."""

    @abstractmethod
    def coefficients(self, sigma: Float[Tensor, "*batch"]) -> Coefficients:
        """c_skip, c_out and c_in at σ."""

    def weight(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The training weight λ(σ) = 1/c_out(σ)² of every column of Table 1: the loss of F is uniform in σ."""
        return self.coefficients(sigma).c_out ** -2


def _log(sigma: Tensor) -> Tensor:
    # finite at σ = 0, where c_out = 0 makes D = x for any output of the network
    return sigma.clamp_min(torch.finfo(torch.float32).tiny).log()


def _hypot(sigma: Tensor, other: float) -> Tensor:
    """√(σ² + other²)."""
    return torch.hypot(sigma, torch.full_like(sigma, other))


class _Ranged(Preconditioning):
    """A network whose range of σ is an option."""

    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        check_number("sigma_min", self.sigma_min, "[0, inf)")
        check_number("sigma_max", self.sigma_max, f"({self.sigma_min}, inf]")

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max


@dataclass(frozen=True)
class EDMPreconditioning(_Ranged):
    """The paper's, from the standard deviation σ_d of the data: unit variance in and out (Table 1, Appendix B.6).

    c_skip = σ_d²/(σ² + σ_d²), c_out = σ·σ_d/√(σ² + σ_d²), c_in = 1/√(σ² + σ_d²), c_noise = ¼·ln σ.

    Args:
        sigma_data: σ_d, the standard deviation of the data in the model's space.
        sigma_min, sigma_max: the noise levels on which the denoiser is defined.
    """

    sigma_data: float = 0.5
    sigma_min: float = 0.0
    sigma_max: float = math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("sigma_data", self.sigma_data, "(0, inf)")

    def coefficients(self, sigma: Float[Tensor, "*batch"]) -> Coefficients:
        total = _hypot(sigma, self.sigma_data)
        return Coefficients((self.sigma_data / total) ** 2, sigma * (self.sigma_data / total), 1 / total)

    def c_noise(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return _log(sigma) / 4


@dataclass(frozen=True)
class VEPreconditioning(_Ranged):
    """c_skip = 1, c_out = σ, c_in = 1, c_noise = ln(½σ): F predicts −ε, which is σ·score (Table 1, VE)."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def coefficients(self, sigma: Float[Tensor, "*batch"]) -> Coefficients:
        return Coefficients(torch.ones_like(sigma), sigma, torch.ones_like(sigma))

    def c_noise(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return _log(sigma / 2)


class _TimedPreconditioning(Preconditioning):
    """A network conditioned on a time: range, rounding and c_noise come from the map of σ to it."""

    times: TimeMap

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.times.sigma_range

    def c_noise(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return self.times.c_noise(sigma)

    def round_sigma(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return self.times.round_sigma(sigma)


class _Epsilon(_TimedPreconditioning):
    """c_skip = 1, c_out = −σ, c_in = 1/√(σ² + 1): F predicts ε."""

    def coefficients(self, sigma: Float[Tensor, "*batch"]) -> Coefficients:
        return Coefficients(torch.ones_like(sigma), -sigma, 1 / _hypot(sigma, 1.0))


@dataclass(frozen=True)
class EpsilonPrediction(_Epsilon):
    """F predicts ε from x/√(σ² + 1): D = x − σ·F. Every DDPM is one, with its own levels (`LevelIndex`)."""

    times: TimeMap = field(default_factory=ContinuousTime)


@dataclass(frozen=True)
class VPrediction(_TimedPreconditioning):
    """F predicts v = (ε − σ·x₀)/√(σ² + 1) from x/√(σ² + 1) (Salimans and Ho 2022).

    The coefficients are those of EDM for σ_data = 1, with the sign of c_out changed.
    """

    times: TimeMap = field(default_factory=ContinuousTime)

    def coefficients(self, sigma: Float[Tensor, "*batch"]) -> Coefficients:
        total = _hypot(sigma, 1.0)
        return Coefficients((1 / total) ** 2, -sigma * (1 / total), 1 / total)


@dataclass(frozen=True)
class X0Prediction(_TimedPreconditioning):
    """F predicts x₀ from x/√(σ² + 1): D = F."""

    times: TimeMap = field(default_factory=ContinuousTime)

    def coefficients(self, sigma: Float[Tensor, "*batch"]) -> Coefficients:
        return Coefficients(torch.zeros_like(sigma), torch.ones_like(sigma), 1 / _hypot(sigma, 1.0))


@dataclass(frozen=True)
class FlowPrediction(_TimedPreconditioning):
    """F predicts the velocity ε − x₀ from x/(1 + σ) = (1 − t)·x₀ + t·ε, with t = σ/(1 + σ) (rectified flow)."""

    times: TimeMap = field(default_factory=lambda: ContinuousTime(FlowSchedule(), factor=1.0, t_min=0.0))

    def coefficients(self, sigma: Float[Tensor, "*batch"]) -> Coefficients:
        s = 1 / (1 + sigma)
        return Coefficients(s, -sigma * s, s)


@dataclass(frozen=True)
class VPPreconditioning(_Epsilon):
    """ε-prediction with c_noise = (M − 1)·σ⁻¹(σ) of the VP schedule (Table 1, VP)."""

    beta_d: float = 19.9
    beta_min: float = 0.1
    epsilon_t: float = 1e-5
    M: int = 1000

    def __post_init__(self) -> None:
        check_number("epsilon_t", self.epsilon_t, "[0, 1)")
        check_integer("M", self.M, 2, MOST_LEVELS)
        times = ContinuousTime(VPSchedule(self.beta_d, self.beta_min), self.M - 1, self.epsilon_t)
        object.__setattr__(self, "times", times)


@dataclass(frozen=True)
class IDDPMPreconditioning(_Epsilon):
    """ε-prediction with c_noise = M − 1 − argmin_{j<M} |u_j − σ| (Table 1, iDDPM + DDIM)."""

    M: int = 1000
    C_1: float = 0.001
    C_2: float = 0.008

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", LevelIndex(IDDPMLevels(self.M, self.C_1, self.C_2)))
