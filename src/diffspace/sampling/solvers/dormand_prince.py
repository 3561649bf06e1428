"""Dormand and Prince's pair of orders 5 and 4, with steps chosen by a tolerance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_integer, check_number
from diffspace.protocols import Request, data_scale
from diffspace.sampling.solvers.base import Point, Step, UnscaledSolver
from diffspace.sampling.solvers.runge_kutta import Tableau, advance, stages

# the last stage is at the result, and its slope the first of the next step (Dormand and Prince 1980, Table 2)
_PAIR = Tableau(
    (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    (
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
)
_FOURTH = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
_ERROR = tuple(b - b4 for b, b4 in zip(_PAIR.b, _FOURTH, strict=True))
_ATOL = 1e-5  # for σ_data = 0.5
_SHORTEST = 1e-10  # in ln σ


def _fifth_root(values: Tensor) -> Tensor:
    """By the logarithm, since the last bit of a power may depend on the position in a batch."""
    return (values.log() / 5).exp()


def _by_sample(values: Tensor, x: Tensor) -> Tensor:
    """Values (B,) in a shape that broadcasts with x, (B, *dims)."""
    return values.reshape(-1, *(1,) * (x.ndim - 1))


# dx/d ln σ at the state, (B, *dims), and the length of each sample's next step, (B,)
_Memory: TypeAlias = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class DormandPrince(UnscaledSolver):
    """Dormand and Prince's embedded pair for dx/d ln σ = x − D(x; σ) of the unscaled x: fifth order, error by fourth.

    It divides each given step so that the root mean square over a sample of error/(atol + rtol·|x|) is at most 1 in
    each part; with `atol` infinite it does not. By default `atol` is 2e-5·σ_data, which is 1e-5 for the paper's data.
    Every sample has its own steps and does not depend on its batch: D is requested at levels of shape (B,) until the
    slowest sample is done. Each step that is tried takes six evaluations, the start of a run one or two more, a last
    step to σ = 0 none: it ends at D.

    Gradients go through the steps taken, not through their lengths. FloatingPointError where steps become shorter than
    1e-10 in ln σ, or more than `max_steps` are tried within a given one: D is not finite, not smooth, or less precise
    than the tolerance.
    """

    rtol: float = 1e-5
    atol: float | None = None
    max_steps: int = 10_000
    order = 5
    multistep = True

    def __post_init__(self) -> None:
        check_number("rtol", self.rtol, "[0, inf)")
        if self.atol is not None:
            check_number("atol", self.atol, "[0, inf]")
        if self.rtol == 0 and self.atol == 0:
            raise ValueError("rtol, atol: both are 0; at least one must be positive")
        check_integer("max_steps", self.max_steps, 1)

    def for_denoiser(self, denoiser: object) -> DormandPrince:
        return replace(self, atol=_ATOL * data_scale(denoiser)) if self.atol is None else self

    @property
    def absolute(self) -> float:
        """The absolute tolerance."""
        return _ATOL if self.atol is None else self.atol

    def evaluations(self, to_zero: bool) -> None:
        return None

    def step_to_zero(self, x: Tensor, start: Point, end: Point, memory: _Memory | None) -> Step:
        """To D, which is known from the slope at the end of the step before."""
        x = start.unscale(x)
        denoised = yield Request(x, start.sigma, None if memory is None else x - memory[0])
        return end.scale(denoised), None

    def unscaled_step(self, x: Tensor, start: Point, end: Point, memory: _Memory | None) -> Step:
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        here = torch.full((len(x),), math.log(start.sigma), dtype=wide, device=x.device)
        there = torch.full_like(here, math.log(end.sigma))
        low, high = sorted((start.sigma, end.sigma))
        sign = 1.0 if end.sigma > start.sigma else -1.0
        y = x  # of the stage that was requested last

        def slope_at(at: Tensor, state: Tensor) -> Generator[Request, Tensor, Tensor]:
            nonlocal y
            y = state
            level = torch.where(at == there, end.sigma, at.exp().clamp(low, high))
            return state - (yield Request(state, level.to(x)))

        # requested even where it is known, so that the driver reports it
        denoised = yield Request(x, start.sigma, None if memory is None else x - memory[0])
        if memory is not None:
            slope, h = memory
        else:
            slope, remaining = x - denoised, (there - here).abs()
            h = torch.full_like(here, math.inf)
            if math.isfinite(self.absolute):  # Hairer, Nørsett and Wanner 1993, II.4
                size, rise = self._norm(x, x, x), self._norm(slope, x, x)
                trial = torch.where((size > 1e-5) & (rise > 1e-5), 0.01 * size / rise, 1e-6).minimum(remaining)
                step = _by_sample(sign * trial, x).to(x)
                moved = yield from slope_at(here + sign * trial, advance(x, step, [slope], (1.0,)))
                bend = self._norm(moved - slope, x, x) / trial
                h = _fifth_root(0.01 / rise.maximum(bend)).minimum(100 * trial)

        for tried in itertools.count():
            remaining = (there - here).abs()
            unfinished = remaining > 0
            if not unfinished.any():
                break
            if tried == self.max_steps or not (h >= _SHORTEST)[unfinished].all():
                raise FloatingPointError(
                    f"denoiser: {tried} steps between σ = {start.sigma:g} and {end.sigma:g} do not reach rtol = "
                    f"{self.rtol:g}, atol = {self.absolute:g}; check that D is finite, or raise a tolerance or "
                    "max_steps"
                )
            length, last = h.minimum(remaining), h >= remaining
            origin, step = here, _by_sample(sign * length, x).to(x)
            target = torch.where(last, there, origin + sign * length)

            def slope_of_stage(
                c: float, state: Tensor, origin: Tensor = origin, target: Tensor = target
            ) -> Generator[Request, Tensor, Tensor]:
                return slope_at(target if c == 1 else torch.lerp(origin, target, c), state)

            slopes = yield from stages(_PAIR, slope_of_stage, x, step, slope)
            error = self._norm(advance(torch.zeros_like(x), step, slopes, _ERROR), x, y)
            # in 64ths, so that the last bit of a sum does not move the steps
            factor = (0.9 / _fifth_root(error)).nan_to_num(nan=0.0).clamp(0.2, 10).mul(64).floor().div(64)
            accepted = unfinished & (error <= 1)
            # the length of a step that was cut short at the end does not limit the next one
            h = torch.where(accepted & last, h.maximum(length * factor), length * factor).where(unfinished, h)
            here = torch.where(accepted, target, here)
            keep = _by_sample(accepted, x)
            x, slope = torch.where(keep, y, x), torch.where(keep, slopes[-1], slope)
        return x, (slope, h)

    @torch.no_grad()
    def _norm(self, values: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The root mean square over each sample of values/(atol + rtol·|x|), for the larger of two x; (B,)."""
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        scale = self.absolute + self.rtol * x.abs().maximum(y.abs()).to(wide)
        shares = values.to(wide) / scale.clamp_min(torch.finfo(wide).tiny)
        return shares.reshape(len(x), -1).square().mean(1).sqrt()
