"""Inpainting: what is known is put in place of the estimate, and resampling makes the rest agree with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_integer
from diffspace.guidance.wrapper import Wrapper
from diffspace.protocols import Cond, Denoiser, sigma_range
from diffspace.sampling import Execution, GivenSteps, GivenTimes, Sampler, Samples, sample, sample_from, step_noise
from diffspace.sampling.driver import round_sigmas
from diffspace.sampling.start import Noise


class Replacement(Wrapper):
    """D with the known values in its place where `mask` is True (Song et al. 2021, Appendix I.2; Lugmayr et al. 2022).

    The known part is exact: it runs on the straight line known + σ·ε of its own starting noise, with any solver, and
    with σ = t and s = 1 ends in the known values to the last bit. The rest is not: at σ it depends on the known values
    only through that noise, and so agrees too little with them. `repaint` reduces this; `MMPS` with `Mask` conditions
    on the values themselves.

    `mask` (bool) and `known` broadcast to x, so they are of the shape of a sample, or have a row for each.
    """

    def __init__(self, denoiser: Denoiser, mask: Tensor, known: Tensor) -> None:
        super().__init__(denoiser)
        if mask.dtype != torch.bool:
            raise ValueError(f"mask: expected bool, True where the values are known, got {mask.dtype}")
        self.mask = mask
        self.known = known

    def denoise(self, x: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        """D(x; σ), with the known values in their place."""
        denoised = self.denoiser(x, sigma, cond)
        try:
            mask, known = self.mask.to(x.device).expand_as(x), self.known.to(denoised).expand_as(x)
        except RuntimeError:
            raise ValueError(
                f"mask, known: shapes {tuple(self.mask.shape)}, {tuple(self.known.shape)} do not broadcast to x of "
                f"shape {tuple(x.shape)}"
            ) from None
        return torch.where(mask, known, denoised)


def repaint(
    denoiser: Denoiser,
    *,
    seeds: Sequence[int] | None = None,
    shape: Sequence[int] | None = None,
    latents: Float[Tensor, "batch *dims"] | None = None,
    sampler: Sampler | None = None,
    resamplings: int = 10,
    jump: int = 1,
    cond: Cond | None = None,
    noise: Noise | None = None,
    execution: Execution | None = None,
) -> Samples:
    """`sample` with jumps back up (Lugmayr et al. 2022, arXiv:2201.09865): every piece is repeated.

    The N steps are cut into pieces of `jump` steps. Each piece, from σ to σ', is run `resamplings` times; in between
    x is noised back, x ← x + √(σ² − σ'²)·ε, which is the forward process in unscaled x. With a `Replacement` as
    denoiser, each time the unknown part sees other noise of the known one. `resamplings=1` is `sample`. Solvers that
    remember steps start anew in each piece. The result's `sigmas` and `num_steps` are those of one way down; `nfe`
    counts all evaluations.

    Args:
        denoiser, seeds, shape, latents, cond: as in `sample`.
        sampler: how to sample, without churn.
        resamplings: how often each piece is run.
        jump: steps in a piece.
        noise: noise(k, like) gives the noise of jump k. Default: `step_noise` of each sample's seed.
        execution: as in `sample`, without `trajectory`.
    """
    check_integer("resamplings", resamplings, 1)
    check_integer("jump", jump, 1)
    sampler = Sampler() if sampler is None else sampler
    if sampler.churn.S_churn > 0 or isinstance(sampler.steps, GivenTimes):
        raise ValueError("sampler: churn and given times are not supported; expected noise levels without churn")
    if execution is not None and execution.trajectory:
        raise ValueError("execution: trajectory is not supported here; leave it out")
    if noise is None and seeds is None and resamplings > 1:
        raise ValueError("seeds: jumps draw noise for each sample; give seeds, or noise beside the latents")
    levels: list[float] = round_sigmas(denoiser, sampler.steps.sigmas(sigma_range(denoiser))).tolist()
    piece: Samples | None = None
    jumps, nfe = 0, 0
    for first in range(0, len(levels) - 1, jump):
        high, low = levels[first], levels[min(first + jump, len(levels) - 1)]
        part = replace(sampler, steps=GivenSteps(tuple(levels[first : first + jump + 1])))
        common: dict[str, Any] = {"seeds": seeds, "sampler": part, "cond": cond, "execution": execution}
        for again in range(resamplings):
            if piece is None:
                piece = sample(denoiser, shape=shape, latents=latents, **common)
            else:
                x = piece.x
                if again:
                    draw = step_noise(seeds or (), jumps, x.shape[1:]) if noise is None else noise(jumps, x)
                    if draw.shape != x.shape:
                        raise ValueError(f"noise: shape {tuple(draw.shape)} for a state of shape {tuple(x.shape)}")
                    x = x + math.sqrt(high**2 - low**2) * draw.to(x)
                    jumps += 1
                piece = sample_from(denoiser, x, high, **common)
            nfe += piece.nfe
    if piece is None:
        raise ValueError(f"sampler: expected at least one step, got {sampler.steps}")
    return replace(piece, sigmas=torch.tensor(levels, dtype=torch.float64), num_steps=len(levels) - 1, nfe=nfe)
