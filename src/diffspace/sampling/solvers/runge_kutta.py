"""Explicit Runge–Kutta methods by their tableaux."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.protocols import Request
from diffspace.sampling.solvers.base import Point, Solver, Step, combine


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
    """The classical method of fourth order for dx/dt = a·x − b·D(x/s; σ), in the time of the process.

    Four evaluations a step, one in a step to σ = 0, which is Euler's.
    """

    order = 4

    def step(self, x: Tensor, start: Point, end: Point, memory: None) -> Step:
        def slope(c: float, y: Tensor) -> Generator[Request, Tensor, Tensor]:
            point = start.toward(end, c)
            return point.slope(y, (yield point.request(y)))

        h = end.t - start.t
        first = yield from slope(0.0, x)
        slopes = yield from stages(_CLASSICAL, slope, x, h, first)
        return advance(x, h, slopes, _CLASSICAL.b), None
