"""Dormand and Prince's pair of orders 5 and 4: as many steps as a tolerance asks for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.protocols import Request, SigmaPath, Step
from diffspace.sampling.solvers.runge_kutta import Tableau, advance, stages

__all__ = ["DormandPrince"]

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
_SHORTEST = 1e-10  # in ln σ


def _fifth_root(values: Tensor) -> Tensor:
    """By the logarithm, since a power's last bit may depend on where in a batch it stands."""
    return (values.log() / 5).exp()


class _Memory(NamedTuple):
    """dx/d ln σ at the state, (B, *dims), and the length of the next step that each sample wants, (B,)."""

    slope: Tensor
    h: Tensor


@dataclass(frozen=True)
class DormandPrince:
    """Dormand and Prince's embedded pair for dx/d ln σ = x − D(x; σ) of the unscaled x: fifth order, error by fourth.

    Within each given step it takes steps of its own, such that the root mean square over a sample of
    error/(atol + rtol·|x|) is at most 1 in each; the error at the end is proportional to the tolerance. Every sample
    has its own steps, so that it does not depend on its batch: D is asked for at levels of shape (B,), until the
    slowest sample is done. Six evaluations for a step tried, one or two more at the start of a run, none in a last
    step to σ = 0, which ends at D. With `atol` infinite it takes the given steps as they are.

    For reference solutions, encoding and likelihoods. Gradients go through the steps taken, not through their lengths.
    FloatingPointError where steps become shorter than 1e-10 in ln σ, or more than `max_steps` are tried within a given
    one: D is not finite, not smooth, or not as precise as the tolerance.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 10_000
    multistep: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, value, finite in (("rtol", self.rtol, True), ("atol", self.atol, False)):
            if not (value >= 0 and (math.isfinite(value) or not finite)):
                raise ValueError(f"{name}: {value}; want {'a finite' if finite else 'a'} number, not negative")
        if self.rtol == 0 and self.atol == 0:
            raise ValueError("rtol, atol: 0 and 0; want at least one of them positive")
        if self.max_steps < 1:
            raise ValueError(f"max_steps: {self.max_steps}; want at least 1")

    @property
    def order(self) -> int:
        return 5

    def evaluations(self, to_zero: bool) -> None:
        return None

    def step(self, path: SigmaPath, x: Tensor, t: float, t_next: float, memory: _Memory | None) -> Step:
        (sigma, s), (end, s_end) = path.level(t), path.level(t_next)
        x = x if s == 1 else x / s
        denoised = yield Request(x, sigma, None if memory is None else x - memory.slope)
        if end == 0:
            return denoised if s_end == 1 else denoised * s_end, None
        x, memory = yield from self._between(x, sigma, end, memory, denoised)
        return x if s_end == 1 else x * s_end, memory

    def _between(
        self, x: Tensor, sigma: float, end: float, memory: _Memory | None, denoised: Tensor
    ) -> Generator[Request, Tensor, tuple[Tensor, _Memory]]:
        """As many steps as each sample wants, from σ to `end`, both positive."""
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        here = torch.full((len(x),), math.log(sigma), dtype=wide, device=x.device)
        there = torch.full_like(here, math.log(end))
        low, high, sign = min(sigma, end), max(sigma, end), 1.0 if end > sigma else -1.0
        y = x  # of the stage that was asked for last

        def by_sample(values: Tensor) -> Tensor:
            return values.reshape(-1, *(1,) * (x.ndim - 1))

        def slope_at(at: Tensor, state: Tensor) -> Generator[Request, Tensor, Tensor]:
            nonlocal y
            y = state
            level = torch.where(at == there, end, at.exp().clamp(low, high))
            return state - (yield Request(state, level.to(x)))

        if memory is None:
            slope = x - denoised
            remaining = (there - here).abs()
            if math.isinf(self.atol):
                h = torch.full_like(here, math.inf)
            else:  # Hairer, Nørsett and Wanner 1993, II.4
                size, rise = self._norm(x, x, x), self._norm(slope, x, x)
                trial = torch.where((size > 1e-5) & (rise > 1e-5), 0.01 * size / rise, 1e-6).minimum(remaining)
                step = by_sample(sign * trial).to(x)
                moved = yield from slope_at(here + sign * trial, advance(x, step, [slope], (1.0,)))
                bend = self._norm(moved - slope, x, x) / trial
                h = _fifth_root(0.01 / rise.maximum(bend)).minimum(100 * trial)
        else:
            slope, h = memory

        for tried in itertools.count():
            remaining = (there - here).abs()
            unfinished = remaining > 0
            if not unfinished.any():
                break
            if tried == self.max_steps or not (h >= _SHORTEST)[unfinished].all():
                raise FloatingPointError(
                    f"denoiser: between σ = {sigma:g} and {end:g}, {tried} steps tried do not reach rtol = "
                    f"{self.rtol:g}, atol = {self.atol:g}; want finite values, a larger tolerance or more max_steps"
                )
            length, last = h.minimum(remaining), h >= remaining
            start, step = here, by_sample(sign * length).to(x)
            target = torch.where(last, there, start + sign * length)

            def slope_of_stage(
                c: float, state: Tensor, start: Tensor = start, target: Tensor = target
            ) -> Generator[Request, Tensor, Tensor]:
                return slope_at(target if c == 1 else torch.lerp(start, target, c), state)

            slopes = yield from stages(_PAIR, slope_of_stage, x, step, slope)
            error = self._norm(advance(torch.zeros_like(x), step, slopes, _ERROR), x, y)
            # in 64ths, so that the last bit of a sum does not move the steps
            factor = (0.9 / _fifth_root(error)).nan_to_num(nan=0.0).clamp(0.2, 10).mul(64).floor().div(64)
            accepted = unfinished & (error <= 1)
            # a step cut short at the end says nothing against the length that it was cut from
            h = torch.where(accepted & last, h.maximum(length * factor), length * factor).where(unfinished, h)
            here = torch.where(accepted, target, here)
            keep = by_sample(accepted)
            x, slope = torch.where(keep, y, x), torch.where(keep, slopes[-1], slope)
        return x, _Memory(slope, h)

    @torch.no_grad()
    def _norm(self, values: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The root mean square over each sample of values/(atol + rtol·|x|), for the larger of two x; (B,)."""
        scale = self.atol + self.rtol * x.abs().maximum(y.abs())
        shares = values / scale.clamp_min(torch.finfo(x.dtype).tiny)
        squares = shares.reshape(len(x), -1).square().mean(1)
        return squares.sqrt().to(torch.float32 if x.device.type == "mps" else torch.float64)
