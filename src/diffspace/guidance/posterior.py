"""Samples of the posterior p(x₀ | y) of a linear inverse problem y = A(x₀) + n, n ~ N(0, σ_y²·I).

The score of p(x | y) is that of p(x) plus ∇ₓ ln p(y | x). With p(x₀ | x) taken for N(D, C),

    p(y | x) ≈ N(y; A·D(x), S),  S = σ_y²·I + A·C·Aᵀ,

and with S held fixed in the derivative the conditional denoiser is

    D(x; σ, y) = D + V·Aᵀ·S⁻¹·(y − A·D),  V = σ²·(∂D/∂x)ᵀ,

where V is Cov[x₀ | x] of the exact denoiser (Tweedie's formula of second order). Three choices of C are three methods:
C = 0 is DPS, C = r²·I is ΠGDM, C = V is MMPS, which is exact for a Gaussian prior. Products with V are vector-Jacobian
products of D, so each costs a backward pass; the adjoint of A comes with them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch

from diffspace._shapes import Batch, Bool, Float, Tensor
from diffspace.checks import check_callable, check_integer, check_number
from diffspace.guidance.wrapper import Guidance, GuidanceWeight, Rows, as_factor, check_mask, column, record, tracked
from diffspace.protocols import Cond, Denoiser, stated
from diffspace.tensors import check_floating

LinearOperator: TypeAlias = Callable[[Tensor], Tensor]
"""A(x): (B, *dims) -> (B, *measured), linear or affine, sample by sample; its adjoint comes from autograd."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """A(x) = M·x over the flattened dimensions of a sample: (B, *dims) -> (B, m), with M of shape (m, d)."""

    matrix: Float[Tensor, "m d"]

    def __post_init__(self) -> None:
        check_floating("matrix", self.matrix)
        if self.matrix.ndim != 2:
            raise ValueError(f"matrix: expected shape (m, d), got {tuple(self.matrix.shape)}")

    def __call__(self, x: Batch) -> Float[Tensor, "batch m"]:
        flat = x.flatten(1)
        if flat.shape[1] != self.matrix.shape[1]:
            raise ValueError(f"matrix: shape {tuple(self.matrix.shape)} for samples of {flat.shape[1]} numbers")
        return flat @ self.matrix.to(x).T


@dataclass(frozen=True, eq=False)
class Mask:
    """A(x): the values of x where `mask` is True, (B, *dims) -> (B, m). The mask broadcasts to a sample."""

    mask: Bool[Tensor, "*dims"]

    def __post_init__(self) -> None:
        check_mask(self.mask)

    def __call__(self, x: Batch) -> Float[Tensor, "batch m"]:
        try:
            known = self.mask.to(x.device).expand(x.shape[1:])
        except RuntimeError:
            shapes = f"{tuple(self.mask.shape)} for samples of shape {tuple(x.shape[1:])}"
            raise ValueError(f"mask: shape {shapes}") from None
        return x[:, known]


@dataclass(frozen=True)
class AveragePooling:
    """A(x): means over cubes of `factor` per side, (B, C, *sides) -> (B, C, *(sides/factor)), in any dimensions."""

    factor: int

    def __post_init__(self) -> None:
        check_integer("factor", self.factor, 1)

    def __call__(self, x: Float[Tensor, "batch channels *sides"]) -> Float[Tensor, "batch channels *pooled"]:
        if any(side % self.factor for side in x.shape[2:]):
            raise ValueError(f"factor: {self.factor} does not divide the sides {tuple(x.shape[2:])}")
        pairs = [n for side in x.shape[2:] for n in (side // self.factor, self.factor)]
        inner = tuple(range(3, 2 + len(pairs), 2))
        return x.reshape(*x.shape[:2], *pairs).mean(inner) if inner else x


Product = Callable[[Tensor], Tensor]


class _Posterior(Guidance):
    """D + w(σ)·V·Aᵀ·S⁻¹·(y − A·D), with S⁻¹ by up to `iterations` conjugate gradients; subclasses define S.

    `y` is (1 or B, *measured).
    """

    default_iterations: ClassVar[int | None] = None

    def __init__(
        self,
        denoiser: Denoiser,
        operator: LinearOperator,
        y: Float[Tensor, "rows *measured"],
        sigma_y: float,
        *,
        weight: GuidanceWeight = 1.0,
        iterations: int | None = None,
    ) -> None:
        super().__init__(denoiser, weight)
        check_callable("operator", operator, "a linear function of x")
        direct = self.default_iterations is None
        check_number("sigma_y", sigma_y, "(0, inf)" if direct else "[0, inf)")
        check_floating("y", y)
        if y.ndim == 0 or not bool(torch.isfinite(y).all()):
            raise ValueError("y: expected finite measurements with 1 row or one for each sample")
        if direct and iterations is not None:
            raise ValueError(f"iterations: has no effect on {type(self).__name__}")
        self.iterations = (self.default_iterations or 1) if iterations is None else iterations
        check_integer("iterations", self.iterations, 1)
        self.operator = operator
        self.y = y
        self.sigma_y = sigma_y

    def in_rows(self, dims: int) -> tuple[Tensor, ...]:
        """The measurements."""
        return (self.y,)

    @abstractmethod
    def _covariance(self, adjoint: Product, through: Product, sigma: Tensor) -> Product | None:
        """The product with C·Aᵀ, given those with Aᵀ and V·Aᵀ; None where C = 0."""

    def _whitened(self, residual: Tensor, covariance: Product | None, origin: Tensor) -> Tensor:
        """S⁻¹·residual."""
        noise = self.sigma_y**2
        if covariance is None:
            return residual / noise
        offset = self.operator(torch.zeros_like(origin[:1]))  # not 0 where A is affine
        return _conjugate_gradients(
            lambda v: noise * v + (self.operator(covariance(v)) - offset).to(v), residual, self.iterations
        )

    def _guided(self, x: Tensor, sigma: Tensor, cond: Cond | None, weight: float | Tensor, rows: Rows) -> Tensor:
        recording = torch.is_grad_enabled()
        with torch.enable_grad():
            at = tracked(x, recording)
            denoised: Tensor = record("denoiser", self.denoiser(at, sigma, cond))
            measured = record("operator", self.operator(denoised))
        if len(measured) != len(x) or len(self.y) not in (1, len(x)) or self.y.shape[1:] != measured.shape[1:]:
            raise ValueError(f"y: expected shape {tuple(measured.shape)}, or 1 row, got {tuple(self.y.shape)}")

        def pull(v: Tensor, to: Tensor) -> Tensor:
            (slope,) = torch.autograd.grad(measured, to, v.to(measured), retain_graph=True, create_graph=recording)
            return slope

        def through(v: Tensor) -> Tensor:
            return column(sigma**2, x) * pull(v, at)

        predicted, result = (measured, denoised) if recording else (measured.detach(), denoised.detach())
        covariance = self._covariance(lambda v: pull(v, denoised), through, sigma)
        whitened = self._whitened(self.y.to(predicted) - predicted, covariance, result)
        return result + as_factor(weight, result) * through(whitened).to(result)


class DPS(_Posterior):
    """Diffusion posterior sampling (Chung et al. 2023, arXiv:2209.14687, Theorem 1): S = σ_y²·I.

    D + w·V·Aᵀ·(y − A·D)/σ_y². It treats D as x₀ itself, so the measurement counts too much while x₀ is uncertain,
    σ_y² ≪ A·Cov[x₀ | x]·Aᵀ: samples have too little variance, even of a Gaussian, and the ODE is stiff with a rate of
    Cov/σ_y². `weight` below 1 (a number or a function of σ) reduces both, as does the paper's algorithm, which divides
    by ‖y − A·D‖ and tunes a factor. One evaluation and one backward pass; `sigma_y` is positive.
    """

    def _covariance(self, adjoint: Product, through: Product, sigma: Tensor) -> None:
        return None


class PiGDM(_Posterior):
    """Pseudoinverse guidance, ΠGDM (Song et al., ICLR 2023): S = σ_y²·I + r²·A·Aᵀ, r² = σ²σ_d²/(σ² + σ_d²).

    r² is the variance of x₀ given x for data of variance σ_d² in every direction, for which the method is exact.
    `sigma_data` is by default that of the model. S is inverted by up to `iterations` conjugate gradients on A alone,
    which end early (after one for masks and pooling). One evaluation and one backward pass; `sigma_y` may be 0.
    """

    default_iterations = 50

    def __init__(
        self,
        denoiser: Denoiser,
        operator: LinearOperator,
        y: Float[Tensor, "rows *measured"],
        sigma_y: float,
        *,
        sigma_data: float | None = None,
        weight: GuidanceWeight = 1.0,
        iterations: int | None = None,
    ) -> None:
        super().__init__(denoiser, operator, y, sigma_y, weight=weight, iterations=iterations)
        if sigma_data is None:
            sigma_data = stated(denoiser, "sigma_data")
            if sigma_data is None:
                raise ValueError("sigma_data: the denoiser does not state one; pass sigma_data")
        check_number("sigma_data", sigma_data, "(0, inf)")
        self.sigma_data = float(sigma_data)

    def _covariance(self, adjoint: Product, through: Product, sigma: Tensor) -> Product:
        variance = sigma**2 * (self.sigma_data**2 / (sigma**2 + self.sigma_data**2))

        def product(v: Tensor) -> Tensor:
            pulled = adjoint(v)
            return column(variance, pulled) * pulled

        return product


class MMPS(_Posterior):
    """Moment matching posterior sampling (Rozet et al. 2024, arXiv:2405.13712): S = σ_y²·I + A·V·Aᵀ.

    E[x₀ | x, y] itself where x₀ given x is Gaussian, so for a Gaussian prior. S is inverted by up to `iterations`
    conjugate gradients, each a backward pass; they end early where S has fewer different eigenvalues. The Jacobian of a
    network is not exactly symmetric: directions without positive variance are skipped. `sigma_y` may be 0.
    """

    default_iterations = 5

    def _covariance(self, adjoint: Product, through: Product, sigma: Tensor) -> Product:
        return through


def _conjugate_gradients(product: Product, b: Tensor, iterations: int) -> Tensor:
    """S⁻¹·b for each sample separately, from products with S, starting at 0.

    A sample ends when its residual is rounding, or when a direction has no positive curvature, so that it does not
    depend on other samples, and its derivative contains no 0/0.
    """

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return column((u * v).flatten(1).sum(1), u)

    def ratio(above: Tensor, below: Tensor, where: Tensor) -> Tensor:
        return torch.where(where, above / torch.where(where, below, 1.0), 0.0)

    solution, residual, direction = torch.zeros_like(b), b, b
    squared = dot(b, b)
    least = (4 * torch.finfo(b.dtype).eps) ** 2 * squared.detach()
    active = torch.ones_like(squared, dtype=torch.bool)
    for _ in range(iterations):
        active = active & (squared > least)
        if not bool(active.any()):
            break
        image = product(direction)
        curvature = dot(direction, image)
        active = active & (curvature > 0)
        step = ratio(squared, curvature, active)
        solution = solution + step * direction
        residual = residual - step * image
        previous, squared = squared, dot(residual, residual)
        direction = residual + ratio(squared, previous, active) * direction
    return solution
