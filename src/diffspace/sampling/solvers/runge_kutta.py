"""Explicit Runge–Kutta methods: Euler, Heun and its kin (Algorithm 1, Appendix D.2), and any other by its tableau."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_number
from diffspace.protocols import Request
from diffspace.sampling.solvers.base import Point, Solver, Step, combine


@dataclass(frozen=True)
class Euler(Solver):
    """x⁺ = x + h·d, with d = dx/dt at t: first order, one evaluation a step. With σ = t and s = 1 it is DDIM."""

    order = 1

    def step(self, x: Tensor, start: Point, end: Point, memory: None) -> Step:
        denoised = yield start.request(x)
        return start.euler(x, denoised, end.t - start.t), None


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


class Tableau(NamedTuple):
    """Butcher's: the stages after the first by their shares c of the step and rows a, then the weights b.

    The result is x + h·Σ_j b_j·k_j of the slopes k, of which the i-th is taken at x + h·Σ_j a_ij·k_j.
    """

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


def advance(x: Tensor, h: float | Tensor, slopes: list[Tensor], coefficients: tuple[float, ...]) -> Tensor:
    """x + h·Σ_j a_j·k_j; h may be a tensor with a value for each sample, and then the first a is not 0."""
    if isinstance(h, Tensor):
        first, *others = zip(slopes, coefficients, strict=True)
        return torch.addcmul(x, combine(*first, others), h)
    return combine(x, 1.0, ((slope, h * a) for slope, a in zip(slopes, coefficients, strict=True)))


def stages(
    tableau: Tableau,
    slope: Callable[[float, Tensor], Generator[Request, Tensor, Tensor]],
    x: Tensor,
    h: float | Tensor,
    first: Tensor,
) -> Generator[Request, Tensor, list[Tensor]]:
    """The slopes of all stages, of which the first is known; slope(c, y) asks for that at y, a share c of the way."""
    slopes = [first]
    for c, row in zip(tableau.c, tableau.a, strict=True):
        slopes.append((yield from slope(c, advance(x, h, slopes, row))))
    return slopes


_CLASSICAL = Tableau((1 / 2, 1 / 2, 1.0), ((1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))


@dataclass(frozen=True)
class RungeKutta4(Solver):
    """The classical method of fourth order for dx/dt = a·x − b·D(x/s; σ): four evaluations a step, one to σ = 0."""

    order = 4

    def step(self, x: Tensor, start: Point, end: Point, memory: None) -> Step:
        def slope(c: float, y: Tensor) -> Generator[Request, Tensor, Tensor]:
            point = start.toward(end, c)
            return point.slope(y, (yield point.request(y)))

        h = end.t - start.t
        first = yield from slope(0.0, x)
        slopes = yield from stages(_CLASSICAL, slope, x, h, first)
        return advance(x, h, slopes, _CLASSICAL.b), None
