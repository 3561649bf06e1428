"""Sampling: Algorithms 1 and 2 of the paper for any denoiser, process, time steps and solver."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from edmkit._shapes import Float, Tensor
from edmkit.process import Process
from edmkit.protocols import Cond, Denoiser, Solver, TimeSteps
from edmkit.sampling.churn import Churn
from edmkit.sampling.driver import State, drive, make_grid
from edmkit.sampling.solvers import Heun
from edmkit.sampling.streams import initial_latents, step_noise
from edmkit.sampling.time_steps import EDMSteps, GivenTimes

__all__ = ["Samples", "Trajectory", "encode", "sample", "sample_states", "score"]

Noise = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Every state of a run: unscaled x (N+1, B, *dims), and the D first evaluated in each step (N, B, *dims)."""

    x: Float[Tensor, "levels batch *dims"]
    denoised: Float[Tensor, "steps batch *dims"]


@dataclass(frozen=True, eq=False)
class Samples:
    """The result of a run.

    `x` is unscaled, at the last of `sigmas`, the N+1 noise levels used; `num_steps` is N and `nfe` the number of
    denoiser evaluations that each sample took. `seeds` are those the samples were drawn from, where they were.
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


def _home(denoiser: object, tensor: Tensor | None, device: torch.device | str | None) -> torch.device:
    """Where to compute: as asked for, else where the model is, else where the given tensor is."""
    if device is not None:
        return torch.device(device)
    if isinstance(denoiser, torch.nn.Module):
        held = next(itertools.chain(denoiser.parameters(), denoiser.buffers()), None)
        if held is not None:
            return held.device
    return torch.device("cpu") if tensor is None else tensor.device


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module, grad: bool) -> Iterator[None]:
    training = [m for m in module.modules() if m.training]
    for m in training:
        m.training = False
    try:
        with torch.set_grad_enabled(grad):
            yield
    finally:
        for m in training:
            m.training = True


def _stepping(denoiser: object, grad: bool) -> AbstractContextManager[None]:
    """What a step is made in: gradients as asked for, and a module left in training mode without its dropout."""
    if isinstance(denoiser, torch.nn.Module):
        return _evaluating(denoiser, grad)
    return torch.set_grad_enabled(grad)


def _is_finite(x: Tensor) -> bool:
    return not bool((x - x).any())  # 0 where x is finite, NaN elsewhere: the cheapest test


def _check_finite(name: str, x: Tensor) -> None:
    if not _is_finite(x):
        bad = (~torch.isfinite(x.reshape(len(x), -1)).all(1)).nonzero().flatten().tolist()
        raise ValueError(f"{name}: not finite in samples {bad[:8]}{' …' if len(bad) > 8 else ''}")


@dataclass(frozen=True)
class _Start:
    """Where the samples come from: seeds and a shape, unit-variance latents, or a state x at a noise level."""

    count: int
    shape: tuple[int, ...]
    seeds: tuple[int, ...] | None
    tensor: Tensor | None
    at_sigma: bool

    def slice(self, rows: slice) -> _Start:
        seeds = None if self.seeds is None else self.seeds[rows]
        tensor = None if self.tensor is None else self.tensor[rows]
        return _Start(len(range(self.count)[rows]), self.shape, seeds, tensor, self.at_sigma)

    def state(self, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The unscaled state at the first noise level."""
        if self.tensor is None:
            if self.seeds is None:
                raise ValueError("seeds: are missing")
            drawn = initial_latents(self.seeds, self.shape)
        else:
            drawn = self.tensor
        x = drawn.to(device, dtype)
        return x.clone() if self.at_sigma else x * sigma

    def noise(self, injected: Noise | None) -> Noise:
        """The churn noise of each step, by (seed, step) or as injected."""

        def by_seed(step: int, like: Tensor) -> Tensor:
            if self.seeds is None:
                raise ValueError("seeds: churn draws noise for each sample; give seeds or noise beside the tensor")
            return step_noise(self.seeds, step, self.shape)

        return by_seed if injected is None else injected


def _make_start(
    denoiser: object,
    shape: Sequence[int] | None,
    seeds: Sequence[int] | None,
    latents: Tensor | None,
    x: Tensor | None,
) -> _Start:
    if latents is not None and x is not None:
        raise ValueError("latents, x: give one of the two")
    tensor = latents if x is None else x
    if tensor is not None:
        if shape is not None and tuple(shape) != tuple(tensor.shape[1:]):
            raise ValueError(f"shape: {tuple(shape)}; the given tensor has samples of shape {tuple(tensor.shape[1:])}")
        _check_finite("latents" if x is None else "x", tensor)
        shape = tensor.shape[1:]
        if seeds is not None and len(seeds) != len(tensor):
            raise ValueError(f"seeds: {len(seeds)} for {len(tensor)} samples; want one for each")
    elif seeds is None:
        raise ValueError("seeds: give seeds (with shape), latents, or x with sigma_start")
    known: Sequence[int] | None = getattr(denoiser, "sample_shape", None)
    if shape is None:
        shape = known
    if shape is None:
        raise ValueError("shape: the denoiser does not state the shape of a sample; give shape=(…)")
    # a model that takes any image size still fixes the number of dimensions and of channels
    if known is not None and (len(known) != len(shape) or tuple(known[:1]) != tuple(shape[:1])):
        raise ValueError(f"shape: {tuple(shape)}; the model was made for samples like {tuple(known)}")
    if any(size < 1 for size in shape):
        raise ValueError(f"shape: {tuple(shape)}; want positive sizes")
    frozen = None if seeds is None else tuple(int(seed) for seed in seeds)
    count = len(tensor) if tensor is not None else len(frozen or ())
    if count == 0:
        raise ValueError(
            f"{'seeds' if tensor is None else 'latents' if x is None else 'x'}: is empty; want at least one sample"
        )
    return _Start(count, tuple(shape), frozen, tensor, x is not None)


def _check_conditions(cond: Cond | None, count: int) -> dict[str, Tensor] | None:
    for name, value in (cond or {}).items():
        if value.ndim == 0 or len(value) != count:
            raise ValueError(f"cond: {name!r} has shape {tuple(value.shape)}; want a first dimension of {count}")
    return None if cond is None else dict(cond)


def _check_churn(solver: Solver, churn: Churn | None) -> None:
    if churn is not None and churn.S_churn > 0 and solver.multistep:
        raise ValueError(f"churn: {type(solver).__name__} remembers earlier steps, which churn would make wrong")


@dataclass(frozen=True)
class _Run:
    """A checked request, of which any slice of samples can be started."""

    denoiser: Denoiser
    start: _Start
    cond: dict[str, Tensor] | None
    grid: Any
    solver: Solver
    noise: Noise | None
    grad: bool
    device: torch.device
    dtype: torch.dtype

    def states(self, rows: slice) -> Iterator[State]:
        start = self.start.slice(rows)
        cond = None
        if self.cond is not None:
            cond = {name: value[rows].to(self.device) for name, value in self.cond.items()}
        with torch.set_grad_enabled(self.grad):
            x = start.state(self.grid.sigmas[0], self.device, self.dtype)
        return drive(
            self.denoiser,
            x,
            self.grid,
            solver=self.solver,
            cond=cond,
            noise=start.noise(self.noise),
            context=lambda: _stepping(self.denoiser, self.grad),
        )

    @property
    def everything(self) -> slice:
        return slice(0, self.start.count)


def _prepare(
    denoiser: Denoiser,
    start: _Start,
    *,
    steps: TimeSteps | GivenTimes | None,
    solver: Solver | None,
    churn: Churn | None,
    process: Process | None,
    cond: Cond | None,
    noise: Noise | None,
    sigma_start: float | None,
    clip: bool,
    grad: bool,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
    upward: bool = False,
) -> _Run:
    solver = Heun() if solver is None else solver
    process = Process() if process is None else process
    if not upward and start.at_sigma != (sigma_start is not None):
        raise ValueError("x, sigma_start: a given state and its noise level go together")
    _check_churn(solver, churn)
    if noise is None and churn is not None and churn.S_churn > 0 and start.seeds is None:
        raise ValueError("seeds: churn draws noise for each sample; give seeds or noise beside the tensor")
    grid = make_grid(
        denoiser,
        EDMSteps() if steps is None else steps,
        process,
        churn=churn,
        start=sigma_start,
        clip=clip,
        upward=upward,
    )
    home = _home(denoiser, start.tensor, device)
    if dtype is None:
        dtype = torch.float32 if home.type == "mps" else torch.float64
    return _Run(denoiser, start, _check_conditions(cond, start.count), grid, solver, noise, grad, home, dtype)


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
    start = _make_start(denoiser, shape, seeds, latents, x)
    run = _prepare(
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
    Algorithm 2 before each step, drawn by (seed, step) unless `noise(step, like)` is given. `clip` moves an explicit
    range that is outside the model's into it, instead of an error. `cond` holds named tensors with one row for each
    sample.

    With `batch_size`, samples are made so many at a time and results are kept on the CPU. `grad=True` makes the
    result differentiable. `dtype` is that of the state, float64 where the device has it. `progress(first, state)`
    is called with each state and the index of the first sample of its batch.

    The result's `x` is unscaled. ValueError for bad input; FloatingPointError where the denoiser ends in values that are
    not finite.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: {batch_size}; want at least 1")
    start = _make_start(denoiser, shape, seeds, latents, x)
    run = _prepare(
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
    run: _Run, batch_size: int | None, trajectory: bool, progress: Callable[[int, State], None] | None
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
        nfe = state.nfe
        if not _is_finite(state.x):
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
) -> Samples:
    """Run the ODE upward, from data x taken to be at σ_min to their latents at σ_max (unscaled; divide by σ_max).

    `sample(x=encode(…).x, sigma_start=σ_max, steps=…)` with the same steps leads back, to the order of the solver. The
    default is `EDMSteps(18, terminal="sigma_min")`; steps that end at σ = 0 are an error, since D says nothing of
    directions there.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: {batch_size}; want at least 1")
    run = _prepare(
        denoiser,
        _make_start(denoiser, None, None, None, x),
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
        upward=True,
    )
    return _collect(run, batch_size, trajectory, None)
