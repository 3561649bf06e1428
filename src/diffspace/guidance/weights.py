"""How strong guidance is at each noise level."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from diffspace._shapes import Float, Tensor
from diffspace.guidance.wrapper import column

__all__ = ["GuidanceWeight", "Interval", "as_factor", "check_weight", "guided_rows", "weight_at"]

GuidanceWeight: TypeAlias = float | Callable[[Tensor], Tensor | float]
"""w, a number or a function of σ, which is given and returns a tensor of shape () or (B,)."""


def check_weight(weight: GuidanceWeight) -> GuidanceWeight:
    """A weight as given; ValueError for what is neither a finite number nor a function."""
    if not callable(weight) and not math.isfinite(weight):
        raise ValueError(f"weight: {weight}; want a finite number or a function of sigma")
    return weight


def weight_at(weight: GuidanceWeight, sigma: Tensor) -> float | Tensor:
    """w(σ): a float where it is the same for all samples and levels, else a tensor of the shape of σ."""
    if not callable(weight):
        return float(weight)
    value = weight(sigma)
    if not isinstance(value, Tensor):
        return float(value)
    if value.shape != sigma.shape:
        raise ValueError(f"weight: gives shape {tuple(value.shape)} for sigma of shape {tuple(sigma.shape)}; want it")
    if not bool(torch.isfinite(value).all()):
        raise ValueError("weight: gives values that are not finite")
    return value


def guided_rows(weight: float | Tensor, neutral: float) -> Tensor | slice | None:
    """The samples whose weight is not `neutral`: None where there are none of them, slice(None) for all, or indices.

    A weight that is a number is looked at without waiting for a device.
    """
    if isinstance(weight, float):
        return None if weight == neutral else slice(None)
    away = weight != neutral
    count = int(away.sum())
    if count == 0:
        return None
    return slice(None) if count == away.numel() else away.nonzero().flatten()


def as_factor(weight: float | Tensor, like: Tensor) -> float | Tensor:
    """A weight as a factor of (B, *dims)."""
    return weight if isinstance(weight, float) else column(weight, like)


@dataclass(frozen=True)
class Interval:
    """w(σ) = `weight` where low < σ ≤ high, else `outside`: guidance in a limited interval (Kynkäänniemi et al. 2024).

    `weight` is a number or another function of σ. `outside` is the weight that changes nothing: 1 for `ClassifierFree`
    and `AutoGuidance`, which then spend no second evaluation; 0 for `ClassifierGuidance`.
    """

    weight: GuidanceWeight
    low: float = 0.0
    high: float = math.inf
    outside: float = 1.0

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if not 0 <= self.low < self.high:
            raise ValueError(f"low, high: {self.low}, {self.high}; want 0 ≤ low < high")
        if not math.isfinite(self.outside):
            raise ValueError(f"outside: {self.outside}; want a finite number")

    def __call__(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        inside = (sigma > self.low) & (sigma <= self.high)
        value = weight_at(self.weight, sigma)
        return torch.where(inside, value if isinstance(value, Tensor) else sigma.new_full((), value), self.outside)
