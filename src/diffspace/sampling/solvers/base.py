"""The base of all solvers: a step between two points of a process, as a coroutine.

A step yields a `Request` and is sent D there, or an `Increment` and is sent noise, and returns the new state with what
the next step should remember. So the solver never calls the network, and one driver runs all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from typing import Any, TypeAlias

import torch

from diffspace._shapes import Tensor
from diffspace.process import Process
from diffspace.protocols import Denoiser, Increment, Request

Step: TypeAlias = Generator[Request | Increment, Tensor, tuple[Tensor, Any]]
"""The coroutine of one step: it yields requests and returns the new state and the memory for the next step."""


class Point:
    """A process at one time: t, σ, s, and the ODE of Algorithm 1 there, dx/dt = a·x − b·D(x/s; σ).

    `steps_left` is the number of steps from here to the end of the run, at the points where steps begin.
    """

    __slots__ = ("_ode", "process", "s", "sigma", "steps_left", "t")

    def __init__(self, process: Process, t: float, sigma: float, s: float, steps_left: int = 0) -> None:
        self.process = process
        self.t, self.sigma, self.s = t, sigma, s
        self.steps_left = steps_left
        self._ode: tuple[float, float] | None = None

    @property
    def ode(self) -> tuple[float, float]:
        """a and b, which are finite where σ > 0."""
        if self._ode is None:
            self._ode = self.process.ode(self.t)
        return self._ode

    def toward(self, end: Point, share: float) -> Point:
        """The point at t + share·(t_end − t)."""
        if share in (0, 1):
            return end if share else self
        t = self.t + share * (end.t - self.t)
        return Point(self.process, t, self.process.sigma(t), self.process.s(t))

    def scale(self, x: Tensor) -> Tensor:
        """s·x: the scaled state of an unscaled x."""
        return x if self.s == 1 else x * self.s

    def unscale(self, x: Tensor) -> Tensor:
        """x/s: the unscaled state, in which D is evaluated."""
        return x if self.s == 1 else x / self.s

    def request(self, x: Tensor) -> Request:
        """The request for D(x/s; σ) at the scaled state x."""
        return Request(self.unscale(x), self.sigma)

    def slope(self, x: Tensor, denoised: Tensor) -> Tensor:
        """dx/dt = a·x − b·D."""
        a, b = self.ode
        return torch.sub(x, denoised).mul_(a) if a == b else x.mul(a).sub_(denoised, alpha=b)

    def euler(self, x: Tensor, denoised: Tensor, h: float) -> Tensor:
        """x + h·(a·x − b·D), Euler's step, in as few passes over memory as possible."""
        a, b = self.ode
        if a == b:  # s = 1, where the step is on the line from x to D: one pass, and D itself at the end
            return torch.lerp(denoised, x, 1 + h * a)
        return x.mul(1 + h * a).add_(denoised, alpha=-h * b)


class Solver(ABC):
    """A numerical method for the ODE or the SDE of a process. A subclass needs `order` and `step` alone.

    The defaults of the other members are those of a single-step solver of the ODE.
    """

    @property
    @abstractmethod
    def order(self) -> int:
        """The global order of convergence, for a stochastic solver the weak one."""

    multistep: bool = False
    """Whether steps rely on earlier ones through `memory`; such a solver cannot follow churn."""
    stochastic: bool = False
    """Whether steps request noise by an `Increment`."""
    in_sigma: bool = False
    """Whether it steps in σ and x/s, on which the choice of the process has no effect."""
    first_denoiser: Denoiser | None = None
    """A denoiser that answers the first request of a run instead of the model, and is not counted."""

    def evaluations(self, to_zero: bool) -> int | None:
        """Evaluations of D in one step, which ends at σ = 0 or not; None where a tolerance decides.

        By default one, but `order` in a step of a single-step solver that ends above 0.
        """
        return 1 if to_zero or self.multistep else self.order

    def for_denoiser(self, denoiser: object) -> Solver:
        """The solver with what it takes from a denoiser unless it is given, such as σ_data; by default itself."""
        return self

    def check_step(self, start: Point, end: Point) -> None:
        """ValueError for a step that is too long for this solver; asked for all steps, before the first evaluation."""
        return

    @abstractmethod
    def step(self, x: Tensor, start: Point, end: Point, memory: Any) -> Step:
        """From the scaled state x at `start` to the scaled state at `end`, both with σ > 0.

        `memory` is what the step before returned, and None in the first. A single-step solver returns None.
        """

    def step_to_zero(self, x: Tensor, start: Point, end: Point, memory: Any) -> Step:
        """The same for an `end` with σ = 0, where the ODE has no slope: by default Euler's step."""
        denoised = yield start.request(x)
        return start.euler(x, denoised, end.t - start.t), None


class UnscaledSolver(Solver):
    """A solver with formulas in σ and the unscaled state x/s.

    Levels that a model rounds to the same one are an error: most formulas divide by their distance.
    """

    in_sigma = True

    def check_step(self, start: Point, end: Point) -> None:
        if start.sigma == end.sigma:
            who = type(self).__name__
            raise ValueError(
                f"steps: {who} needs levels that differ, got σ = {end.sigma:g} twice; use fewer steps, "
                "or LevelSteps, which takes levels of the model's table"
            )

    @abstractmethod
    def unscaled_step(self, x: Tensor, start: Point, end: Point, memory: Any) -> Step:
        """`step` with unscaled states."""

    def step(self, x: Tensor, start: Point, end: Point, memory: Any) -> Step:
        x, memory = yield from self.unscaled_step(start.unscale(x), start, end, memory)
        return end.scale(x), memory

    def step_to_zero(self, x: Tensor, start: Point, end: Point, memory: Any) -> Step:
        """A step to σ = 0 ends at D."""
        denoised = yield start.request(x)
        return end.scale(denoised), None


def combine(x: Tensor, ratio: float, terms: Iterable[tuple[Tensor, float]]) -> Tensor:
    """ratio·x + Σ_j w_j·y_j over (y_j, w_j): a new tensor and a pass for each weight that is not 0; or x itself."""
    fresh = ratio != 1
    total = x * ratio if fresh else x
    for y, weight in terms:
        if weight != 0:
            total = total.add_(y, alpha=weight) if fresh else torch.add(total, y, alpha=weight)
            fresh = True
    return total
