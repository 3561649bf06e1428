"""The loss at each noise level beside what is trivial and what is attainable."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffspace._shapes import Float, Tensor
from diffspace.objective.loss import denoising_error
from diffspace.protocols import Cond, Denoiser

__all__ = ["LossBySigma", "loss_by_sigma"]


@dataclass(frozen=True)
class LossBySigma:
    """Mean squared error per dimension at each σ, with its standard error, in float64.

    `trivial` is the error of the trivial denoiser, which always answers the mean of the data; it is the same at
    every σ, namely their variance. `attainable` is that of the given oracle on the same noise and conditions, None
    without one. Multiply by λ(σ) for the weighted loss.
    """

    sigma: Float[Tensor, "levels"]
    mse: Float[Tensor, "levels"]
    standard_error: Float[Tensor, "levels"]
    trivial: Float[Tensor, "levels"]
    attainable: Float[Tensor, "levels"] | None


@torch.no_grad()
def loss_by_sigma(
    denoiser: Denoiser,
    x0: Float[Tensor, "batch *dims"],
    cond: Cond | None = None,
    *,
    sigmas: Float[Tensor, "levels"],
    oracle: Denoiser | None = None,
    mean: Float[Tensor, "*dims"] | None = None,
    seed: int = 0,
    batch_size: int = 1024,
) -> LossBySigma:
    """The squared error of D on the data x0 at every level, all levels with the same noise.

    `mean` is the mean of the training data (default: of x0), which the trivial denoiser answers.
    """
    if len(x0) < 2:
        raise ValueError(f"x0: {len(x0)} samples; want at least 2 to estimate an error")
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size}; want at least 1")
    if not bool((sigmas > 0).all()):
        raise ValueError("sigmas: want positive noise levels")
    # far from the small seeds of which data are made, whose normal numbers it would repeat
    generator = torch.Generator().manual_seed((seed + 0x9E3779B9) & 0xFFFFFFFF)
    noise = torch.randn(x0.shape, dtype=x0.dtype, generator=generator).to(x0.device)
    chunks = [slice(i, i + batch_size) for i in range(0, len(x0), batch_size)]

    def errors(of: Denoiser, level: float, conditions: Cond | None) -> Tensor:
        sigma = torch.full((len(x0),), level, dtype=x0.dtype, device=x0.device)
        parts = [
            denoising_error(
                of,
                x0[k],
                sigma[k],
                conditions and {name: c[k] for name, c in conditions.items()},
                noise=noise[k],
            )
            for k in chunks
        ]
        return torch.cat(parts).cpu().double() / x0[0].numel()

    levels = sigmas.to("cpu", torch.float64)
    own = torch.stack([errors(denoiser, float(level), cond) for level in levels])
    least = None
    if oracle is not None:
        least = torch.stack([errors(oracle, float(level), cond) for level in levels]).mean(1)
    centre = x0.mean(0) if mean is None else mean
    variance = (x0 - centre).cpu().double().square().mean()
    return LossBySigma(
        sigma=levels,
        mse=own.mean(1),
        standard_error=own.std(1) / len(x0) ** 0.5,
        trivial=variance.expand_as(levels).clone(),
        attainable=least,
    )
