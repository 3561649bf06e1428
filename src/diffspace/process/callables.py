"""Plain functions as a schedule and a scaling: derivatives by autograd, the inverse by a safeguarded search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_number
from diffspace.process.scalings import NoScaling
from diffspace.protocols import Real

Function = Callable[[Tensor], Any]

_GRID = 257
_MAX_ITERATIONS = 200


def _on_tensors(function: Function, t: Tensor, name: str) -> Tensor:
    """function(t) as a tensor of the shape of t; a constant function may return a number."""
    value = function(t)
    if not isinstance(value, Tensor):
        value = torch.full_like(t, float(value))
    if value.shape != t.shape:
        raise ValueError(f"{name}: expected a result like the times, {tuple(t.shape)}, got {tuple(value.shape)}")
    return value


def _evaluate(function: Function, t: Real, name: str) -> Real:
    if isinstance(t, Tensor):
        return _on_tensors(function, t, name)
    return float(_on_tensors(function, torch.tensor(t, dtype=torch.float64), name))


def _differentiate(function: Function, t: Real, name: str) -> Real:
    with torch.enable_grad():
        at = t.detach() if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)
        at = at.clone().requires_grad_()
        value = _on_tensors(function, at, name)
        slope = torch.zeros_like(at)
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value.sum(), at, allow_unused=True, materialize_grads=True)
    return slope if isinstance(t, Tensor) else float(slope)


@dataclass(frozen=True)
class CallableSchedule:
    """σ(t) given as a function of a tensor of times, increasing from σ(0) = 0.

    `t_max` bounds the times; if it is None, σ⁻¹ extends its search as needed. σ⁻¹ brackets the root and combines Newton
    steps with bisection. ValueError if σ(t) is not increasing (use `GivenTimes` instead) or does not reach the level.
    """

    function: Function
    t_max: float | None = None

    def __post_init__(self) -> None:
        if self.t_max is not None:
            check_number("t_max", self.t_max, "(0, inf)")

    scaling = NoScaling()

    def sigma(self, t: Real) -> Real:
        return _evaluate(self.function, t, "sigma")

    def sigma_dot(self, t: Real) -> Real:
        return _differentiate(self.function, t, "sigma")

    def sigma_inv(self, sigma: Real) -> Real:
        if not isinstance(sigma, Tensor):
            return float(self._invert(torch.tensor([sigma], dtype=torch.float64)))
        return self._invert(sigma.detach().to(torch.float64).reshape(-1)).reshape(sigma.shape).to(sigma.dtype)

    def _upper_bound(self, largest: float) -> float:
        bound = 1.0 if self.t_max is None else self.t_max
        while self.t_max is None and self.sigma(bound) < largest and bound < 1e12:
            bound *= 2
        reached = self.sigma(bound)
        if not reached >= largest * (1 - 1e-12):
            raise ValueError(f"sigma: expected at most {reached:g}, the schedule's at t = {bound:g}, got {largest:g}")
        return bound

    def _invert(self, target: Tensor) -> Tensor:
        if target.numel() == 0:
            return target
        bound = self._upper_bound(float(target.max()))
        times = torch.linspace(0, bound, _GRID, dtype=torch.float64, device=target.device)
        grid = self.sigma(times)
        if not bool((grid.diff() > 0).all()):
            raise ValueError("sigma: σ(t) is not increasing, so it has no inverse; use GivenTimes instead")
        lowest = float(target.min())
        if not lowest >= float(grid[0]) * (1 - 1e-12):
            raise ValueError(f"sigma: expected at least {float(grid[0]):g}, the schedule's at t = 0, got {lowest:g}")
        above = torch.searchsorted(grid, target).clamp_max(_GRID - 1)
        low, high = times[(above - 1).clamp_min(0)], times[above]
        t, step = 0.5 * (low + high), high - low
        for _ in range(_MAX_ITERATIONS):
            excess = self.sigma(t) - target
            high = torch.where(excess >= 0, t, high)
            low = torch.where(excess <= 0, t, low)
            newton = t - excess / self.sigma_dot(t)
            correction = (newton - t).abs()
            found = (correction <= 4e-16 * t) | (high - low <= 4e-16 * t)
            if bool(found.all()):
                break
            # bisection where Newton leaves the bracket, or creeps
            good = (newton > low) & (newton < high) & (correction <= 0.5 * step)
            previous, t = t, torch.where(found, t, torch.where(good, newton, 0.5 * (low + high)))
            step = (t - previous).abs()
        return t


@dataclass(frozen=True)
class CallableScaling:
    """s(t) given as a function of a tensor of times, positive everywhere."""

    function: Function

    def s(self, t: Real, sigma: Real) -> Real:
        return _evaluate(self.function, t, "s")

    def s_dot(self, t: Real, sigma: Real, sigma_dot: Real) -> Real:
        return _differentiate(self.function, t, "s")
