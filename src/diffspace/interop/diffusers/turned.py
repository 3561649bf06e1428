"""The driver turned inside out: somebody else evaluates the network, one evaluation at a time.

A step is a coroutine (`diffspace.protocols.Solver`)
that asks for D at (x, σ), or for an increment of noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.process import Process
from diffspace.protocols import Increment, Request, Solver, TimeSteps
from diffspace.sampling.driver import Grid, make_grid

__all__ = ["Course", "Plan", "make_plan"]

UnitNoise = Callable[[Tensor], Tensor]
"""Noise of unit variance like a tensor."""


class Plan(NamedTuple):
    """What is known of a run before its first evaluation: σ of each, and which of them begin which step."""

    solver: Solver
    grid: Grid
    sigmas: list[float]
    first: dict[int, int]


def make_plan(denoiser: object, solver: Solver, steps: TimeSteps) -> Plan:
    """The plan of a run within the range that `denoiser` states, found by a run on a state of one number.

    ValueError where D decides how often it is evaluated, or where a run does not begin with D at its first state.
    """
    name = type(solver).__name__
    if solver.evaluations(False) is None:
        raise ValueError(f"solver: {name} chooses its evaluations by a tolerance; want one that knows them before")
    grid = make_grid(denoiser, steps, Process())
    x = torch.full((1, 1), grid.sigmas[0], dtype=torch.float64)
    course = Course(Plan(solver, grid, [], {}), 0, x, torch.zeros_like)
    request = course.request
    if request is None or request.sigma != grid.sigmas[0] or not torch.equal(request.x, x):
        raise ValueError(f"solver: {name} changes the state before it asks for D; a pipeline evaluates it as it is")
    sigmas: list[float] = []
    first: dict[int, int] = {}
    last_step = -1
    while request is not None:
        if course.step != last_step:
            first[len(sigmas)] = last_step = course.step
        sigmas.append(float(request.sigma))
        request = course.answer(0.5 * request.x, torch.zeros_like)
    return Plan(solver, grid, sigmas, first)


class Course:
    """A run of a plan from its step number `step` on, at the unscaled state x.

    `request` is what is to be evaluated next, None at the end, where `x` is the result. `fresh` says that it is the
    state at the beginning of a step, in whose place another may still be put (`restart`).
    """

    request: Request | None

    def __init__(self, plan: Plan, step: int, x: Tensor, noise: UnitNoise) -> None:
        self._solver, self._grid = plan.solver, plan.grid
        self._memory: Any = None
        self.step = step
        self.restart(x, noise)

    def restart(self, x: Tensor, noise: UnitNoise) -> None:
        """Begin the present step anew, from the unscaled x."""
        self._begin(x)
        self._advance(None, noise)

    def answer(self, denoised: Tensor, noise: UnitNoise) -> Request | None:
        """Go on, given D at the request, to the next."""
        self.fresh = False
        self._advance(denoised, noise)
        return self.request

    def _begin(self, x: Tensor) -> None:
        times = self._grid.times
        self.x = x  # with s = 1 the scaled state too
        self.fresh = True
        self._coroutine = self._solver.step(self._grid.path, x, times[self.step], times[self.step + 1], self._memory)

    def _advance(self, answer: Any, noise: UnitNoise) -> None:
        """To the next request for D, through noise and ends of steps."""
        while True:
            try:
                asked = self._coroutine.send(answer)
            except StopIteration as finished:
                x, self._memory = finished.value
                self.step += 1
                answer = None
                if self.step == len(self._grid.kicks):
                    self.x, self.request = x, None
                    return
                self._begin(x)
                continue
            if not isinstance(asked, Increment):
                if asked.known is not None:
                    self.fresh, answer = False, asked.known
                    continue
                self.request = asked
                self.fresh = self.fresh and float(asked.sigma) == self._grid.sigmas[self.step]
                return
            self.fresh = False
            answer = math.sqrt(abs(asked.end - asked.start)) * noise(self.x)
