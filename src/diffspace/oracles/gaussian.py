"""The exact denoisers of a Gaussian and of a mixture of Gaussians."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from diffspace._shapes import Batch, Float, Sigma, Tensor
from diffspace.checks import check_number
from diffspace.oracles.oracle import Oracle, eigen, total_variances
from diffspace.protocols import Cond
from diffspace.tensors import check_floating

Operator = Callable[[Tensor], Tensor]


class Gaussian(Oracle):
    """N(μ, Σ): D(x; σ) = μ + Σ(Σ + σ²I)⁻¹(x − μ), elementwise in the coordinates Uᵀ(x − μ) for Σ = UΛUᵀ.

    `mean` has the shape of a sample, `covariance` is (d, d) over its flattened dimensions, symmetric and positive
    semi-definite. Computed in float64; results are in the dtype of x.
    """

    def __init__(self, mean: Float[Tensor, "*dims"], covariance: Float[Tensor, "d d"]) -> None:
        check_floating("mean", mean)
        check_floating("covariance", covariance)
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

    def score(self, x: Batch, sigma: Sigma, cond: Cond | None = None) -> Batch:
        """∇ₓ ln p(x; σ) = −(Σ + σ²I)⁻¹(x − μ)."""
        total = total_variances(self.variances.to(x.device), self._level(sigma, x))
        return (-(self._coordinates(x) / total) @ self.axes.to(x.device).T).reshape(x.shape).to(x.dtype)

    def moments(self) -> tuple[float, float]:
        return float(self.mean.mean()), float(self.variances.mean() + self.mean.var(correction=0))

    def flow(self, x: Batch, sigma_from: float, sigma_to: float) -> Batch:
        """The exact solution of the probability-flow ODE in unscaled x, from one noise level to another.

        Each coordinate of Uᵀ(x − μ) is multiplied by √((λ + σ_to²)/(λ + σ_from²)).
        """
        variances = self.variances.to(x.device)
        ratio = ((variances + sigma_to**2) / (variances + sigma_from**2)).sqrt()
        return self._back(ratio * self._coordinates(x), x)

    def posterior(self, operator: Operator, y: Float[Tensor, "1 *measured"], sigma_y: float) -> Gaussian:
        """p(x₀ | y), also a Gaussian, for y = A(x₀) + n with n ~ N(0, σ_y²·I).

        `operator` is A, linear or affine, from (B, *dims) to (B, *measured), here in float64. The D of the result is
        E[x₀ | x, y] at any σ.
        """
        root = self.axes * self.variances.sqrt()
        means, covariances, _ = condition(self.mean[None], root[None], self.sample_shape, operator, y, sigma_y)
        return Gaussian(means[0].reshape(self.sample_shape), covariances[0])

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "{n} *dims"]:
        z = torch.randn(n, self.mean.numel(), dtype=torch.float64, generator=generator, device="cpu")
        return (self.mean + (z * self.variances.sqrt()) @ self.axes.T).reshape(n, *self.sample_shape)


class GaussianMixture(Oracle):
    """Σ_k w_k·N(μ_k, Σ_k): D is the mean of the components' denoisers under their posterior weights at x.

    `means` is (K, *dims). `stds` of shape (K,) makes the components isotropic; `covariances` of shape (K, d, d) makes
    them full. `weights` of shape (K,) are positive and are divided by their sum; None makes them equal. Isotropic
    mixtures are computed elementwise, so that a sample's result does not depend on its batch to the last bit.
    Computed in float64; results are in the dtype of x.
    """

    def __init__(
        self,
        means: Float[Tensor, "components *dims"],
        stds: Float[Tensor, "components"] | None = None,
        weights: Float[Tensor, "components"] | None = None,
        *,
        covariances: Float[Tensor, "components d d"] | None = None,
    ) -> None:
        if (stds is None) == (covariances is None):
            raise ValueError("stds, covariances: give exactly one of the two")
        check_floating("means", means)
        k = len(means)
        w = torch.ones(k, dtype=torch.float64, device=means.device) if weights is None else weights
        if w.shape != (k,) or not bool(((w > 0) & torch.isfinite(w)).all()):
            raise ValueError(f"weights: expected {k} positive numbers, one for each component")
        if k == 0 or not bool(torch.isfinite(means).all()):
            raise ValueError("means: expected one or more, all finite")
        super().__init__(tuple(means.shape[1:]))
        self.means = means.to(torch.float64).reshape(k, -1)
        self.weights = w.to(torch.float64) / w.to(torch.float64).sum()
        self.axes: Tensor | None = None
        d = self.means.shape[1]
        # everything full is computed in the coordinates U_kᵀ(x − E[x₀]), all of them by one product with [U_1 … U_K]
        self._origin, self._centres, self._basis = (
            torch.zeros(d, dtype=torch.float64, device=means.device),
            self.means,
            None,
        )
        if covariances is None:
            if stds is None or stds.shape != (k,) or not bool(((stds >= 0) & torch.isfinite(stds)).all()):
                raise ValueError(f"stds: expected {k} numbers of at least 0, one for each component")
            self.variances = stds.to(torch.float64)[:, None] ** 2
        else:
            if covariances.shape != (k, d, d):
                raise ValueError(f"covariances: expected shape {(k, d, d)}, got {tuple(covariances.shape)}")
            self.variances, self.axes = eigen("covariances", covariances)
            self._origin = self.weights @ self.means
            self._basis = self.axes.permute(1, 0, 2).reshape(d, k * d)
            self._centres = torch.einsum("kd,kde->ke", self.means - self._origin, self.axes)

    def _components(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets in the components' axes, their total variances, and ln w_k·p_k(x; σ); (B, K, …)."""
        flat, centres = self._flat(x) - self._origin.to(x.device), self._centres.to(x.device)
        if self._basis is None:
            offsets = flat[:, None, :] - centres
        else:
            offsets = torch.addmm(-centres.flatten(), flat, self._basis.to(x.device)).reshape(-1, *centres.shape)
        total = total_variances(self.variances.to(x.device), self._level(sigma, x)[:, :, None])
        d = offsets.shape[2]
        log_det = total.log().sum(2) * (d / total.shape[2])
        joint = self.weights.to(x.device).log() - 0.5 * (
            (offsets.square() * (1 / total)).sum(2) + log_det + d * math.log(2 * math.pi)
        )
        return offsets, total, joint

    def _average(self, joint: Tensor, vectors: Tensor) -> Tensor:
        """The posterior mean of vectors (B, K, d) given in the components' axes, (B, d) in those of x."""
        weighted = joint.softmax(1)[:, :, None] * vectors
        return weighted.sum(1) if self._basis is None else weighted.flatten(1) @ self._basis.to(joint.device).T

    def _denoise(self, x: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        offsets, total, joint = self._components(x, sigma)
        gain = self.variances.to(x.device) / total
        denoised = self._average(joint, torch.addcmul(self._centres.to(x.device), gain, offsets))
        return (self._origin.to(x.device) + denoised).reshape(x.shape).to(x.dtype)

    def log_prob(self, x: Batch, sigma: Sigma) -> Float[Tensor, "batch"]:
        return self._components(x, sigma)[2].logsumexp(1)

    def score(self, x: Batch, sigma: Sigma, cond: Cond | None = None) -> Batch:
        """∇ₓ ln p(x; σ), the posterior mean of −(Σ_k + σ²I)⁻¹(x − μ_k)."""
        offsets, total, joint = self._components(x, sigma)
        return self._average(joint, -offsets / total).reshape(x.shape).to(x.dtype)

    def _full_axes(self) -> Tensor:
        k, d = self.means.shape
        return (
            torch.eye(d, dtype=torch.float64, device=self.means.device).expand(k, d, d)
            if self.axes is None
            else self.axes
        )

    def posterior(self, operator: Operator, y: Float[Tensor, "1 *measured"], sigma_y: float) -> GaussianMixture:
        """p(x₀ | y), also a mixture, for y = A(x₀) + n with n ~ N(0, σ_y²·I), as `Gaussian.posterior`."""
        roots = self._full_axes() * self.variances.sqrt().expand(self.means.shape)[:, None, :]
        means, covariances, evidence = condition(self.means, roots, self.sample_shape, operator, y, sigma_y)
        if not bool(torch.isfinite(evidence).all()):
            raise ValueError(f"sigma_y: y has no density under some component at {sigma_y}; give a positive one")
        weights = (self.weights.log() + evidence).softmax(0)
        alive = weights > 0  # leave out what has underflowed
        return GaussianMixture(
            means[alive].reshape(-1, *self.sample_shape), weights=weights[alive], covariances=covariances[alive]
        )

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "{n} *dims"]:
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = (
            torch.randn(n, self.means.shape[1], dtype=torch.float64, generator=generator, device="cpu")
            * self.variances[which].sqrt()
        )
        if self.axes is not None:
            z = torch.einsum("be,bde->bd", z, self.axes[which])
        return (self.means[which] + z).reshape(n, *self.sample_shape)

    def moments(self) -> tuple[float, float]:
        mean = self.weights @ self.means.mean(1)
        return float(mean), float(self.weights @ (self.variances.mean(1) + (self.means - mean).square().mean(1)))

    def mean(self) -> Float[Tensor, "*dims"]:
        """E[x₀]."""
        return (self.weights[:, None] * self.means).sum(0).reshape(self.sample_shape)

    def covariance(self) -> Float[Tensor, "d d"]:
        """Cov[x₀] over the flattened dimensions."""
        centred = self.means - self.mean().reshape(-1)
        between = torch.einsum("k,kd,ke->de", self.weights, centred, centred)
        axes, spread = self._full_axes(), self.variances.expand(self.means.shape)
        return between + torch.einsum("k,kde,ke,kfe->df", self.weights, axes, spread, axes)


def condition(
    means: Tensor, roots: Tensor, shape: tuple[int, ...], operator: Operator, y: Tensor, sigma_y: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(means, covariances, ln p(y)) of K Gaussians N(μ, R·Rᵀ), given y = A(x) + n with n ~ N(0, σ_y²·I).

    `means` is (K, d), `roots` (K, d, d); A maps (B, *shape) to (B, *measured), y is one of its rows, (1, *measured).
    With A·R = P·S·Qᵀ the covariance is R·Q·(σ_y²/(S² + σ_y²))·Qᵀ·Rᵀ, positive semi-definite despite rounding; σ_y may
    be 0. ln p(y) is not finite if y has no density.
    """
    check_number("sigma_y", sigma_y, "[0, inf)")
    d = means.shape[1]
    offset = operator(means.new_zeros(1, *shape))
    if y.shape != offset.shape:
        raise ValueError(f"y: expected one measurement, of shape {tuple(offset.shape)}, got {tuple(y.shape)}")
    basis = torch.eye(d, dtype=means.dtype, device=means.device).reshape(d, *shape)
    matrix = (operator(basis) - offset).reshape(d, -1).T  # (m, d)
    left, s, right = torch.linalg.svd(matrix @ roots, full_matrices=True)
    # the singular values along the m directions of y and the d directions of x, padded with 0
    s = torch.where(s > max(matrix.shape) * torch.finfo(s.dtype).eps * s.amax(-1, keepdim=True), s, 0.0)
    along_y, along_x = (torch.nn.functional.pad(s, (0, n - s.shape[-1])) for n in matrix.shape)
    residual = torch.einsum("kmj,km->kj", left, (y - offset).reshape(-1).to(means) - means @ matrix.T)

    gain = torch.where(s > 0, s / (s**2 + sigma_y**2), 0.0)
    shift = torch.einsum("kjd,kj->kd", right[:, : s.shape[1]], gain * residual[:, : s.shape[1]])
    shrunk = torch.where(along_x > 0, sigma_y / (along_x**2 + sigma_y**2).sqrt(), 1.0)
    square_root = roots @ right.mT * shrunk[:, None, :]
    total = along_y**2 + sigma_y**2
    log_prob = -0.5 * (residual**2 / total + total.log() + math.log(2 * math.pi)).sum(1)
    return means + torch.einsum("kde,ke->kd", roots, shift), square_root @ square_root.mT, log_prob
