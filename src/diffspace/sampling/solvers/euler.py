"""Euler's method (Algorithm 1 without its correction)."""

from __future__ import annotations

from dataclasses import dataclass

from diffspace._shapes import Tensor
from diffspace.sampling.solvers.base import Point, Solver, Step


@dataclass(frozen=True)
class Euler(Solver):
    """x⁺ = x + h·d, with d = dx/dt at t: first order, one evaluation a step. With σ = t and s = 1 it is DDIM."""

    order = 1

    def step(self, x: Tensor, start: Point, end: Point, memory: None) -> Step:
        denoised = yield start.request(x)
        return start.euler(x, denoised, end.t - start.t), None
