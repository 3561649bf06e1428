"""The loop that all solvers share: it churns, answers a solver's requests for D and counts them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch

from edmkit._shapes import Tensor
from edmkit.process import Process
from edmkit.protocols import Denoiser, Request, Solver, TimeSteps, sigma_range
from edmkit.sampling.churn import Churn
from edmkit.sampling.time_steps import GivenTimes

__all__ = ["Grid", "State", "drive", "make_grid", "round_sigmas"]


class State(NamedTuple):
    """A run after `step` of its `num_steps` steps: x (unscaled) at noise level sigma.

    `denoised` is the D that was first evaluated in the step that led here (None before the first step), `nfe` the
    number of evaluations so far.
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


class Grid(NamedTuple):
    """The times of a run with σ and s at each, and the churn before each step (None where there is none)."""

    times: list[float]
    sigmas: list[float]
    scales: list[float]
    kicks: list[Kick | None]


def round_sigmas(denoiser: object, sigmas: Tensor) -> Tensor:
    """The nearest levels that the model knows; sigmas themselves where it does not say."""
    rounding: Callable[[Tensor], Tensor] | None = getattr(denoiser, "round_sigma", None)
    return sigmas if rounding is None else rounding(sigmas)


def _check_times(times: Tensor, sigmas: Tensor, model_range: tuple[float, float]) -> None:
    if not bool(torch.isfinite(sigmas).all()) or bool((sigmas < 0).any()) or bool((sigmas[:-1] == 0).any()):
        raise ValueError("times: want σ(t) finite and positive at every time but the last")
    if sigmas[-1] == 0 and times[-1] != 0:
        raise ValueError(f"times: σ = 0 at t = {float(times[-1]):g}; a run to σ = 0 ends at t = 0")
    positive = sigmas[sigmas > 0]
    if bool(((positive < model_range[0]) | (positive > model_range[1])).any()):
        raise ValueError(
            f"times: σ(t) from {float(positive.min()):g} to {float(positive.max()):g} leaves the model's range "
            f"[{model_range[0]:g}, {model_range[1]:g}]"
        )


def make_grid(
    denoiser: object,
    steps: TimeSteps | GivenTimes,
    process: Process,
    *,
    churn: Churn | None = None,
    start: float | None = None,
    clip: bool = False,
    upward: bool = False,
) -> Grid:
    """Everything about a run that is known before its first evaluation.

    ValueError where steps or churn leave the model's range of σ.
    """
    model_range = sigma_range(denoiser)
    if isinstance(steps, GivenTimes):
        times = torch.tensor(steps.times, dtype=torch.float64)
        sigmas = process.sigma(times)
        _check_times(times, sigmas, model_range)
    else:
        sigmas = round_sigmas(denoiser, steps.sigmas(model_range, start=start, clip=clip))
        times = torch.zeros_like(sigmas)
        times[sigmas > 0] = process.sigma_inv(sigmas[sigmas > 0])
    if upward:
        if sigmas[-1] == 0:
            raise ValueError("steps: a run upward cannot start at σ = 0; make them with terminal='sigma_min'")
        sigmas, times = sigmas.flip(0), times.flip(0)
    scales: list[float] = process.s(times).tolist()
    kicks: list[Kick | None] = [None] * steps.num_steps
    if churn is not None and churn.S_churn > 0:
        kicks = [_kick(denoiser, process, churn, steps.num_steps, float(sigma)) for sigma in sigmas[:-1]]
    return Grid(times.tolist(), sigmas.tolist(), scales, kicks)


def _kick(denoiser: object, process: Process, churn: Churn, num_steps: int, sigma: float) -> Kick | None:
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
    s, s_before = process.s(t), process.s(process.sigma_inv(sigma))
    return Kick(t, s / s_before, s * math.sqrt(lifted**2 - sigma**2) * churn.S_noise)


def drive(
    denoiser: Denoiser,
    x: Tensor,
    grid: Grid,
    *,
    process: Process,
    solver: Solver,
    cond: dict[str, Tensor] | None,
    noise: Callable[[int, Tensor], Tensor],
    context: Callable[[], AbstractContextManager[object]],
) -> Iterator[State]:
    """Yield the state before the first step and after each; x is the unscaled state at the first level.

    `noise(step, like)` gives the churn noise of a step. `context` is entered around each step and left before the
    state is handed out, so that gradient mode does not leak to the consumer.
    """
    num_steps = len(grid.times) - 1
    device, dtype, shape = x.device, x.dtype, x.shape
    yield State(0, num_steps, grid.sigmas[0], x, None, 0)

    memory, nfe = None, 0
    state = x if grid.scales[0] == 1 else x * grid.scales[0]
    for i, kick in enumerate(grid.kicks):
        t, t_next = grid.times[i], grid.times[i + 1]
        first = None
        with context():
            if kick is not None:
                t = kick.t
                state = state * kick.factor + kick.std * noise(i, state)
            step = solver.step(process, state, t, t_next, memory)
            try:
                request: Request = next(step)
                while True:
                    sigma = torch.full((), request.sigma, dtype=dtype, device=device)
                    denoised = denoiser(request.x, sigma, cond)
                    nfe += 1
                    if denoised.shape != shape:
                        raise ValueError(
                            f"denoiser: returned shape {tuple(denoised.shape)} for x of shape {tuple(shape)}"
                        )
                    if denoised.dtype != dtype:
                        denoised = denoised.to(dtype)
                    if first is None:
                        first = denoised
                    request = step.send(denoised)
            except StopIteration as finished:
                state, memory = finished.value
            scale = grid.scales[i + 1]
            x = state if scale == 1 else state / scale
        yield State(i + 1, num_steps, grid.sigmas[i + 1], x, first, nfe)
