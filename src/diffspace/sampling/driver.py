"""The loop that all solvers share: it churns, answers a solver's requests for D and for noise, and counts the first."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.process import Process
from diffspace.protocols import Denoiser, Increment, Solver, TimeSteps, sigma_range
from diffspace.sampling.churn import Churn
from diffspace.sampling.steps import GivenTimes

__all__ = ["Grid", "State", "count_evaluations", "drive", "make_grid", "round_sigmas"]


def count_evaluations(solver: Solver, num_steps: int, to_zero: bool = True) -> int | None:
    """The evaluations that a run of `num_steps` steps takes, ending at σ = 0 or not; None where a tolerance decides."""
    each, last = solver.evaluations(False), solver.evaluations(to_zero)
    if each is None or last is None:
        return None
    spared: int = getattr(solver, "spared", 0)
    return (num_steps - 1) * each + last - spared


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


class Kick(NamedTuple):
    """Churn before a step: t̂, the factor on x and the standard deviation of the noise in the scaled state."""

    t: float
    factor: float
    std: float


class Path:
    """A process as solvers see it, whose points are computed once in a run for all its stages and batches."""

    def __init__(self, process: Process, times: list[float]) -> None:
        self.at = functools.cache(process.at)
        self.level = functools.cache(lambda t: (process.sigma(t), process.s(t)))
        self._left = {t: len(times) - 1 - i for i, t in enumerate(times)}

    def steps_left(self, t: float) -> int:
        return self._left[t]


class Grid(NamedTuple):
    """The times of a run with σ and s at each, the churn before each step (None where there is none), and the ODE."""

    times: list[float]
    sigmas: list[float]
    scales: list[float]
    kicks: list[Kick | None]
    path: Path


def round_sigmas(denoiser: object, sigmas: Tensor) -> Tensor:
    """The nearest levels that the model knows; sigmas themselves where it does not say."""
    rounding: Callable[[Tensor], Tensor] | None = getattr(denoiser, "round_sigma", None)
    return sigmas if rounding is None else rounding(sigmas)


def _check_times(times: list[float], sigmas: list[float], model_range: tuple[float, float]) -> None:
    if not all(math.isfinite(sigma) and sigma >= 0 for sigma in sigmas) or 0 in sigmas[:-1]:
        raise ValueError("times: want σ(t) finite and positive at every time but the last")
    if any((t == 0) != (sigma == 0) for t, sigma in zip(times, sigmas, strict=True)):
        raise ValueError("times: want σ(t) = 0 at t = 0 and nowhere else")
    positive = [sigma for sigma in sigmas if sigma > 0]
    if not model_range[0] <= min(positive) <= max(positive) <= model_range[1]:
        raise ValueError(
            f"times: σ(t) from {min(positive):g} to {max(positive):g} leaves the model's range "
            f"[{model_range[0]:g}, {model_range[1]:g}]"
        )


def _at_given_times(
    steps: GivenTimes, process: Process, model_range: tuple[float, float], start: float | None
) -> tuple[Tensor, Tensor]:
    """(t, σ) of a run whose times are given."""
    times = torch.tensor(steps.times, dtype=torch.float64)
    sigmas = process.sigma(times)
    _check_times(times.tolist(), sigmas.tolist(), model_range)
    if start is not None and not math.isclose(start, float(sigmas[0]), rel_tol=1e-6):
        raise ValueError(f"sigma_start: {start:g}; the given times begin at σ = {float(sigmas[0]):g}")
    return times, sigmas


def _at_levels(denoiser: object, steps: TimeSteps, process: Process, start: float | None) -> tuple[Tensor, Tensor]:
    """(t, σ) of a run whose noise levels are given by `steps`."""
    sigmas = round_sigmas(denoiser, steps.sigmas(sigma_range(denoiser), start=start))
    times = torch.where(sigmas > 0, process.sigma_inv(sigmas), 0.0)
    for t, sigma, wanted in zip(times.tolist(), process.sigma(times).tolist(), sigmas.tolist(), strict=True):
        if not math.isclose(sigma, wanted, rel_tol=1e-4):
            raise ValueError(f"process: σ(t) is {sigma:g} at t = {t:g}, where a step wants σ = {wanted:g}")
    return times, sigmas


def make_grid(
    denoiser: object,
    steps: TimeSteps | GivenTimes,
    process: Process,
    *,
    churn: Churn | None = None,
    start: float | None = None,
    upward: bool = False,
) -> Grid:
    """Everything about a run that is known before its first evaluation.

    ValueError where steps or churn leave the model's range of σ.
    """
    if isinstance(steps, GivenTimes):
        times, sigmas = _at_given_times(steps, process, sigma_range(denoiser), start)
    else:
        times, sigmas = _at_levels(denoiser, steps, process, start)
    if upward:
        if sigmas[-1] == 0:
            raise ValueError("steps: a run upward cannot start at σ = 0; make them with terminal='sigma_min'")
        sigmas, times = sigmas.flip(0), times.flip(0)
    levels: list[float] = sigmas.tolist()
    scales: list[float] = process.scaling.s(times, sigmas).tolist()
    kicks: list[Kick | None] = [None] * steps.num_steps
    if churn is not None and churn.S_churn > 0:
        pairs = zip(levels[:-1], scales[:-1], strict=True)
        kicks = [_kick(denoiser, process, churn, steps.num_steps, sigma, s) for sigma, s in pairs]
    instants: list[float] = times.tolist()
    return Grid(instants, levels, scales, kicks, Path(process, instants))


def _kick(denoiser: object, process: Process, churn: Churn, num_steps: int, sigma: float, s: float) -> Kick | None:
    gamma = churn.gamma(sigma, num_steps)
    if gamma == 0:
        return None
    greatest = sigma_range(denoiser)[1]
    if sigma * (1 + gamma) > greatest:
        raise ValueError(
            f"S_tmax: {churn.S_tmax:g} lets churn lift σ = {sigma:g} to {sigma * (1 + gamma):g}, above the model's "
            f"sigma_max = {greatest:g}; want S_tmax below {sigma:g}"
        )
    lifted = float(round_sigmas(denoiser, torch.tensor(sigma * (1 + gamma), dtype=torch.float64)))
    if lifted <= sigma:
        return None
    t = process.sigma_inv(lifted)
    s_lifted = process.s(t)
    return Kick(t, s_lifted / s, s_lifted * math.sqrt(lifted**2 - sigma**2) * churn.S_noise)


def _fitting(noise: Tensor, state: Tensor) -> Tensor:
    if noise.shape != state.shape:
        raise ValueError(f"noise: shape {tuple(noise.shape)} for a state of shape {tuple(state.shape)}")
    return noise.to(state)


def drive(
    denoiser: Denoiser,
    x: Tensor,
    grid: Grid,
    *,
    solver: Solver,
    cond: dict[str, Tensor] | None,
    noise: Callable[[int, Tensor], Tensor],
    increment: Callable[[Increment, Tensor], Tensor],
    context: Callable[[], AbstractContextManager[object]],
) -> Iterator[State]:
    """Yield the state before the first step and after each; x is the unscaled state at the first level.

    `noise(step, like)` gives the churn noise of a step, `increment(request, like)` that of a stochastic solver.
    `context` is entered around each step and left before the state is handed out, so that gradient mode does not leak
    to the consumer.
    """
    times, sigmas, scales, kicks, path = grid
    num_steps = len(kicks)
    dtype, shape = x.dtype, x.shape
    yield State(0, num_steps, sigmas[0], x, None, 0)

    memory, nfe = None, 0
    with context():
        state = x if scales[0] == 1 else x * scales[0]
    for i, kick in enumerate(kicks):
        t, t_next, scale = times[i], times[i + 1], scales[i + 1]
        first: Tensor | None = None
        denoised: Any = None  # the answer to the last question; None starts the coroutine
        with context():
            if kick is not None:
                t = kick.t
                state = state * kick.factor + kick.std * _fitting(noise(i, state), state)
            step = solver.step(path, state, t, t_next, memory)
            while True:
                try:
                    request = step.send(denoised)
                except StopIteration as finished:
                    state, memory = finished.value
                    break
                if isinstance(request, Increment):
                    denoised = _fitting(increment(request, state), state)
                    continue
                level, denoised = request.sigma, request.known
                if denoised is None:
                    sigma = level if isinstance(level, Tensor) else state.new_full((), level)
                    denoised = denoiser(request.x, sigma, cond)
                    nfe += 1
                if denoised.shape != shape:
                    raise ValueError(f"denoiser: returned shape {tuple(denoised.shape)} for x of shape {tuple(shape)}")
                if denoised.dtype != dtype:
                    denoised = denoised.to(dtype)
                if first is None:
                    first = denoised
            x = state if scale == 1 else state / scale
        yield State(i + 1, num_steps, sigmas[i + 1], x, first, nfe)
