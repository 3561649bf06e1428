"""Sampling: Algorithms 1 and 2 of the paper for any denoiser, process, time steps and solver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from diffspace._shapes import Float, Tensor
from diffspace.process import Process
from diffspace.protocols import Cond, Denoiser, Solver, TimeSteps
from diffspace.sampling.churn import Churn
from diffspace.sampling.driver import State
from diffspace.sampling.start import Noise, Run, is_finite, make_start, prepare
from diffspace.sampling.steps import EDMSteps, GivenTimes

__all__ = ["Samples", "Trajectory", "decode", "encode", "sample", "sample_states", "score"]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Every state of a run: unscaled x (N+1, B, *dims), and the D first evaluated in each step (N, B, *dims)."""

    x: Float[Tensor, "levels batch *dims"]
    denoised: Float[Tensor, "steps batch *dims"]


@dataclass(frozen=True, eq=False)
class Samples:
    """The result of a run.

    `x` is unscaled, at the last of `sigmas`, the N+1 noise levels used; `num_steps` is N and `nfe` the number of
    denoiser evaluations that each sample took, of an adaptive solver the slowest of them. `seeds` are those the samples
    were drawn from, where they were.
    """

    x: Float[Tensor, "batch *dims"]
    sigmas: Float[Tensor, "levels"]
    num_steps: int
    nfe: int
    seeds: tuple[int, ...] | None = None
    trajectory: Trajectory | None = None


def score(denoiser: Denoiser) -> Callable[..., Tensor]:
    """∇ₓ ln p(x; σ) = (D(x; σ) − x)/σ² (Eq. 3) as a function of (x, sigma, cond=None), for any denoiser."""

    def score_of(
        x: Float[Tensor, "batch *dims"],
        sigma: Float[Tensor, ""] | Float[Tensor, "batch"],
        cond: Cond | None = None,
    ) -> Float[Tensor, "batch *dims"]:
        level = sigma.to(x).reshape((-1,) + (1,) * (x.ndim - 1))
        return (denoiser(x, sigma, cond) - x) / level**2

    return score_of


def sample_states(
    denoiser: Denoiser,
    *,
    shape: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    latents: Float[Tensor, "batch *dims"] | None = None,
    x: Float[Tensor, "batch *dims"] | None = None,
    sigma_start: float | None = None,
    steps: TimeSteps | GivenTimes | None = None,
    solver: Solver | None = None,
    churn: Churn | None = None,
    process: Process | None = None,
    cond: Cond | None = None,
    noise: Noise | None = None,
    clip: bool = False,
    grad: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Iterator[State]:
    """The states of a run as they come: the one before the first step, then one after each step.

    For previews, progress and early stops. Arguments are those of `sample`, and are checked at the call.
    """
    start = make_start(denoiser, shape, seeds, latents, x)
    run = prepare(
        denoiser,
        start,
        steps=steps,
        solver=solver,
        churn=churn,
        process=process,
        cond=cond,
        noise=noise,
        sigma_start=sigma_start,
        clip=clip,
        grad=grad,
        dtype=dtype,
        device=device,
    )
    return run.states(run.everything)


def sample(
    denoiser: Denoiser,
    *,
    shape: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    latents: Float[Tensor, "batch *dims"] | None = None,
    x: Float[Tensor, "batch *dims"] | None = None,
    sigma_start: float | None = None,
    steps: TimeSteps | GivenTimes | None = None,
    solver: Solver | None = None,
    churn: Churn | None = None,
    process: Process | None = None,
    cond: Cond | None = None,
    noise: Noise | None = None,
    batch_size: int | None = None,
    trajectory: bool = False,
    clip: bool = False,
    grad: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    progress: Callable[[int, State], None] | None = None,
) -> Samples:
    """Integrate dx/dt = (σ̇/σ + ṡ/s)·x − (σ̇·s/σ)·D(x/s; σ) from noise to data (Algorithms 1 and 2).

    The samples start from one of: `seeds` with the `shape` of one sample (which a model may state itself); `latents`
    of unit variance, to be multiplied by σ_max; or a state `x` with noise of level `sigma_start`, from where the steps
    are spaced anew. Each seed is a stream of its own, so a sample does not depend on its batch.

    `steps` (default `EDMSteps(18)`) places the noise levels within the range that the denoiser states, `solver`
    (default `Heun()`) goes from one to the next under `process` (default σ = t, s = 1), `churn` adds the noise of
    Algorithm 2 before each step, drawn by (seed, step) unless `noise(step, like)` is given. A solver of the SDE refuses
    churn and draws each seed's own Brownian path, or calls `noise(draw, like)` for the unit-variance noise of its k-th
    draw. `clip` moves an explicit range that is outside the model's into it, instead of an error. `cond` holds named
    tensors with one row for each sample.

    With `batch_size`, samples are made so many at a time and results are kept on the CPU. `grad=True` makes the
    result differentiable. `dtype` is that of the state, float64 where the device has it. `progress(first, state)`
    is called with each state and the index of the first sample of its batch.

    The result's `x` is unscaled. ValueError for bad input; FloatingPointError where sampling ends in values that are
    not finite.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: {batch_size}; want at least 1")
    start = make_start(denoiser, shape, seeds, latents, x)
    run = prepare(
        denoiser,
        start,
        steps=steps,
        solver=solver,
        churn=churn,
        process=process,
        cond=cond,
        noise=noise,
        sigma_start=sigma_start,
        clip=clip,
        grad=grad,
        dtype=dtype,
        device=device,
    )
    return _collect(run, batch_size, trajectory, progress)


def _collect(
    run: Run, batch_size: int | None, trajectory: bool, progress: Callable[[int, State], None] | None
) -> Samples:
    size = run.start.count if batch_size is None else batch_size
    keep = torch.device("cpu") if batch_size is not None else run.device
    ends, paths, denoised, nfe = [], [], [], 0
    for first in range(0, run.start.count, size):
        states, outputs = [], []
        for state in run.states(slice(first, min(first + size, run.start.count))):
            if progress is not None:
                progress(first, state)
            if trajectory:
                states.append(state.x.to(keep))
                if state.denoised is not None:
                    outputs.append(state.denoised.to(keep))
        nfe = max(nfe, state.nfe)  # of an adaptive solver, that of the slowest batch
        if not is_finite(state.x):
            raise FloatingPointError(
                f"denoiser: sampling ended in values that are not finite, in the batch that begins with sample {first}"
            )
        ends.append(state.x.to(keep))
        if trajectory:
            paths.append(torch.stack(states))
            denoised.append(torch.stack(outputs))
    return Samples(
        x=ends[0] if len(ends) == 1 else torch.cat(ends),
        sigmas=torch.tensor(run.grid.sigmas, dtype=torch.float64),
        num_steps=len(run.grid.sigmas) - 1,
        nfe=nfe,
        seeds=run.start.seeds,
        trajectory=Trajectory(torch.cat(paths, 1), torch.cat(denoised, 1)) if trajectory else None,
    )


def _code(
    denoiser: Denoiser,
    x: Tensor,
    steps: TimeSteps | GivenTimes | None,
    solver: Solver | None,
    process: Process | None,
    cond: Cond | None,
    batch_size: int | None,
    trajectory: bool,
    clip: bool,
    grad: bool,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
    progress: Callable[[int, State], None] | None,
    upward: bool,
) -> Samples:
    """The ODE from a state at one end of the steps to the other."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: {batch_size}; want at least 1")
    run = prepare(
        denoiser,
        make_start(denoiser, None, None, None, x),
        steps=EDMSteps(terminal="sigma_min") if steps is None else steps,
        solver=solver,
        churn=None,
        process=process,
        cond=cond,
        noise=None,
        sigma_start=None,
        clip=clip,
        grad=grad,
        dtype=dtype,
        device=device,
        coding=True,
        upward=upward,
    )
    return _collect(run, batch_size, trajectory, progress)


def encode(
    denoiser: Denoiser,
    x: Float[Tensor, "batch *dims"],
    *,
    steps: TimeSteps | GivenTimes | None = None,
    solver: Solver | None = None,
    process: Process | None = None,
    cond: Cond | None = None,
    batch_size: int | None = None,
    trajectory: bool = False,
    clip: bool = False,
    grad: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    progress: Callable[[int, State], None] | None = None,
) -> Samples:
    """Run the ODE upward, from data x taken to be at σ_min to their latents at σ_max (unscaled; divide by σ_max).

    `decode` with the same steps leads back, to the order of the solver. The default is
    `EDMSteps(18, terminal="sigma_min")`; steps that end at σ = 0 are an error, since D says nothing of directions
    there.
    """
    return _code(
        denoiser, x, steps, solver, process, cond, batch_size, trajectory, clip, grad, dtype, device, progress, True
    )


def decode(
    denoiser: Denoiser,
    x: Float[Tensor, "batch *dims"],
    *,
    steps: TimeSteps | GivenTimes | None = None,
    solver: Solver | None = None,
    process: Process | None = None,
    cond: Cond | None = None,
    batch_size: int | None = None,
    trajectory: bool = False,
    clip: bool = False,
    grad: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    progress: Callable[[int, State], None] | None = None,
) -> Samples:
    """Run the ODE downward, from latents x as `encode` gives them to data: the inverse of `encode`.

    x is unscaled, at the first noise level of the steps: about σ_max times what `sample` takes as `latents`.
    The levels are those of `encode`, in the other order, also where the model rounds them. The default is
    `EDMSteps(18, terminal="sigma_min")`, as there; steps that end at σ = 0 are allowed, and no inverse.
    """
    return _code(
        denoiser, x, steps, solver, process, cond, batch_size, trajectory, clip, grad, dtype, device, progress, False
    )
