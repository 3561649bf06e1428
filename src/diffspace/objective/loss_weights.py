"""The training weights λ(σ) of Table 1, for denoisers that do not carry their own."""

from __future__ import annotations

from dataclasses import dataclass

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_number


@dataclass(frozen=True)
class InverseVariance:
    """λ = 1/σ²: the loss of the predicted noise (VP, VE and iDDPM)."""

    def __call__(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return sigma**-2


@dataclass(frozen=True)
class EDMWeight:
    """λ = (σ² + σ_d²)/(σ·σ_d)² (EDM)."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        check_number("sigma_data", self.sigma_data, "(0, inf)")

    def __call__(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return sigma**-2 + self.sigma_data**-2


@dataclass(frozen=True)
class UniformWeight:
    """λ = 1: the loss of the predicted x₀."""

    def __call__(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return sigma**0
