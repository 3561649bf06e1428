"""How to sample, as one value, and how a request for samples is carried out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from diffspace.checks import check_integer
from diffspace.process import Process
from diffspace.protocols import TimeSteps
from diffspace.sampling.churn import Churn
from diffspace.sampling.driver import State, count_evaluations
from diffspace.sampling.solvers.base import Solver
from diffspace.sampling.solvers.heun import Heun
from diffspace.sampling.steps import EDMSteps, GivenTimes


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
        placed = hasattr(self.steps, "sigmas") or isinstance(self.steps, GivenTimes)
        fits = (placed, isinstance(self.solver, Solver), isinstance(self.process, Process))
        for (name, example), right in zip(_EXAMPLES.items(), fits, strict=True):
            if not right:
                raise ValueError(f"{name}: expected {name} such as {example}, got {getattr(self, name)!r}")
        if self.churn.S_churn > 0 and (self.solver.stochastic or self.solver.multistep):
            why = (
                "adds noise itself" if self.solver.stochastic else "remembers earlier steps, which churn would falsify"
            )
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


_EXAMPLES = {
    "steps": "EDMSteps(18)",
    "solver": "Heun() (derive yours from diffspace.Solver)",
    "process": "Process(VPSchedule())",
}


@dataclass(frozen=True)
class Execution:
    """How a request is carried out. Nothing here changes the samples, up to rounding.

    Args:
        batch_size: samples made at a time; results are then kept on the CPU. Default: all at once.
        device: where to compute. Default: where the model is, else where the given tensor is.
        dtype: of the state. Default: float64 where the device has it, else float32.
        grad: whether the result is differentiable.
        trajectory: whether every state of the run is kept.
        progress: called with each state and the index of the first sample of its batch.
    """

    batch_size: int | None = None
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None
    grad: bool = False
    trajectory: bool = False
    progress: Callable[[int, State], None] | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            check_integer("batch_size", self.batch_size, 1)
