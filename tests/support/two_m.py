"""DPM-Solver++(2M) written out, as somebody would who has a solver of their own."""

import math
from dataclasses import dataclass
from typing import ClassVar

from diffspace.protocols import Request


@dataclass(frozen=True)
class TwoM:
    """x⁺ = (σ⁺/σ)·x − (e^{−h} − 1)·(D + (D − D_before)/(2r)), h = ln(σ/σ⁺), r = h_before/h; Euler first and last."""

    multistep: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False
    order = 2

    def evaluations(self, to_zero):
        return 1

    def step(self, path, x, t, t_next, memory):
        sigma, end = path.level(t)[0], path.level(t_next)[0]
        denoised = yield Request(x, sigma)
        if end == 0:
            return denoised, None
        target = denoised
        if memory is not None:
            before, at_before = memory
            r = math.log(before / sigma) / math.log(sigma / end)
            target = denoised + (denoised - at_before) / (2 * r)
        return end / sigma * x + (1 - end / sigma) * target, (sigma, denoised)
