"""The bases of the denoisers that are made from denoisers, and the strength of guidance at each noise level."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch

from diffspace._shapes import Batch, Float, Sigma, Tensor
from diffspace.checks import check_number
from diffspace.protocols import Cond, Denoiser, check_cond, check_denoiser, module_of, stated

_OPTIONAL = (
    "sigma_min",
    "sigma_max",
    "sampling_range",
    "sigma_data",
    "round_sigma",
    "levels",
    "weight",
    "sample_shape",
    "transform",
)

Rows = Tensor | slice

GuidanceWeight: TypeAlias = float | Callable[[Tensor], Tensor | float]
"""w: a number, or a function of σ that takes and returns a tensor of shape () or (B,)."""


class Wrapper(torch.nn.Module):
    """A denoiser made from another one, with the optional attributes (see `Denoiser`) of that one.

    A denoiser that is a module, or a `functools.partial` of one, is a submodule: sampling finds its device and sets its
    evaluation mode. Subclasses define `forward(x, sigma, cond=None)`.
    """

    denoiser: Denoiser

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        check_denoiser(denoiser)
        self.denoiser = denoiser
        if not isinstance(denoiser, torch.nn.Module):
            self.held = module_of(denoiser)

    def made_for(self, shape: Sequence[int]) -> int | None:
        """The number of samples for which this holds one row each; None where it holds no such rows."""
        inner: Callable[[Sequence[int]], int | None] | None = stated(self.denoiser, "made_for")
        counts = (len(value) for value in self.in_rows(len(shape)) if value.ndim > 0)
        return next((count for count in counts if count > 1), None if inner is None else inner(shape))

    def in_rows(self, dims: int) -> Sequence[Tensor]:
        """The tensors with one row for all samples or one row per sample, for samples of `dims` dimensions."""
        return ()

    def __getattr__(self, name: str) -> Any:
        # called only for attributes that the wrapper itself lacks
        found = stated(self.denoiser, name) if name in _OPTIONAL else None
        return super().__getattr__(name) if found is None else found


def check_mask(mask: object) -> None:
    """ValueError unless a mask is a tensor of bool."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"mask: expected a tensor of bool, True where the values are known, got {got}")


def column(value: Tensor, like: Tensor) -> Tensor:
    """Numbers of shape () or (B,) with the dtype and device of `like`, shaped to multiply it, (B, *dims)."""
    return value.to(like).reshape((-1,) + (1,) * (like.ndim - 1))


def tracked(x: Tensor, recording: bool) -> Tensor:
    """x for differentiation: itself if its own gradients are recorded, else a leaf outside any graph."""
    return x if recording and x.requires_grad else x.detach().requires_grad_()


def record(name: str, value: Tensor) -> Tensor:
    """The value; ValueError if no gradient was recorded."""
    if not value.requires_grad:
        raise ValueError(f"{name}: its value has no gradient with respect to x; do not use torch.no_grad in it")
    return value


def check_weight(weight: GuidanceWeight) -> None:
    """ValueError unless the weight is a finite number or a function."""
    if not callable(weight):
        check_number("weight", weight)


def weight_at(weight: GuidanceWeight, sigma: Tensor) -> float | Tensor:
    """w(σ): a float if it is the same for all samples and levels, else a tensor of the shape of σ."""
    if not callable(weight):
        return float(weight)
    value = weight(sigma)
    if not isinstance(value, Tensor):
        return float(value)
    if value.shape != sigma.shape:
        raise ValueError(f"weight: returned shape {tuple(value.shape)} for sigma of shape {tuple(sigma.shape)}")
    if not bool(torch.isfinite(value).all()):
        raise ValueError("weight: returned values that are not finite")
    return value


def as_factor(weight: float | Tensor, like: Tensor) -> float | Tensor:
    """A weight as a factor of (B, *dims)."""
    return weight if isinstance(weight, float) else column(weight, like)


class Guidance(Wrapper, ABC):
    """A wrapper whose effect has a weight w(σ); where w is `neutral`, only the denoiser is evaluated."""

    neutral: ClassVar[float] = 0.0

    def __init__(self, denoiser: Denoiser, weight: GuidanceWeight) -> None:
        super().__init__(denoiser)
        check_weight(weight)
        self.guidance_weight = weight  # `weight` is the training weight of the denoiser

    @abstractmethod
    def _guided(self, x: Tensor, sigma: Tensor, cond: Cond | None, weight: float | Tensor, rows: Rows) -> Tensor:
        """D of all samples; the weight of `rows` is not neutral."""

    def _unguided(self, x: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        return self.denoiser(x, sigma, cond)

    def forward(self, x: Batch, sigma: Sigma, cond: Cond | None = None) -> Batch:
        check_cond(cond)
        weight = weight_at(self.guidance_weight, sigma)
        rows: Rows = slice(None)
        if isinstance(weight, float):  # no synchronisation with a device
            count = int(weight != self.neutral)
        else:
            away = weight != self.neutral
            count = int(away.sum())
            if count < away.numel():
                rows = away.nonzero().flatten()
        return self._guided(x, sigma, cond, weight, rows) if count else self._unguided(x, sigma, cond)


@dataclass(frozen=True)
class Interval:
    """w(σ) = `weight` where low < σ ≤ high, else `outside`: guidance in a limited interval (Kynkäänniemi et al. 2024).

    `weight` is a number or another function of σ. `outside` is the neutral weight: 1 for `ClassifierFree` and
    `AutoGuidance`, which then need no second evaluation; 0 for `ClassifierGuidance`.
    """

    weight: GuidanceWeight
    low: float = 0.0
    high: float = math.inf
    outside: float = 1.0

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if not 0 <= self.low < self.high:
            raise ValueError(f"low, high: expected 0 ≤ low < high, got {self.low}, {self.high}")
        check_number("outside", self.outside)

    def __call__(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        inside = (sigma > self.low) & (sigma <= self.high)
        value = weight_at(self.weight, sigma)
        return torch.where(inside, value if isinstance(value, Tensor) else sigma.new_full((), value), self.outside)
