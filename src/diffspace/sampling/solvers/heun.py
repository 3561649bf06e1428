"""Single-step solvers of the ODE dx/dt = a(t)·x − b(t)·D(x/s; σ) (Algorithm 1 and Appendix D.2).

A step is a coroutine: it yields a request for D and is sent the answer. Its stages are linear combinations of x and of
the D's with coefficients that are plain numbers, made in as few passes over memory as can be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from diffspace._shapes import Tensor
from diffspace.protocols import Point, Request, SigmaPath, Step

__all__ = ["Euler", "Heun"]


def _request(x: Tensor, point: Point) -> Request:
    return Request(x if point.s == 1 else x / point.s, point.sigma)


def _euler(x: Tensor, denoised: Tensor, point: Point, h: float) -> Tensor:
    """x + h·(a·x − b·D)."""
    if point.a == point.b:  # s = 1, where a step goes along the line from x to D: one pass, and D itself at its end
        return torch.lerp(denoised, x, 1 + h * point.a)
    return x.mul(1 + h * point.a).add_(denoised, alpha=-h * point.b)


@dataclass(frozen=True)
class Euler:
    """x⁺ = x + h·d, with d = dx/dt at t: first order, one evaluation a step. With σ = t and s = 1 it is DDIM."""

    multistep: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False

    @property
    def order(self) -> int:
        return 1

    def evaluations(self, to_zero: bool) -> int:
        return 1

    def step(self, path: SigmaPath, x: Tensor, t: float, t_next: float, memory: None) -> Step:
        here = path.at(t)
        denoised = yield _request(x, here)
        return _euler(x, denoised, here, t_next - t), None


@dataclass(frozen=True)
class Heun:
    """The second-order family of Appendix D.2: Heun (α = 1), midpoint (α = ½), Ralston (α = ⅔).

    x' = x + α·h·d, x⁺ = x + h·((1 − 1/(2α))·d + 1/(2α)·d'), with d' = dx/dt at (x', t + α·h). Two evaluations a
    step, but one in a step to σ = 0, which is Euler's: N steps cost 2N − 1.
    """

    alpha: float = 1.0
    multistep: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and 0 < self.alpha <= 1):
            raise ValueError(f"alpha: {self.alpha}; want more than 0 and at most 1 (1 Heun, 1/2 midpoint, 2/3 Ralston)")

    @property
    def order(self) -> int:
        return 2

    def evaluations(self, to_zero: bool) -> int:
        return 1 if to_zero else 2

    def step(self, path: SigmaPath, x: Tensor, t: float, t_next: float, memory: None) -> Step:
        here = path.at(t)
        h = t_next - t
        denoised = yield _request(x, here)
        if t_next == 0:
            return _euler(x, denoised, here, h), None
        there = path.at(t + self.alpha * h if self.alpha != 1 else t_next)
        x_there = _euler(x, denoised, here, self.alpha * h)
        denoised_there = yield _request(x_there, there)
        if self.alpha == 1:  # half way to where a second step, from x', would lead
            return torch.lerp(x, _euler(x_there, denoised_there, there, h), 0.5), None
        # h·d = (x' − x)/α
        w = 1 / (2 * self.alpha)
        x = torch.lerp(x, x_there, (1 - w) / self.alpha)
        return x.add_(x_there, alpha=h * w * there.a).add_(denoised_there, alpha=-h * w * there.b), None
