"""Inpainting: what is known is put in place of the estimate, and resampling makes the rest agree with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from diffspace._shapes import Float, Tensor
from diffspace.guidance.wrapper import Wrapper
from diffspace.process import Process
from diffspace.protocols import Cond, Denoiser, Solver, TimeSteps, sigma_range
from diffspace.sampling import EDMSteps, GivenSteps, Samples, sample, step_noise
from diffspace.sampling.driver import round_sigmas
from diffspace.sampling.start import Noise

__all__ = ["Replacement", "repaint"]


class Replacement(Wrapper):
    """D with the known values in its place where `mask` is True (Song et al. 2021, Appendix I.2; Lugmayr et al. 2022).

    Exact: the known part. It runs on the straight line known + σ·ε of its own starting noise, with any solver, and with
    σ = t and s = 1 ends in the known values to the last bit. Not exact: the rest. At σ it is told of the known values
    only through that noise, and D then takes what they could have been for what they may still become, so its parts
    agree too little with the known ones. `repaint` mends some of it; `MMPS` with `Mask` conditions on the values
    themselves.

    `mask` (bool) and `known` broadcast to x, so they are of the shape of a sample, or have a row for each.
    """

    def __init__(self, denoiser: Denoiser, mask: Tensor, known: Tensor) -> None:
        super().__init__(denoiser)
        if mask.dtype != torch.bool:
            raise ValueError(f"mask: {mask.dtype}; want bool, True where the values are known")
        self.mask = mask
        self.known = known

    def forward(
        self,
        x: Float[Tensor, "batch *dims"],
        sigma: Float[Tensor, ""] | Float[Tensor, "batch"],
        cond: Cond | None = None,
    ) -> Float[Tensor, "batch *dims"]:
        """D(x; σ) where it is not known."""
        denoised: Tensor = self.denoiser(x, sigma, cond)
        try:
            mask, known = self.mask.to(x.device).expand_as(x), self.known.to(denoised).expand_as(x)
        except RuntimeError:
            raise ValueError(
                f"mask, known: shapes {tuple(self.mask.shape)}, {tuple(self.known.shape)}; want such as broadcast to "
                f"x of shape {tuple(x.shape)}"
            ) from None
        return torch.where(mask, known, denoised)


def repaint(
    denoiser: Denoiser,
    *,
    resamplings: int = 10,
    jump: int = 1,
    shape: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    latents: Float[Tensor, "batch *dims"] | None = None,
    steps: TimeSteps | None = None,
    solver: Solver | None = None,
    process: Process | None = None,
    cond: Cond | None = None,
    noise: Noise | None = None,
    clip: bool = False,
    grad: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Samples:
    """`sample` with jumps back up (Lugmayr et al. 2022, arXiv:2201.09865), every piece `resamplings` times.

    The N steps are cut into pieces of `jump` steps. Each piece, from σ to σ', is gone through `resamplings` times, and
    in between x is noised back, x ← x + √(σ² − σ'²)·ε, which is the forward process in unscaled x. With a `Replacement`
    as denoiser, each time the unknown part sees other noise of the known one. `resamplings=1` is `sample`.

    It is a function, for it is no denoiser (it moves x) and no solver (which goes down, and draws nothing); it takes
    any of both. Solvers that remember steps start anew in each piece. The noise of jump k of a sample is `step_noise`
    of its seed, or `noise(k, like)`. The other arguments are those of `sample`. The result's `sigmas` and `num_steps`
    are those of one way down; `nfe` counts all evaluations, `resamplings` times those of `sample` with a single-step
    solver.
    """
    for name, value in (("resamplings", resamplings), ("jump", jump)):
        if value < 1:
            raise ValueError(f"{name}: {value}; want at least 1")
    if noise is None and seeds is None and resamplings > 1:
        raise ValueError("seeds: jumps draw noise for each sample; give seeds, or noise beside the latents")
    placed = EDMSteps() if steps is None else steps
    levels: list[float] = round_sigmas(denoiser, placed.sigmas(sigma_range(denoiser), clip=clip)).tolist()
    piece: Samples | None = None
    jumps, nfe = 0, 0
    for first in range(0, len(levels) - 1, jump):
        part = GivenSteps(tuple(levels[first : first + jump + 1]))
        high, low = part.levels[0], part.levels[-1]
        for again in range(resamplings):
            x = None if piece is None else piece.x
            if x is not None and again:
                draw = step_noise(seeds or (), jumps, x.shape[1:]) if noise is None else noise(jumps, x)
                if draw.shape != x.shape:
                    raise ValueError(f"noise: shape {tuple(draw.shape)} for a state of shape {tuple(x.shape)}")
                x = x + math.sqrt(high**2 - low**2) * draw.to(x)
                jumps += 1
            piece = sample(
                denoiser,
                shape=shape if x is None else None,
                seeds=seeds,
                latents=latents if x is None else None,
                x=x,
                sigma_start=None if x is None else high,
                steps=part,
                solver=solver,
                process=process,
                cond=cond,
                grad=grad,
                dtype=dtype,
                device=device,
            )
            nfe += piece.nfe
    if piece is None:
        raise ValueError(f"steps: {placed}; want at least one step")
    return replace(piece, sigmas=torch.tensor(levels, dtype=torch.float64), num_steps=len(levels) - 1, nfe=nfe)
