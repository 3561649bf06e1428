"""What exact denoisers share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from edmkit._shapes import Float, Tensor
from edmkit.protocols import Cond

__all__ = ["Oracle", "per_sample"]


def per_sample(sigma: Tensor, x: Tensor) -> Tensor:
    """σ of shape () or (B,) as a float64 column (B or 1, 1) on the device of x."""
    if sigma.ndim > 1 or (sigma.ndim == 1 and len(sigma) != len(x)):
        raise ValueError(f"sigma: shape {tuple(sigma.shape)}; want () or ({len(x)},), one for each sample of x")
    return sigma.to(x.device, torch.float64).reshape(-1, 1)


class Oracle(ABC):
    """An exact denoiser: D, score and log-density of a known distribution at any σ.

    It is a `Denoiser` like any network. D(x; σ) = x + σ²·∇ₓ ln p(x; σ) (Eq. 3).
    """

    def __init__(self, sample_shape: tuple[int, ...]) -> None:
        self.sample_shape = sample_shape

    @abstractmethod
    def __call__(
        self,
        x: Float[Tensor, "batch *dims"],
        sigma: Float[Tensor, ""] | Float[Tensor, "batch"],
        cond: Cond | None = None,
    ) -> Float[Tensor, "batch *dims"]:
        """D(x; σ) = E[x₀ | x₀ + σε = x]."""

    @abstractmethod
    def log_prob(
        self, x: Float[Tensor, "batch *dims"], sigma: Float[Tensor, ""] | Float[Tensor, "batch"]
    ) -> Float[Tensor, "batch"]:
        """ln p(x; σ), the density of the data with noise of standard deviation σ, in nats."""

    def score(
        self, x: Float[Tensor, "batch *dims"], sigma: Float[Tensor, ""] | Float[Tensor, "batch"]
    ) -> Float[Tensor, "batch *dims"]:
        """∇ₓ ln p(x; σ) = (D(x; σ) − x)/σ² (Eq. 3)."""
        level = per_sample(sigma, x).reshape((-1,) + (1,) * (x.ndim - 1))
        return ((self(x, sigma) - x) / level**2).to(x.dtype)
