"""A request for samples, checked: where they start, on which grid, and how any slice of them is run."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from diffspace._shapes import Tensor
from diffspace.process import Process
from diffspace.protocols import Cond, Denoiser, Increment, Solver, TimeSteps
from diffspace.sampling.brownian import BrownianPath
from diffspace.sampling.churn import Churn
from diffspace.sampling.driver import Grid, State, drive, make_grid
from diffspace.sampling.solvers.fitted import FittedSolver, OptimizedSteps
from diffspace.sampling.solvers.heun import Heun
from diffspace.sampling.steps import EDMSteps, GivenTimes
from diffspace.sampling.streams import initial_latents, step_noise

__all__ = ["Noise", "Run", "Start", "check_finite", "is_finite", "make_start", "prepare"]

Noise = Callable[[int, Tensor], Tensor]


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


def _stepping(denoiser: object, grad: bool) -> Callable[[], AbstractContextManager[None]]:
    """What each step is made in: gradients as asked for, and a module left in training mode without its dropout."""
    if isinstance(denoiser, torch.nn.Module):
        return functools.partial(_evaluating, denoiser, grad)
    return functools.partial(torch.set_grad_enabled, grad)


def is_finite(x: Tensor) -> bool:
    # a finite sum is the cheapest proof; without one, finite numbers may have overflowed
    return math.isfinite(x.detach().sum().item()) or bool(torch.isfinite(x).all())


def check_finite(name: str, x: Tensor) -> None:
    if not is_finite(x):
        bad = (~torch.isfinite(x.reshape(len(x), -1)).all(1)).nonzero().flatten().tolist()
        raise ValueError(f"{name}: not finite in samples {bad[:8]}{' …' if len(bad) > 8 else ''}")


@dataclass(frozen=True)
class Start:
    """Where the samples come from: seeds and a shape, unit-variance latents, or a state x at a noise level."""

    count: int
    shape: tuple[int, ...]
    seeds: tuple[int, ...] | None
    tensor: Tensor | None
    at_sigma: bool

    def slice(self, rows: slice) -> Start:
        seeds = None if self.seeds is None else self.seeds[rows]
        tensor = None if self.tensor is None else self.tensor[rows]
        return Start(len(range(self.count)[rows]), self.shape, seeds, tensor, self.at_sigma)

    @property
    def _known_seeds(self) -> tuple[int, ...]:
        if self.seeds is None:
            raise ValueError("seeds: are missing")
        return self.seeds

    def state(self, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The unscaled state at the first noise level."""
        if self.tensor is None:
            drawn = initial_latents(self._known_seeds, self.shape)
        else:
            drawn = self.tensor
        x = drawn.to(device, dtype)
        return x.clone() if self.at_sigma else x * sigma

    def noise(self, injected: Noise | None) -> Noise:
        """The churn noise of each step, by (seed, step) or as injected."""

        def by_seed(step: int, like: Tensor) -> Tensor:
            return step_noise(self._known_seeds, step, self.shape)

        return by_seed if injected is None else injected

    def increments(self, injected: Noise | None) -> Callable[[Increment, Tensor], Tensor]:
        """Brownian increments of a stochastic solver: of each seed's own path, or made of injected unit noise."""
        if injected is not None:
            draws = itertools.count()
            return lambda of, like: math.sqrt(abs(of.end - of.start)) * injected(next(draws), like)
        path = functools.cache(lambda: BrownianPath(self._known_seeds, self.shape))
        return lambda of, like: path().increment(*of)


def make_start(
    denoiser: object,
    shape: Sequence[int] | None,
    seeds: Sequence[int] | None,
    latents: Tensor | None,
    x: Tensor | None,
) -> Start:
    if latents is not None and x is not None:
        raise ValueError("latents, x: give one of the two")
    tensor = latents if x is None else x
    if tensor is not None:
        if shape is not None and tuple(shape) != tuple(tensor.shape[1:]):
            raise ValueError(f"shape: {tuple(shape)}; the given tensor has samples of shape {tuple(tensor.shape[1:])}")
        check_finite("latents" if x is None else "x", tensor)
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
    return Start(count, tuple(shape), frozen, tensor, x is not None)


def _check_conditions(cond: Cond | None, count: int) -> dict[str, Tensor] | None:
    for name, value in (cond or {}).items():
        if value.ndim == 0 or len(value) != count:
            raise ValueError(f"cond: {name!r} has shape {tuple(value.shape)}; want a first dimension of {count}")
    return None if cond is None else dict(cond)


def _check_noise(start: Start, solver: Solver, churn: Churn | None, noise: Noise | None, upward: bool) -> None:
    churns = churn is not None and churn.S_churn > 0
    if churns and solver.stochastic:
        raise ValueError(f"churn: {type(solver).__name__} adds noise of its own; want one of the two")
    if churns and solver.multistep:
        raise ValueError(f"churn: {type(solver).__name__} remembers earlier steps, which churn would make wrong")
    if upward and solver.stochastic:
        raise ValueError(f"solver: {type(solver).__name__} adds noise; encoding wants a solver of the ODE")
    if noise is None and start.seeds is None and (churns or solver.stochastic):
        who = "churn" if churns else type(solver).__name__
        raise ValueError(f"seeds: {who} draws noise for each sample; give seeds or noise beside the tensor")


@dataclass(frozen=True)
class Run:
    """A checked request, of which any slice of samples can be started."""

    denoiser: Denoiser
    start: Start
    cond: dict[str, Tensor] | None
    grid: Grid
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
            increment=start.increments(self.noise),
            context=_stepping(self.denoiser, self.grad),
        )

    @property
    def everything(self) -> slice:
        return slice(0, self.start.count)


def prepare(
    denoiser: Denoiser,
    start: Start,
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
    coding: bool = False,
    upward: bool = False,
) -> Run:
    """`coding`: a given state is at the first level of the steps as they are, instead of at `sigma_start`."""
    if steps is None:
        steps = solver.steps if isinstance(solver, FittedSolver) else EDMSteps()
    if solver is None:
        solver = steps.solver if isinstance(steps, OptimizedSteps) else Heun()
    process = Process() if process is None else process
    if not coding and start.at_sigma != (sigma_start is not None):
        raise ValueError("x, sigma_start: a given state and its noise level go together")
    _check_noise(start, solver, churn, noise, upward)
    grid = make_grid(
        denoiser,
        steps,
        process,
        churn=churn,
        start=sigma_start,
        clip=clip,
        upward=upward,
    )
    home = _home(denoiser, start.tensor, device)
    if dtype is None:
        dtype = torch.float32 if home.type == "mps" else torch.float64
    return Run(denoiser, start, _check_conditions(cond, start.count), grid, solver, noise, grad, home, dtype)
