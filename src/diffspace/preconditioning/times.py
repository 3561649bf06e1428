"""Maps from σ to c_noise, for networks that were trained on times or on time indices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_number
from diffspace.process import NoiseLevels, VPSchedule, nearest_level, round_to_levels
from diffspace.protocols import Schedule


@runtime_checkable
class TimeMap(Protocol):
    """The map from σ to c_noise, the range of σ and its rounding to the levels that the network knows."""

    @property
    def sigma_range(self) -> tuple[float, float]: ...

    def c_noise(self, sigma: Tensor) -> Tensor: ...

    def round_sigma(self, sigma: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class ContinuousTime:
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
        ends = self.schedule.sigma(torch.tensor([self.t_min, self.t_max], dtype=torch.float64))
        return float(ends[0]), float(ends[1])

    def c_noise(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return self.factor * self.schedule.sigma_inv(sigma)

    def round_sigma(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return sigma


class _Index:
    """c_noise as an index into a table of trained levels."""

    levels: NoiseLevels
    _table: Tensor

    def __post_init__(self) -> None:
        # computed here, not at the first use, so that torch.compile and torch.export can trace its users
        object.__setattr__(self, "_table", self.levels.table())

    @property
    def sigma_range(self) -> tuple[float, float]:
        return float(self._table[0]), float(self._table[-1])

    def _table_for(self, sigma: Tensor) -> Tensor:
        return self._table.to(sigma.device, torch.promote_types(sigma.dtype, torch.float32))


@dataclass(frozen=True)
class LevelIndex(_Index):
    """c_noise = n, the index of the trained level nearest to σ; `round_sigma` returns that level."""

    levels: NoiseLevels

    def c_noise(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return nearest_level(self._table_for(sigma), sigma).to(sigma.dtype)

    def round_sigma(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return round_to_levels(self._table_for(sigma), sigma)


@dataclass(frozen=True)
class InterpolatedIndex(_Index):
    """c_noise = n + ln(σ/σ_n)/ln(σ_{n+1}/σ_n), the index of the trained levels made continuous in ln σ.

    A trained level has its integer index; σ outside the table has the index of the nearer end. For networks that accept
    any real time, such as those with the sinusoidal embeddings of DDPM.
    """

    levels: NoiseLevels

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
