"""The diffusion process x_t = s(t)·(x₀ + σ(t)·ε) and its probability-flow ODE (Section 2, Eq. 4, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from diffspace._shapes import Batch, Tensor
from diffspace.checks import check_callable
from diffspace.process.formula import Formula, FormulaScaling, FormulaSchedule
from diffspace.process.schedules import CallableScaling, CallableSchedule, EDMSchedule, functions
from diffspace.protocols import Real, Scaling, Schedule
from diffspace.tensors import check_floating


def _check_part(name: str, part: object, example: str, members: Sequence[str]) -> None:
    """ValueError for a part that lacks one of these members, unless it is None."""
    missing = [] if part is None else [member for member in members if not hasattr(part, member)]
    if missing:
        raise ValueError(f"{name}: expected one such as {example}, got {part!r} without {', '.join(missing)}")


@dataclass(frozen=True, init=False)
class Process:
    """Any noise schedule σ(t) with any scaling s(t).

    `Process()` is the paper's, σ = t and s = 1. `Process(VPSchedule())` has the scaling of the schedule,
    `Process(VPSchedule(), NoScaling())` another. `Process(sigma=lambda t: …, s=lambda t: …)` takes plain functions of a
    tensor of times, `sigma` up to `t_max`, with derivatives by autograd and the inverse by root search.
    """

    schedule: Schedule
    scaling: Scaling

    def __init__(
        self,
        schedule: Schedule | None = None,
        scaling: Scaling | None = None,
        *,
        sigma: Callable[[Tensor], Any] | None = None,
        s: Callable[[Tensor], Any] | None = None,
        t_max: float | None = None,
    ) -> None:
        if schedule is not None and sigma is not None:
            raise ValueError("sigma: cannot be combined with a schedule")
        if scaling is not None and s is not None:
            raise ValueError("s: cannot be combined with a scaling")
        if t_max is not None and sigma is None:
            raise ValueError("t_max: has no effect without a function sigma")
        inherited = ("scaling",) if scaling is None and s is None else ()
        _check_part("schedule", schedule, "VPSchedule()", ("sigma", "sigma_dot", "sigma_inv", *inherited))
        _check_part("scaling", scaling, "NoScaling()", ("s", "s_dot"))
        for name, function in (("sigma", sigma), ("s", s)):
            if function is not None:
                check_callable(name, function, f"{name}(t), such as ds.Formula({str(function)!r})")
        if sigma is not None:  # a formula has a place in files
            text = sigma.text if isinstance(sigma, Formula) else None
            schedule = CallableSchedule(sigma, t_max) if text is None else FormulaSchedule(text, t_max)
        if s is not None:
            scaling = FormulaScaling(s.text) if isinstance(s, Formula) else CallableScaling(s)
        schedule = schedule or EDMSchedule()
        object.__setattr__(self, "schedule", schedule)
        object.__setattr__(self, "scaling", scaling or schedule.scaling)

    def sigma(self, t: Real) -> Real:
        return self.schedule.sigma(t)

    def sigma_dot(self, t: Real) -> Real:
        """σ̇(t) = dσ/dt."""
        return self.schedule.sigma_dot(t)

    def sigma_inv(self, sigma: Real) -> Real:
        """The time t with σ(t) = sigma."""
        return self.schedule.sigma_inv(sigma)

    def s(self, t: Real) -> Real:
        return self.scaling.s(t, self.sigma(t))

    def s_dot(self, t: Real) -> Real:
        """ṡ(t) = ds/dt."""
        return self.scaling.s_dot(t, self.sigma(t), self.sigma_dot(t))

    def f(self, t: Real) -> Real:
        """The drift coefficient f(t) = ṡ/s of dx = f·x dt + g dω (Eq. 28)."""
        return self.s_dot(t) / self.s(t)

    def g(self, t: Real) -> Real:
        """The diffusion coefficient g(t) = s·√(2·σ̇·σ) (Eq. 34)."""
        root: Real = functions(t).sqrt(2 * self.sigma_dot(t) * self.sigma(t))
        return self.s(t) * root

    def ode(self, t: float) -> tuple[float, float]:
        """a = σ̇/σ + ṡ/s and b = σ̇·s/σ of dx/dt = a·x − b·D(x/s; σ) (line 4 of Algorithm 1)."""
        sigma, sigma_dot = self.schedule.sigma(t), self.schedule.sigma_dot(t)
        s, s_dot = self.scaling.s(t, sigma), self.scaling.s_dot(t, sigma, sigma_dot)
        rate = sigma_dot / sigma
        return rate + s_dot / s, rate * s

    def velocity(self, x: Batch, t: float, denoised: Batch) -> Batch:
        """dx/dt = (σ̇/σ + ṡ/s)·x − (σ̇·s/σ)·D at the scaled state x, where D = D(x/s; σ) (Algorithm 1)."""
        a, b = self.ode(t)
        return a * x - b * denoised

    def perturb(self, x0: Batch, t: Real, noise: Batch) -> Batch:
        """x_t = s(t)·(x₀ + σ(t)·ε), a draw from the kernel p(x_t | x₀) = N(s·x₀, s²σ²·I) (Eq. 11).

        t is a float, or a tensor of shape () or (B,).
        """
        check_floating("x0", x0)
        s, sigma = self.s(t), self.sigma(t)
        if isinstance(s, Tensor) and isinstance(sigma, Tensor):
            shape = (-1,) + (1,) * (x0.ndim - 1)
            return s.reshape(shape).to(x0) * (x0 + sigma.reshape(shape).to(x0) * noise)
        return s * (x0 + sigma * noise)
