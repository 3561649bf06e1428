"""The exact denoiser of a Gaussian."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from diffspace._shapes import Batch, Float, Sigma, Tensor
from diffspace.oracles.conditioning import condition
from diffspace.oracles.oracle import Oracle, eigen, total_variances
from diffspace.protocols import Cond


class Gaussian(Oracle):
    """N(μ, Σ) with a full covariance over the flattened dimensions of a sample.

    At noise σ the density is N(μ, Σ + σ²I) and D(x; σ) = μ + Σ(Σ + σ²I)⁻¹(x − μ), elementwise in the coordinates
    Uᵀ(x − μ) for Σ = UΛUᵀ. `mean` has the shape of a sample, `covariance` is (d, d), symmetric and positive
    semi-definite. Computed in float64; results are in the dtype of x.
    """

    def __init__(self, mean: Float[Tensor, "*dims"], covariance: Float[Tensor, "d d"]) -> None:
        d = mean.numel()
        if covariance.shape != (d, d):
            raise ValueError(f"covariance: expected shape ({d}, {d}), like the mean, got {tuple(covariance.shape)}")
        if not bool(torch.isfinite(mean).all()):
            raise ValueError("mean: expected finite values")
        super().__init__(tuple(mean.shape))
        self.mean = mean.to(torch.float64).reshape(-1)
        self.variances, self.axes = eigen("covariance", covariance)

    def _coordinates(self, x: Tensor) -> Tensor:
        """Uᵀ(x − μ), of shape (B, d), in float64."""
        return (self._flat(x) - self.mean.to(x.device)) @ self.axes.to(x.device)

    def _back(self, z: Tensor, like: Tensor) -> Tensor:
        """μ + Uz, in shape and dtype like x."""
        return (self.mean.to(like.device) + z @ self.axes.to(like.device).T).reshape(like.shape).to(like.dtype)

    def _denoise(self, x: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        variances = self.variances.to(x.device)
        level = self._level(sigma, x)
        gain = variances / (variances + level**2)
        # at σ = 0 the gain of a direction without variance is 0/0; 1 leaves x unchanged
        return self._back(torch.where(level == 0, 1.0, gain) * self._coordinates(x), x)

    def log_prob(self, x: Batch, sigma: Sigma) -> Float[Tensor, "batch"]:
        total = total_variances(self.variances.to(x.device), self._level(sigma, x))
        z = self._coordinates(x)
        return -0.5 * (z**2 / total + total.log() + math.log(2 * math.pi)).sum(1)

    def score(self, x: Batch, sigma: Sigma) -> Batch:
        """∇ₓ ln p(x; σ) = −(Σ + σ²I)⁻¹(x − μ)."""
        total = total_variances(self.variances.to(x.device), self._level(sigma, x))
        return (-(self._coordinates(x) / total) @ self.axes.to(x.device).T).reshape(x.shape).to(x.dtype)

    def flow(self, x: Batch, sigma_from: float, sigma_to: float) -> Batch:
        """The exact solution of the probability-flow ODE in unscaled x, from one noise level to another.

        Each coordinate of Uᵀ(x − μ) is multiplied by √((λ + σ_to²)/(λ + σ_from²)).
        """
        variances = self.variances.to(x.device)
        ratio = ((variances + sigma_to**2) / (variances + sigma_from**2)).sqrt()
        return self._back(ratio * self._coordinates(x), x)

    def posterior(
        self, operator: Callable[[Tensor], Tensor], y: Float[Tensor, "1 *measured"], sigma_y: float
    ) -> Gaussian:
        """p(x₀ | y), also a Gaussian, for y = A(x₀) + n with n ~ N(0, σ_y²·I).

        `operator` is A, linear or affine, from (B, *dims) to (B, *measured), here in float64. The D of the result is
        E[x₀ | x, y] at any σ.
        """
        root = self.axes * self.variances.sqrt()
        means, covariances, _ = condition(self.mean[None], root[None], self.sample_shape, operator, y, sigma_y)
        return Gaussian(means[0].reshape(self.sample_shape), covariances[0])

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "{n} *dims"]:
        z = torch.randn(n, self.mean.numel(), dtype=torch.float64, generator=generator)
        return (self.mean + (z * self.variances.sqrt()) @ self.axes.T).reshape(n, *self.sample_shape)
