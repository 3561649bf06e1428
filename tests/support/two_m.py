"""DPM-Solver++(2M) written out, as somebody would who has a solver of their own."""

import math
from dataclasses import dataclass

from diffspace.protocols import Request
from diffspace.sampling.solvers.base import UnscaledSolver


@dataclass(frozen=True)
class TwoM(UnscaledSolver):
    """x⁺ = (σ⁺/σ)·x − (e^{−h} − 1)·(D + (D − D_before)/(2r)), h = ln(σ/σ⁺), r = h_before/h; Euler first and last."""

    order = 2
    multistep = True

    def unscaled_step(self, x, start, end, memory):
        sigma, end = start.sigma, end.sigma
        denoised = yield Request(x, sigma)
        target = denoised
        if memory is not None:
            before, at_before = memory
            r = math.log(before / sigma) / math.log(sigma / end)
            target = denoised + (denoised - at_before) / (2 * r)
        return end / sigma * x + (1 - end / sigma) * target, (sigma, denoised)
