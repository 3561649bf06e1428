"""The base of the exact denoisers, and one made of an oracle for each class."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch

from diffspace._shapes import Batch, Float, Sigma, Tensor
from diffspace.protocols import Cond, check_cond
from diffspace.tensors import check_floating, check_sigma


def eigen(name: str, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (…, d) and eigenvectors (…, d, d) of covariances (…, d, d), in float64.

    ValueError unless they are symmetric and positive semi-definite to the rounding of their dtype.
    """
    cov = covariance.to(torch.float64)
    rounding = 10 * cov.shape[-1] * torch.finfo(covariance.dtype).eps * float(cov.abs().max())
    if not bool(((cov - cov.mT).abs() <= rounding).all()):  # which NaN and infinity fail too
        raise ValueError(f"{name}: expected a symmetric, finite matrix")
    variances, axes = torch.linalg.eigh(0.5 * (cov + cov.mT))
    if float(variances.min()) < -rounding:
        raise ValueError(f"{name}: expected no negative eigenvalue, got {float(variances.min()):g}")
    # eigh returns the zeros of a rank-deficient covariance as rounding of the largest eigenvalue
    least = cov.shape[-1] * torch.finfo(torch.float64).eps * variances.amax(-1, keepdim=True)
    return torch.where(variances > least, variances, 0.0), axes


def total_variances(variances: Tensor, level: Tensor) -> Tensor:
    """λ + σ²; ValueError where it is 0, because there is no density."""
    total = variances + level**2
    if not bool((total > 0).all()):
        raise ValueError(f"sigma: expected positive noise for data without variance, got {float(level.min())}")
    return total


class Oracle(ABC):
    """An exact denoiser: D, score and log-density of a known distribution at any σ.

    It is a `Denoiser` like any network. D(x; σ) = x + σ²·∇ₓ ln p(x; σ) (Eq. 3).
    """

    conditions: ClassVar[tuple[str, ...]] = ()
    """The names that `cond` may have."""

    def __init__(self, sample_shape: tuple[int, ...]) -> None:
        self.sample_shape = sample_shape

    @abstractmethod
    def moments(self) -> tuple[float, float]:
        """Mean and variance of the data over all their elements."""

    @functools.cached_property
    def sigma_data(self) -> float | None:
        """The standard deviation of the data, over all elements; None where they have none."""
        return math.sqrt(self.moments()[1]) or None

    def _flat(self, x: Tensor) -> Tensor:
        """x as (B, d) in float64."""
        check_floating("x", x)
        if x.shape[1:] != self.sample_shape:
            raise ValueError(f"x: expected shape (B, *{self.sample_shape}), got {tuple(x.shape)}")
        return x.reshape(len(x), math.prod(self.sample_shape)).to(torch.float64)

    def _level(self, sigma: Tensor, x: Tensor) -> Tensor:
        """σ of shape () or (B,) as a float64 column (B or 1, 1) on the device of x."""
        check_sigma(sigma, len(x))
        return sigma.to(x.device, torch.float64).reshape(-1, 1)

    def __call__(self, x: Batch, sigma: Sigma, cond: Cond | None = None) -> Batch:
        """D(x; σ) = E[x₀ | x₀ + σε = x]."""
        return self._denoise(x, sigma, check_cond(cond, self.conditions, type(self).__name__))

    @abstractmethod
    def _denoise(self, x: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        """D(x; σ), with the conditions in `conditions` alone."""

    @abstractmethod
    def log_prob(self, x: Batch, sigma: Sigma) -> Float[Tensor, "batch"]:
        """ln p(x; σ), the density of the data with noise of standard deviation σ, in nats and in float64."""

    def score(self, x: Batch, sigma: Sigma, cond: Cond | None = None) -> Batch:
        """∇ₓ ln p(x; σ) = (D(x; σ) − x)/σ² (Eq. 3)."""
        wide = x.to(torch.float64)  # in float32, D − x at small σ would have no correct digits
        level = self._level(sigma, x).reshape((-1,) + (1,) * (x.ndim - 1))
        return ((self(wide, sigma, cond) - wide) / level**2).to(x.dtype)


class ByClass(Oracle):
    """The exact conditional denoiser E[x₀ | x, label]: oracle number k denoises the samples of class k.

    `cond["labels"]`, class indices of shape (B,), is required. `log_prob` is that of the mixture of equal classes.
    """

    conditions = ("labels",)

    def __init__(self, oracles: Sequence[Oracle]) -> None:
        if not oracles:
            raise ValueError("oracles: expected one for each class, got none")
        shapes = {oracle.sample_shape for oracle in oracles}
        if len(shapes) > 1:
            raise ValueError(f"oracles: expected one sample shape, got {sorted(shapes)}")
        super().__init__(oracles[0].sample_shape)
        self.oracles = tuple(oracles)

    def _denoise(self, x: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        labels = cond.get("labels")
        if labels is None or labels.shape != (len(x),):
            raise ValueError(f"labels: expected class indices of shape ({len(x)},)")
        if int(labels.min()) < 0 or int(labels.max()) >= len(self.oracles):
            raise ValueError(f"labels: expected 0 to {len(self.oracles) - 1}, got [{labels.min()}, {labels.max()}]")
        levels = sigma.expand(len(x))
        denoised = torch.empty_like(x)
        for k, oracle in enumerate(self.oracles):
            rows = (labels == k).nonzero().flatten()
            if len(rows):
                denoised[rows] = oracle(x[rows], levels[rows])
        return denoised

    def moments(self) -> tuple[float, float]:
        parts = [oracle.moments() for oracle in self.oracles]
        means, variances = torch.tensor(parts, dtype=torch.float64, device="cpu").T
        return float(means.mean()), float(variances.mean() + means.var(correction=0))

    def log_prob(self, x: Batch, sigma: Sigma) -> Float[Tensor, "batch"]:
        joint = torch.stack([oracle.log_prob(x, sigma) for oracle in self.oracles])
        return joint.logsumexp(0) - torch.tensor(float(len(self.oracles)), dtype=torch.float64, device="cpu").log()
