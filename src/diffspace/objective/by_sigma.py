"""The loss at each noise level beside what is trivial and what is attainable."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_integer
from diffspace.objective.loss import denoising_error
from diffspace.protocols import Cond, Denoiser


@dataclass(frozen=True)
class LossBySigma:
    """Mean squared error per dimension at each σ, with its standard error, in float64.

    `trivial` is the error of the trivial denoiser, which returns the mean of the data: their variance at every σ.
    `attainable` is that of the given oracle on the same noise and conditions, None without one. Multiply by λ(σ) for
    the weighted loss.
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

    Args:
        denoiser: D(x; σ).
        x0: the data, of shape (B, *dims).
        cond: conditions of the data, each of B entries.
        sigmas: the noise levels, of shape (levels,).
        oracle: the exact denoiser, for `attainable`.
        mean: the mean of the training data (default: of x0), which is the trivial denoiser's answer.
        seed: of the noise.
        batch_size: samples of one pass.
    """
    check_integer("x0, number of samples", len(x0), 2)
    check_integer("batch_size", batch_size, 1)
    if not bool((sigmas > 0).all()):
        raise ValueError(f"sigmas: expected positive noise levels, got {float(sigmas.min())}")
    # far from the small seeds from which data are made, whose normal numbers it would repeat
    generator = torch.Generator().manual_seed((seed + 0x9E3779B9) & 0xFFFFFFFF)
    noise = torch.randn(x0.shape, dtype=x0.dtype, generator=generator).to(x0.device)
    levels = sigmas.to("cpu", torch.float64)

    def errors(of: Denoiser) -> Tensor:
        rows = []
        for level in levels.tolist():
            for k in (slice(i, i + batch_size) for i in range(0, len(x0), batch_size)):
                sigma = torch.full((len(x0[k]),), level, dtype=x0.dtype, device=x0.device)
                given = cond and {name: c[k] for name, c in cond.items()}
                rows.append(denoising_error(of, x0[k], sigma, given, noise=noise[k]))
        return torch.cat(rows).reshape(len(levels), -1).cpu().double() / x0[0].numel()

    own = errors(denoiser)
    variance = (x0 - (x0.mean(0) if mean is None else mean)).cpu().double().square().mean()
    return LossBySigma(
        sigma=levels,
        mse=own.mean(1),
        standard_error=own.std(1) / len(x0) ** 0.5,
        trivial=variance.expand_as(levels).clone(),
        attainable=None if oracle is None else errors(oracle).mean(1),
    )
