"""What exact denoisers share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch

from diffspace._shapes import Float, Tensor
from diffspace.protocols import Cond

__all__ = ["Oracle", "eigen", "total_variances"]


def eigen(name: str, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (…, d) and eigenvectors (…, d, d) of covariances (…, d, d), in float64.

    ValueError unless they are symmetric and positive semi-definite to the rounding of their dtype.
    """
    cov = covariance.to(torch.float64)
    rounding = 10 * cov.shape[-1] * torch.finfo(covariance.dtype).eps * float(cov.abs().max())
    if not bool(((cov - cov.mT).abs() <= rounding).all()):  # which NaN and infinity fail too
        raise ValueError(f"{name}: is not symmetric and finite")
    variances, axes = torch.linalg.eigh(0.5 * (cov + cov.mT))
    if float(variances.min()) < -rounding:
        raise ValueError(f"{name}: has the negative eigenvalue {float(variances.min()):g}")
    # eigh gives the zeros of a rank-deficient covariance as rounding of the largest eigenvalue
    least = cov.shape[-1] * torch.finfo(torch.float64).eps * variances.amax(-1, keepdim=True)
    return torch.where(variances > least, variances, 0.0), axes


def total_variances(variances: Tensor, level: Tensor) -> Tensor:
    """λ + σ²; ValueError where it is 0, for there is no density."""
    total = variances + level**2
    if not bool((total > 0).all()):
        raise ValueError(f"sigma: {float(level.min())}; data without variance need positive noise to have a density")
    return total


class Oracle(ABC):
    """An exact denoiser: D, score and log-density of a known distribution at any σ.

    It is a `Denoiser` like any network. D(x; σ) = x + σ²·∇ₓ ln p(x; σ) (Eq. 3).
    """

    def __init__(self, sample_shape: tuple[int, ...]) -> None:
        self.sample_shape = sample_shape

    def _flat(self, x: Tensor) -> Tensor:
        """x as (B, d) in float64."""
        if x.shape[1:] != self.sample_shape:
            raise ValueError(f"x: shape {tuple(x.shape)}; want (B, …) with samples of shape {self.sample_shape}")
        return x.reshape(len(x), math.prod(self.sample_shape)).to(torch.float64)

    def _level(self, sigma: Tensor, x: Tensor) -> Tensor:
        """σ of shape () or (B,) as a float64 column (B or 1, 1) on the device of x."""
        if sigma.ndim > 1 or (sigma.ndim == 1 and len(sigma) != len(x)):
            raise ValueError(f"sigma: shape {tuple(sigma.shape)}; want () or ({len(x)},), one for each sample of x")
        if not bool((sigma >= 0).all()):
            raise ValueError(f"sigma: {float(sigma.min())}; want noise levels that are not negative")
        return sigma.to(x.device, torch.float64).reshape(-1, 1)

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
        wide = x.to(torch.float64)  # of D − x at small σ nothing would be left in float32
        level = self._level(sigma, x).reshape((-1,) + (1,) * (x.ndim - 1))
        return ((self(wide, sigma) - wide) / level**2).to(x.dtype)
