"""How to sample, as one value, and how a request for samples is carried out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_callable, check_integer, check_number
from diffspace.process import Process
from diffspace.protocols import TimeSteps
from diffspace.sampling.solvers.base import Solver
from diffspace.sampling.solvers.runge_kutta import Heun
from diffspace.sampling.steps import EDMSteps, GivenTimes
from diffspace.tensors import check_device


@dataclass(frozen=True)
class Churn:
    """σ̂ = (1 + γ)·σ, γ = min(S_churn/N, √2 − 1) where S_tmin ≤ σ ≤ S_tmax, else 0 (Algorithm 2, lines 4 to 6).

    The noise that lifts x from σ to σ̂ has variance S_noise²·(σ̂² − σ²). `S_churn=0` is the deterministic sampler.
    """

    S_churn: float = 0.0
    S_tmin: float = 0.0
    S_tmax: float = math.inf
    S_noise: float = 1.0

    def __post_init__(self) -> None:
        for name in ("S_churn", "S_tmin", "S_noise"):
            check_number(name, getattr(self, name), "[0, inf)")
        if not self.S_tmax >= self.S_tmin:
            raise ValueError(f"S_tmax: expected at least S_tmin = {self.S_tmin}, got {self.S_tmax}")

    def gamma(self, sigma: float, num_steps: int) -> float:
        """γ at the noise level σ in a run of `num_steps` steps."""
        if not self.S_tmin <= sigma <= self.S_tmax:
            return 0.0
        return min(self.S_churn / num_steps, math.sqrt(2) - 1)


def count_evaluations(solver: Solver, num_steps: int, to_zero: bool = True) -> int | None:
    """The evaluations in a run of `num_steps` steps, ending at σ = 0 or not; None where a tolerance decides."""
    each, last = solver.evaluations(False), solver.evaluations(to_zero)
    if each is None or last is None:
        return None
    return (num_steps - 1) * each + last - (solver.first_denoiser is not None)


def _are_steps(steps: object) -> bool:
    return not isinstance(steps, type) and (hasattr(steps, "sigmas") or isinstance(steps, GivenTimes))


@dataclass(frozen=True)
class Sampler:
    """The upper half of a column of Table 1: time steps, solver, process σ(t), s(t), and churn.

    The defaults are the paper's own: 18 EDM steps of Heun's method with σ = t and s = 1, without churn. ValueError for
    churn with a solver that adds noise itself or remembers earlier steps.
    """

    steps: TimeSteps | GivenTimes = field(default_factory=EDMSteps)
    solver: Solver = field(default_factory=Heun)
    process: Process = field(default_factory=Process)
    churn: Churn = field(default_factory=Churn)

    def __post_init__(self) -> None:
        for name, fits, example in (
            ("steps", _are_steps(self.steps), "EDMSteps(18)"),
            ("solver", isinstance(self.solver, Solver), "Heun() (derive yours from diffspace.Solver)"),
            ("process", isinstance(self.process, Process), "Process(VPSchedule())"),
            ("churn", isinstance(self.churn, Churn), "Churn(40)"),
        ):
            if not fits:
                raise ValueError(f"{name}: expected {name} such as {example}, got {getattr(self, name)!r}")
        if self.churn.S_churn > 0 and (self.solver.stochastic or self.solver.multistep):
            memory = "remembers earlier steps, which churn would falsify"
            why = "adds noise itself" if self.solver.stochastic else memory
            raise ValueError(f"churn: {type(self.solver).__name__} {why}; use one of the two")

    @property
    def noise_source(self) -> str:
        """What adds noise after the start, the class of a stochastic solver or "churn"; "" for nothing."""
        return type(self.solver).__name__ if self.solver.stochastic else "churn" if self.churn.S_churn > 0 else ""

    @property
    def adds_noise(self) -> bool:
        """Whether samples receive noise after the start, by churn or by a solver of the SDE."""
        return bool(self.noise_source)

    @property
    def nfe(self) -> int | None:
        """Evaluations of the denoiser that a sample takes down to σ = 0; None where a tolerance decides."""
        return count_evaluations(self.solver, self.steps.num_steps)

    @property
    def fixed(self) -> bool:
        """Whether the noise levels are given one by one, so that N cannot be chosen."""
        return "num_steps" not in getattr(self.steps, "__dataclass_fields__", ())

    def with_num_steps(self, num_steps: int) -> Sampler:
        """The same with N steps; ValueError where N cannot be chosen."""
        if num_steps == self.steps.num_steps:
            return self
        if self.fixed:
            raise ValueError(f"num_steps: {num_steps}, but {type(self.steps).__name__} has {self.steps.num_steps}")
        steps: Any = self.steps
        return replace(self, steps=replace(steps, num_steps=num_steps))


class State(NamedTuple):
    """A run after `step` of its `num_steps` steps: x (unscaled) at noise level sigma.

    `denoised` is the D that was first evaluated, or known, in the step that led here (None before the first step),
    `nfe` the number of evaluations so far.
    """

    step: int
    num_steps: int
    sigma: float
    x: Tensor
    denoised: Tensor | None
    nfe: int


@dataclass(frozen=True)
class Execution:
    """How a request is carried out. Nothing here changes the samples, up to rounding.

    Args:
        batch_size: samples made at a time; results are then kept on the CPU. Default: all at once.
        device: where to compute. Default: where the model is, else where the given tensor is.
        dtype: of the state. Default: float64 where the device has it, else float32.
        grad: whether the result is differentiable.
        trajectory: whether every state of the run is kept; a number k keeps every k-th and the last two.
        progress: called with each state and the index of the first sample of its batch.
    """

    batch_size: int | None = None
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None
    grad: bool = False
    trajectory: bool | int = False
    progress: Callable[[int, State], None] | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            check_integer("batch_size", self.batch_size, 1)
        if not isinstance(self.trajectory, bool):
            check_integer("trajectory", self.trajectory, 0)
        if self.dtype not in (None, torch.float16, torch.bfloat16, torch.float32, torch.float64):
            raise ValueError(f"dtype: expected a floating-point dtype of torch, got {self.dtype!r}")
        if self.device is not None:
            check_device(self.device)
        if self.progress is not None:
            check_callable("progress", self.progress, "progress(first, state)")
