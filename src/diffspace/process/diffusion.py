"""The diffusion process x_t = s(t)·(x₀ + σ(t)·ε) and its probability-flow ODE (Section 2, Eq. 4, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffspace._shapes import Batch, Tensor
from diffspace.process._functions import functions
from diffspace.process.callables import CallableScaling, CallableSchedule
from diffspace.process.schedules import EDMSchedule
from diffspace.protocols import Real, Scaling, Schedule


class Process:
    """Any noise schedule σ(t) with any scaling s(t).

    `Process()` is the paper's, σ = t and s = 1. `Process(VPSchedule())` has the scaling of the schedule,
    `Process(VPSchedule(), NoScaling())` another. `Process(sigma=lambda t: …, s=lambda t: …)` takes plain functions.

    Args:
        schedule: σ(t).
        scaling: s(t). Default: the scaling of the schedule.
        sigma: σ(t) as a function of a tensor of times, with derivatives by autograd and the inverse by root search.
        s: s(t) as a function of a tensor of times.
        t_max: the largest time for `sigma`.
    """

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
        self.schedule: Schedule = CallableSchedule(sigma, t_max) if sigma is not None else schedule or EDMSchedule()
        self.scaling: Scaling = CallableScaling(s) if s is not None else scaling or self.schedule.scaling

    @property
    def config(self) -> dict[str, Any]:
        """The arguments of the constructor, for files."""
        return {"schedule": self.schedule, "scaling": self.scaling}

    def __repr__(self) -> str:
        return f"Process({self.schedule!r}, {self.scaling!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Process) and (self.schedule, self.scaling) == (other.schedule, other.scaling)

    def __hash__(self) -> int:
        return hash((self.schedule, self.scaling))

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
        s, sigma = self.s(t), self.sigma(t)
        if isinstance(s, Tensor) and isinstance(sigma, Tensor):
            shape = (-1,) + (1,) * (x0.ndim - 1)
            return s.reshape(shape).to(x0) * (x0 + sigma.reshape(shape).to(x0) * noise)
        return s * (x0 + sigma * noise)
