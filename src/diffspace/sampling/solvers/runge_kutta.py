"""Explicit Runge–Kutta methods by their tableaux."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.protocols import Request, SigmaPath, Step
from diffspace.sampling.solvers.combination import combine

__all__ = ["RungeKutta4", "Tableau", "advance", "stages"]

Slope = Callable[[float, Tensor], Generator[Request, Tensor, Tensor]]


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
    tableau: Tableau, slope: Slope, x: Tensor, h: float | Tensor, first: Tensor
) -> Generator[Request, Tensor, list[Tensor]]:
    """The slopes of all stages, of which the first is known; slope(c, y) asks for that at y, a share c on the way."""
    slopes = [first]
    for c, row in zip(tableau.c, tableau.a, strict=True):
        slopes.append((yield from slope(c, advance(x, h, slopes, row))))
    return slopes


_CLASSICAL = Tableau((1 / 2, 1 / 2, 1.0), ((1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))


@dataclass(frozen=True)
class RungeKutta4:
    """The classical method of fourth order for dx/dt = a·x − b·D(x/s; σ), in the time of the process.

    Four evaluations a step, one in a step to σ = 0, which is Euler's.
    """

    multistep: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False

    @property
    def order(self) -> int:
        return 4

    def evaluations(self, to_zero: bool) -> int:
        return 1 if to_zero else 4

    def step(self, path: SigmaPath, x: Tensor, t: float, t_next: float, memory: None) -> Step:
        h = t_next - t

        def slope(c: float, y: Tensor) -> Generator[Request, Tensor, Tensor]:
            point = path.at(t_next if c == 1 else t + c * h)
            denoised = yield Request(y if point.s == 1 else y / point.s, point.sigma)
            if point.a == point.b:
                return torch.sub(y, denoised).mul_(point.a)
            return y.mul(point.a).sub_(denoised, alpha=point.b)

        first = yield from slope(0.0, x)
        if t_next == 0:
            return advance(x, h, [first], (1.0,)), None
        slopes = yield from stages(_CLASSICAL, slope, x, h, first)
        return advance(x, h, slopes, _CLASSICAL.b), None
