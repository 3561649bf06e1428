"""Inpainting: known values replace the estimate, and resampling makes the unknown part agree with them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from diffspace._shapes import Batch, Sigma, Tensor
from diffspace.checks import check_integer
from diffspace.guidance.wrapper import Wrapper, check_mask
from diffspace.protocols import Cond, Denoiser, sigma_range
from diffspace.sampling import (
    AnalyticalFirstStep,
    Execution,
    GivenSteps,
    GivenTimes,
    Sampler,
    Samples,
    sample,
    sample_from,
    step_noise,
)
from diffspace.sampling.driver import round_sigmas
from diffspace.sampling.start import Noise
from diffspace.sampling.steps import steps_for
from diffspace.sampling.streams import substreams
from diffspace.tensors import check_floating


class Replacement(Wrapper):
    """D with the known values where `mask` is True (Song et al. 2021, Appendix I.2; Lugmayr et al. 2022).

    The known part is exact: it follows the straight line known + σ·ε of its starting noise with any solver. The rest is
    not: at σ it depends on the known values only through that noise, and agrees too little with them. `repaint` reduces
    this; `MMPS` with `Mask` conditions on the values themselves. `mask` (bool) and `known` broadcast to x.
    """

    def __init__(self, denoiser: Denoiser, mask: Tensor, known: Tensor) -> None:
        super().__init__(denoiser)
        check_mask(mask)
        check_floating("known", known)
        self.mask, self.known = mask, known

    def in_rows(self, dims: int) -> tuple[Tensor, ...]:
        """Mask and known values, where they have a dimension for the samples."""
        return tuple(value for value in (self.mask, self.known) if value.ndim > dims)

    def forward(self, x: Batch, sigma: Sigma, cond: Cond | None = None) -> Batch:
        denoised = self.denoiser(x, sigma, cond)
        try:
            mask, known = self.mask.to(x.device).expand_as(x), self.known.to(denoised).expand_as(x)
        except RuntimeError:
            shapes = f"{tuple(self.mask.shape)}, {tuple(self.known.shape)}"
            raise ValueError(f"mask, known: shapes {shapes} do not broadcast to x of shape {tuple(x.shape)}") from None
        return torch.where(mask, known, denoised)


def repaint(
    denoiser: Denoiser,
    *,
    seeds: Sequence[int] | None = None,
    shape: Sequence[int] | None = None,
    latents: Batch | None = None,
    sampler: Sampler | None = None,
    resamplings: int = 10,
    jump: int = 1,
    cond: Cond | None = None,
    noise: Noise | None = None,
    execution: Execution | None = None,
) -> Samples:
    """`sample` with jumps back to higher noise (Lugmayr et al. 2022, arXiv:2201.09865).

    The N steps are divided into pieces of `jump` steps. Each piece, from σ to σ', is run `resamplings` times; between
    the runs x is noised again, x ← x + √(σ² − σ'²)·ε, which is the forward process in unscaled x. With a `Replacement`
    as denoiser, the known part then has other noise in each run. `resamplings=1` is `sample`. Multistep solvers start
    anew in each piece, and what a stochastic solver draws is new in each run. The result's `sigmas` and `num_steps` are
    those of a single pass; `nfe` counts all evaluations.

    Args:
        denoiser, seeds, shape, latents, cond: as in `sample`.
        sampler: how to sample, without churn.
        resamplings: runs of each piece.
        jump: steps of a piece.
        noise: noise(k, like) returns the k-th noise that is drawn, by a jump or a stochastic solver. Default: that of
            each sample's seed.
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
        raise ValueError("seeds: are missing, from which jumps draw noise; pass seeds, or noise together with latents")
    steps = steps_for(denoiser, sampler.steps)
    levels: list[float] = round_sigmas(denoiser, steps.sigmas(sigma_range(denoiser))).tolist()
    piece: Samples | None = None
    jumps, nfe, draws = 0, 0, itertools.count()

    def drawn(_: int, like: Tensor) -> Tensor:
        return noise(next(draws), like) if noise is not None else step_noise(seeds or (), next(draws), like.shape[1:])

    for first in range(0, len(levels) - 1, jump):
        high, low = levels[first], levels[min(first + jump, len(levels) - 1)]
        part = replace(sampler, steps=GivenSteps(tuple(levels[first : first + jump + 1])))
        common: dict[str, Any] = {"sampler": part, "cond": cond, "execution": execution}
        if part.adds_noise and noise is not None:
            common["noise"] = drawn
        for again in range(resamplings):
            if piece is None:
                piece = sample(denoiser, seeds=seeds, shape=shape, latents=latents, **common)
                if isinstance(sampler.solver, AnalyticalFirstStep):  # whose first step was this
                    sampler = replace(sampler, solver=sampler.solver.solver)
                    common["sampler"] = part = replace(part, solver=sampler.solver)
            else:
                x, streams = piece.x, seeds
                if again:
                    draw = drawn(0, x)
                    if draw.shape != x.shape:
                        raise ValueError(f"noise: shape {tuple(draw.shape)} for a state of shape {tuple(x.shape)}")
                    x = x + math.sqrt(high**2 - low**2) * draw.to(x)
                    jumps += 1
                    # the Brownian path of a seed has been walked here already
                    streams = None if seeds is None else substreams(seeds, -jumps)
                piece = sample_from(denoiser, x, high, seeds=streams, **common)
            nfe += piece.nfe
    if piece is None:
        raise ValueError(f"sampler: expected at least one step, got {sampler.steps}")
    sigmas = torch.tensor(levels, dtype=torch.float64, device="cpu")
    own = None if seeds is None else tuple(seeds)
    return replace(piece, sigmas=sigmas, num_steps=len(levels) - 1, nfe=nfe, seeds=own)
