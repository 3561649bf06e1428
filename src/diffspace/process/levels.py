"""Discrete noise levels: the table of a model that was trained on a finite set of σ."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from diffspace._shapes import Float, Int, Tensor
from diffspace.checks import MOST_LEVELS, check_integer, check_number


@runtime_checkable
class NoiseLevels(Protocol):
    """A table of trained noise levels, increasing with the network's time index n = 0, 1, …"""

    def table(self) -> Float[Tensor, "levels"]: ...


@dataclass(frozen=True)
class IDDPMLevels:
    """The levels u_j of improved DDPM (Table 1, iDDPM column; Eq. 198 of the paper).

    u_M = 0, u_{j−1} = √((u_j² + 1)/max(ᾱ_{j−1}/ᾱ_j, C_1) − 1), ᾱ_j = sin²(½π·j/(M·(C_2 + 1))), which decreases in j.
    `table` increases with the index n = M − 1 − j of the network and omits u_M = 0.
    """

    M: int = 1000
    C_1: float = 0.001
    C_2: float = 0.008

    def __post_init__(self) -> None:
        check_integer("M", self.M, 1, MOST_LEVELS)
        check_number("C_1", self.C_1, "(0, inf)")
        check_number("C_2", self.C_2, "(0, inf)")

    def table(self) -> Float[Tensor, "levels"]:
        """u_{M−1}, …, u_0 in float64."""
        return torch.tensor(_iddpm_levels(self.M, self.C_1, self.C_2), dtype=torch.float64, device="cpu")


@functools.lru_cache(maxsize=8)
def _iddpm_levels(M: int, C_1: float, C_2: float) -> tuple[float, ...]:
    def alpha_bar(j: int) -> float:
        return math.sin(0.5 * math.pi * j / (M * (C_2 + 1))) ** 2

    u, levels = 0.0, []
    for j in range(M, 0, -1):
        u = math.sqrt((u**2 + 1) / max(alpha_bar(j - 1) / alpha_bar(j), C_1) - 1)
        levels.append(u)
    return tuple(levels)


@dataclass(frozen=True)
class DiscreteLevels:
    """Any increasing levels."""

    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.sigmas, self.sigmas[1:], strict=False))
        if not self.sigmas or self.sigmas[0] <= 0 or not rising or not math.isfinite(self.sigmas[-1]):
            raise ValueError("sigmas: expected at least one level, all positive, finite and rising")

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: Float[Tensor, "levels"]) -> DiscreteLevels:
        """The levels σ_n = √((1 − a_n)/a_n) of a DDPM with the decreasing table a_n = `alphas_cumprod`."""
        a = alphas_cumprod.to(torch.float64)
        if not bool(((a > 0) & (a < 1)).all() & (a.diff() < 0).all()):
            raise ValueError("alphas_cumprod: expected falling numbers in (0, 1)")
        return cls(tuple(((1 - a) / a).sqrt().tolist()))

    def table(self) -> Float[Tensor, "levels"]:
        return torch.tensor(self.sigmas, dtype=torch.float64, device="cpu")


def nearest_level(table: Float[Tensor, "levels"], sigma: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """The index n of the level of an increasing table that is nearest to σ (the lower one in a tie)."""
    upper = torch.searchsorted(table, sigma.to(table).contiguous()).clamp(1, max(len(table) - 1, 1))
    if len(table) == 1:
        return torch.zeros_like(upper)
    nearer_lower = (sigma - table[upper - 1]) <= (table[upper] - sigma)
    return torch.where(nearer_lower, upper - 1, upper)


def round_to_levels(table: Float[Tensor, "levels"], sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The level nearest to each σ; σ = 0, where sampling ends, stays 0."""
    rounded = table[nearest_level(table, sigma)].to(sigma)
    return torch.where(sigma == 0, sigma, rounded)
