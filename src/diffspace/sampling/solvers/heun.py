"""Heun's method and its kin (Algorithm 1 and Appendix D.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_number
from diffspace.sampling.solvers.base import Point, Solver, Step


@dataclass(frozen=True)
class Heun(Solver):
    """The second-order family of Appendix D.2: Heun (α = 1), midpoint (α = ½), Ralston (α = ⅔).

    x' = x + α·h·d, x⁺ = x + h·((1 − w)·d + w·d'), with d' = dx/dt at (x', t + α·h) and w = 1/(2α). Two evaluations a
    step, but one in a step to σ = 0, which is Euler's: N steps cost 2N − 1.
    """

    alpha: float = 1.0
    order = 2

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, "(0, 1]")

    def step(self, x: Tensor, start: Point, end: Point, memory: None) -> Step:
        h, w = end.t - start.t, 1 / (2 * self.alpha)
        middle = start.toward(end, self.alpha)
        denoised = yield start.request(x)
        x_middle = start.euler(x, denoised, self.alpha * h)
        denoised = yield middle.request(x_middle)
        a, b = middle.ode
        x = torch.lerp(x, x_middle, (1 - w) / self.alpha)  # x + (1 − w)·h·d, as h·d = (x' − x)/α
        return x.add_(x_middle, alpha=w * h * a).add_(denoised, alpha=-w * h * b), None
