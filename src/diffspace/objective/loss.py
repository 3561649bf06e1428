"""The denoising loss λ(σ)·‖D(y + n; σ) − y‖² (Eq. 2 and Section 5), and the weights λ(σ) of Table 1."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_callable, check_choice, check_number, check_type
from diffspace.objective.noise import LogNormal, NoiseDistribution
from diffspace.objective.uncertainty import Uncertainty
from diffspace.protocols import PAPER_SIGMA_DATA, Cond, Denoiser, data_scale, stated
from diffspace.tensors import check_floating, check_sigma

Weight = Callable[[Tensor], Tensor]
"""λ(σ). Most denoisers carry their own; the classes below are for those that do not."""


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


def denoising_error(
    denoiser: Denoiser,
    x0: Float[Tensor, "batch *dims"],
    sigma: Float[Tensor, "batch"],
    cond: Cond | None = None,
    *,
    noise: Float[Tensor, "batch *dims"],
) -> Float[Tensor, "batch"]:
    """‖D(x₀ + σ·ε; σ) − x₀‖² for each sample, summed over its dimensions, with ε = `noise`.

    Data in half precision are converted to float32 first: x₀ + σ·ε would be rounded, and the sum infinite above 65504.
    """
    check_floating("x0", x0)
    check_sigma(sigma, len(x0))
    x0 = x0.to(torch.promote_types(x0.dtype, torch.float32))
    sigma = sigma.to(x0)
    level = sigma.reshape((-1,) + (1,) * (x0.ndim - 1))
    denoised = denoiser(x0 + level * noise.to(x0), sigma, cond)
    if denoised.shape != x0.shape:
        raise ValueError(f"denoiser: returned shape {tuple(denoised.shape)} for x of shape {tuple(x0.shape)}")
    return (denoised.to(x0) - x0).square().reshape(len(x0), -1).sum(1)


class Terms(NamedTuple):
    """What one pass through the denoiser gives for each sample, each of shape (B,); all but `objective` are detached.

    - `error`: ‖D − x₀‖², summed over the dimensions.
    - `loss`: λ·‖D − x₀‖² in the loss's reduction, times p(σ)/q(σ) where the noise is drawn from another distribution q.
      Its mean estimates the loss under p, whatever the options: this is what to log.
    - `objective`: what to minimise; `loss` itself without an `Uncertainty`.
    - `gradient`: (λ·c_out/e^u)²·‖D − x₀‖², a quarter of the squared gradient in the network's output without p/q, for
      `AdaptiveNoise`. 1/c_out² is the denoiser's own weight(σ), and λ where it has none.
    """

    error: Tensor
    loss: Tensor
    objective: Tensor
    gradient: Tensor


class DenoisingLoss(torch.nn.Module):
    """λ(σ)·‖D(x₀ + σ·ε; σ) − x₀‖² for each sample, with σ drawn from `noise`.

    A noise that draws in the place of another one has its loss multiplied by `noise.importance(sigma)`. What the loss
    learns (the weights of an `uncertainty`, the density of an `AdaptiveNoise`) is in its parameters and state dict.

    Args:
        noise: the distribution of σ. Default: `LogNormal.for_data(σ_data)` of the denoiser that is first trained.
        weight: λ; None reads it from the denoiser (`denoiser.weight(sigma)`, 1/c_out² of its preconditioning).
        reduction: whether a sample's squared error is summed over its d dimensions, as in the reference implementation,
            or averaged.
        stratified: draw one σ in each of B intervals of equal probability.
        uncertainty: u(σ), trained along: the loss is λ·‖D − x₀‖²/e^u + d·u (+ u where it is averaged).
    """

    def __init__(
        self,
        noise: NoiseDistribution | None = None,
        weight: Weight | None = None,
        reduction: Literal["sum", "mean"] = "sum",
        stratified: bool = True,
        uncertainty: Uncertainty | None = None,
    ) -> None:
        super().__init__()
        check_type("noise", noise or LogNormal(), NoiseDistribution)
        check_choice("reduction", reduction, ("sum", "mean"))
        if weight is not None:
            check_callable("weight", weight, "weight(sigma)")
        if uncertainty is not None:
            check_callable("uncertainty", uncertainty, "u(sigma), such as Uncertainty()")
        self.noise, self.weight, self.reduction, self.stratified = noise or LogNormal(), weight, reduction, stratified
        self.uncertainty = uncertainty
        self._default, self._seen = noise is None, False

    def look_at(self, denoiser: object) -> None:
        """Take the default noise from the σ_data that the denoiser states, or warn where the paper's is far from it."""
        if self._seen:
            return
        self._seen, scale = True, data_scale(denoiser)
        moved = LogNormal.for_data(scale * PAPER_SIGMA_DATA)
        if self._default:
            self.noise = moved
        elif self.noise == LogNormal() and not 0.25 <= scale <= 4:
            text = f"noise: {self.noise} is for data of standard deviation 0.5, the denoiser states"
            warnings.warn(f"{text} {scale * PAPER_SIGMA_DATA:g}; use LogNormal.for_data", stacklevel=3)

    def forward(
        self,
        denoiser: Denoiser,
        x0: Float[Tensor, "batch *dims"],
        cond: Cond | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch"]:
        """The loss of each sample, of shape (B,); `generator` draws σ, then the noise, on its own device."""
        check_floating("x0", x0)
        self.look_at(denoiser)
        sigma = self.noise.sample(len(x0), stratified=self.stratified, generator=generator)
        device = x0.device if generator is None else generator.device
        wide = torch.promote_types(x0.dtype, torch.float32)
        noise = torch.randn(x0.shape, dtype=wide, generator=generator, device=device).to(x0.device)
        return self.terms(denoiser, x0, sigma, cond, noise=noise).objective

    def terms(
        self,
        denoiser: Denoiser,
        x0: Float[Tensor, "batch *dims"],
        sigma: Float[Tensor, "batch"],
        cond: Cond | None = None,
        *,
        noise: Float[Tensor, "batch *dims"],
    ) -> Terms:
        """The loss of each sample, and more, at given noise levels and with given noise of unit variance."""
        own: Weight | None = stated(denoiser, "weight")
        if not callable(own) or isinstance(own, Tensor):  # a parameter of this name
            own = None
        weight = own if self.weight is None else self.weight
        if weight is None:
            raise ValueError("weight: the denoiser has no weight(sigma) of its own; pass DenoisingLoss(weight=…)")
        error = denoising_error(denoiser, x0, sigma, cond, noise=noise)
        weighted = weight(sigma).to(error) * error
        dims = x0[0].numel()
        reduced, count = (weighted, dims) if self.reduction == "sum" else (weighted / dims, 1)
        ratio = self.noise.importance(sigma).to(error)
        loss = objective = ratio * reduced
        gradient = weighted.detach()
        if self.weight is not None and own is not None:
            gradient = gradient * (weight(sigma) / own(sigma)).to(error)
        if self.uncertainty is not None:
            u = self.uncertainty(sigma.to(x0.device)).to(error)
            objective = ratio * (reduced / u.exp() + count * u)
            gradient = gradient * (-2 * u.detach()).exp()
        return Terms(error.detach(), loss.detach(), objective, gradient)
