"""Sampling: Algorithms 1 and 2 of the paper for any denoiser, process, time steps and solver."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from diffspace._shapes import Batch, Float, Sigma, Tensor
from diffspace.checks import check_callable, check_number, check_type
from diffspace.notebook import Shown
from diffspace.process import Process
from diffspace.protocols import Cond, Denoiser, Request, TimeSteps, check_cond, module_of, stated
from diffspace.sampling.driver import STATE_CHANGED, as_tensor, changes, make_grid, run_steps
from diffspace.sampling.sampler import Churn, Execution, Sampler, State
from diffspace.sampling.solvers.base import Solver
from diffspace.sampling.start import Noise, Start, make_start, not_finite
from diffspace.sampling.steps import EDMSteps, GivenTimes
from diffspace.tensors import check_floating, check_sigma, evaluating


class Trajectory(NamedTuple):
    """The states of a run: unscaled x (N+1, B, *dims), and the D first evaluated in each step (N, B, *dims).

    Where every k-th state was kept, x holds those of `kept_steps` alone, and D those of the steps that begin there.
    """

    x: Float[Tensor, "levels batch *dims"]
    denoised: Float[Tensor, "steps batch *dims"]


@dataclass(frozen=True, eq=False)
class Samples(Shown):
    """The result of a run.

    `x` is unscaled, at the last of `sigmas`, the N+1 noise levels used; `num_steps` is N and `nfe` the number of
    denoiser evaluations that each sample took, of an adaptive solver the slowest of them.
    """

    x: Float[Tensor, "batch *dims"]
    sigmas: Float[Tensor, "levels"]
    num_steps: int
    nfe: int
    seeds: tuple[int, ...] | None = None
    trajectory: Trajectory | None = None
    transform: object = field(default=None, repr=False)
    """The denoiser's, where it has one, with which pictures are drawn."""

    @classmethod
    def concatenate(cls, batches: Sequence[Samples]) -> Samples:
        """The samples of all batches of a run."""
        first = batches[0]
        if len(batches) == 1:
            return first
        paths = [batch.trajectory for batch in batches if batch.trajectory is not None]
        return dataclasses.replace(
            first,
            x=torch.cat([batch.x for batch in batches]),
            nfe=max(batch.nfe for batch in batches),
            seeds=None if first.seeds is None else tuple(itertools.chain(*(batch.seeds or () for batch in batches))),
            trajectory=Trajectory(*(torch.cat(parts, 1) for parts in zip(*paths, strict=True))) if paths else None,
        )


def kept_steps(num_steps: int, every: int) -> list[int]:
    """Which of the states 0 … N a trajectory holds: every k-th, the last and the one before."""
    return [i for i in range(num_steps + 1) if i % every == 0 or i >= num_steps - 1]


def score(denoiser: Denoiser) -> Callable[..., Tensor]:
    """∇ₓ ln p(x; σ) = (D(x; σ) − x)/σ² (Eq. 3) as a function of (x, sigma, cond=None), for any denoiser."""

    def score_of(x: Batch, sigma: Sigma, cond: Cond | None = None) -> Batch:
        check_floating("x", x)
        check_sigma(sigma, len(x), positive=True)
        # in float32, D − x at small σ would have few correct digits
        wide = x if x.device.type == "mps" else x.to(torch.float64)
        level = sigma.to(wide).reshape((-1,) + (1,) * (x.ndim - 1))
        return ((denoiser(wide, level.reshape(sigma.shape), cond) - wide) / level**2).to(x.dtype)

    return score_of


class Run:
    """A checked request, with what is known before its first evaluation; any slice of its samples can be started.

    Args:
        denoiser: D(x, sigma, cond).
        start: where the samples start.
        sampler: how to sample. Default: `Sampler()`.
        cond: named conditions, one row for each sample.
        noise: unit-variance noise to use instead of that of the seeds.
        execution: batches, device, dtype, gradients.
        sigma_start: the noise level of a given state, from which the steps are spaced anew. Default: their first.
        upward: from the last noise level to the first.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        start: Start,
        sampler: Sampler | None = None,
        *,
        cond: Cond | None = None,
        noise: Noise | None = None,
        execution: Execution | None = None,
        sigma_start: float | None = None,
        upward: bool = False,
    ) -> None:
        sampler, execution = sampler or Sampler(), execution or Execution()
        check_type("sampler", sampler, Sampler)
        check_type("execution", execution, Execution)
        if noise is not None:
            check_callable("noise", noise, "noise(k, like)")
        if sigma_start is not None:
            check_number("sigma_start", sigma_start, "(0, inf)")
        if sampler.adds_noise and noise is None and start.seeds is None:
            raise ValueError(
                f"seeds: {sampler.noise_source} draws noise for each sample; give seeds or noise beside the tensor"
            )
        for name, value in check_cond(cond).items():
            if value.ndim == 0 or len(value) != start.count:
                raise ValueError(f"cond: {name!r} has shape {tuple(value.shape)}; expected {start.count} rows")
        if execution.batch_size is not None and execution.batch_size < start.count:
            made_for = stated(denoiser, "made_for")
            rows = None if made_for is None else made_for(start.shape)
            if rows is not None:
                raise ValueError(
                    f"batch_size: {execution.batch_size} of {start.count} samples, but the denoiser holds values of "
                    f"{rows}, which belong to a batch of all; sample them together, or make one denoiser for each batch"
                )
        self.denoiser, self.start, self.noise, self.execution = denoiser, start, noise, execution
        self._told: tuple[int, slice, Tensor] | None = None  # of injected noise: its first draw, and for which rows
        self.cond = None if cond is None else dict(cond)
        sampler = dataclasses.replace(sampler, solver=sampler.solver.for_denoiser(denoiser))
        self.solver = sampler.solver
        self.grid = make_grid(denoiser, sampler, start=sigma_start, upward=upward)
        self.device = home(denoiser, start.tensor, execution.device)
        self.dtype = execution.dtype or (torch.float32 if self.device.type == "mps" else torch.float64)

    def _injected(self, rows: slice) -> Noise | None:
        """The noise that was given; ValueError where it is the same for two batches."""
        given = self.noise
        if given is None or self.execution.batch_size is None:
            return given

        def noise(k: int, like: Tensor) -> Tensor:
            found = given(k, like)
            if not isinstance(found, Tensor) or found.shape != like.shape or bool((found == found[:1]).all()):
                return found  # a mistake that the driver names, or one noise for all samples
            draw, of, first = self._told = self._told or (k, rows, found[:1].clone())
            if k == draw and rows != of and torch.equal(found[:1], first):
                raise ValueError(f"noise: noise({k}, like) is the same for each batch; sample without batch_size")
            return found

        return noise

    def states(self, rows: slice = slice(None), denoiser: Denoiser | None = None) -> Iterator[State]:
        """The state of some samples before the first step, then after each; by another denoiser if one is given."""
        start, grid = self.start.slice(rows), self.grid
        denoiser = self.denoiser if denoiser is None else denoiser
        cond = self.cond and {name: value[rows].to(self.device) for name, value in self.cond.items()}
        context: Callable[[], AbstractContextManager[object]]
        module = module_of(denoiser)
        if module is not None:
            context = functools.partial(evaluating, module, self.execution.grad)
        else:  # several times as fast, which small problems notice
            context = functools.partial(torch.set_grad_enabled, self.execution.grad)
        with context():
            x = start.state(grid.sigmas[0], self.device, self.dtype)
        before = changes(x)
        yield State(0, len(grid.kicks), grid.sigmas[0], x, None, 0)
        if changes(x) != before:
            raise ValueError(STATE_CHANGED)
        injected = self._injected(rows)
        steps = run_steps(self.solver, grid, x, start.noise(injected), start.increments(injected))
        for _ in grid.kicks:
            with context():  # left before the state is yielded, so that gradient mode does not leak
                asked = next(steps)
                while isinstance(asked, Request):
                    own = cond and dict(cond)  # which a denoiser may take apart
                    asked = steps.send(denoiser(asked.x, as_tensor(asked.sigma, x), own))
                if asked.step == asked.num_steps and (bad := not_finite(asked.x, rows.start or 0)):
                    raise FloatingPointError(f"denoiser: the run ended in values that are not finite, in samples {bad}")
            yield asked

    def batches(self, denoiser_of: Callable[[slice], Denoiser] | None = None) -> Iterator[Samples]:
        """The samples in finished batches; `denoiser_of(rows)`, if given, makes the denoiser of each batch."""
        options = self.execution
        keep = self.device if options.batch_size is None else torch.device("cpu")
        size = options.batch_size or self.start.count
        kept = set(kept_steps(len(self.grid.kicks), int(options.trajectory))) if options.trajectory else set[int]()
        for first in range(0, self.start.count, size):
            rows = slice(first, min(first + size, self.start.count))
            path: list[Tensor] = []
            denoised: list[Tensor] = []
            for state in self.states(rows, denoiser_of and denoiser_of(rows)):
                if options.progress is not None:
                    options.progress(first, state)
                if state.step in kept:
                    path.append(state.x.to(keep))
                if state.denoised is not None and state.step - 1 in kept:
                    denoised.append(state.denoised.to(keep))
            yield Samples(
                x=state.x.to(keep),
                sigmas=torch.tensor(self.grid.sigmas, dtype=torch.float64, device="cpu"),
                num_steps=state.num_steps,
                nfe=state.nfe,
                seeds=self.start.slice(rows).seeds,
                transform=stated(self.denoiser, "transform"),
                trajectory=Trajectory(torch.stack(path), torch.stack(denoised)) if options.trajectory else None,
            )

    def samples(self) -> Samples:
        """All samples."""
        return Samples.concatenate(list(self.batches()))


def home(denoiser: object, tensor: Tensor | None, device: torch.device | str | None = None) -> torch.device:
    """Where to compute: as given, else where the model is, else where the given tensor is."""
    if device is not None:
        return torch.device(device)
    module = module_of(denoiser)
    if module is not None:
        tensor = next(itertools.chain(module.parameters(), module.buffers()), tensor)
    return torch.device("cpu") if tensor is None else tensor.device


def sample(
    denoiser: Denoiser,
    *,
    seeds: Sequence[int] | None = None,
    shape: Sequence[int] | None = None,
    latents: Float[Tensor, "batch *dims"] | None = None,
    sampler: Sampler | None = None,
    steps: TimeSteps | GivenTimes | None = None,
    solver: Solver | None = None,
    process: Process | None = None,
    churn: Churn | None = None,
    cond: Cond | None = None,
    noise: Noise | None = None,
    execution: Execution | None = None,
) -> Samples:
    """Integrate dx/dt = (σ̇/σ + ṡ/s)·x − (σ̇·s/σ)·D(x/s; σ) from noise to data (Algorithms 1 and 2).

    The result's `x` is unscaled. ValueError for bad input; FloatingPointError where sampling ends in values that are
    not finite. `sample_batches` gives the samples batch by batch, `sample_states` each state on the way, `sample_from`
    starts from a state at any noise level.

    Args:
        denoiser: D(x, sigma, cond), with x (B, *dims) unscaled and sigma of shape () or (B,).
        seeds: one random stream for each sample, so that a sample does not depend on its batch.
        shape: of one sample, unless the denoiser states it.
        latents: the starting noise (B, *dims) of unit variance, instead of that of the seeds.
        sampler: how to sample. Default: `Sampler()`, the paper's 18 steps of Heun's method.
        steps, solver, process, churn: each replaces that part of the sampler.
        cond: named conditions, tensors with one row for each sample.
        noise: noise(k, like) gives the unit-variance noise of churn in step k, or of the k-th draw of a stochastic
            solver. Default: by (seed, step), or the Brownian path of each seed.
        execution: batch size, device, dtype, gradients, trajectory, progress.
    """
    parts: dict[str, Any] = {"steps": steps, "solver": solver, "process": process, "churn": churn}
    given = {name: part for name, part in parts.items() if part is not None}
    if sampler is not None:
        check_type("sampler", sampler, Sampler)
    sampler = dataclasses.replace(sampler or Sampler(), **given)
    start = make_start(denoiser, shape=shape, seeds=seeds, latents=latents)
    return Run(denoiser, start, sampler, cond=cond, noise=noise, execution=execution).samples()


def sample_batches(
    denoiser: Denoiser,
    *,
    seeds: Sequence[int] | None = None,
    shape: Sequence[int] | None = None,
    latents: Float[Tensor, "batch *dims"] | None = None,
    sampler: Sampler | None = None,
    cond: Cond | None = None,
    noise: Noise | None = None,
    execution: Execution | None = None,
) -> Iterator[Samples]:
    """The samples of `sample` in finished batches of `execution.batch_size` as they come.

    Arguments are as in `sample`, whose steps, solver, process and churn are parts of the `sampler` here.
    """
    start = make_start(denoiser, shape=shape, seeds=seeds, latents=latents)
    return Run(denoiser, start, sampler, cond=cond, noise=noise, execution=execution).batches()


def sample_states(
    denoiser: Denoiser,
    *,
    seeds: Sequence[int] | None = None,
    shape: Sequence[int] | None = None,
    latents: Float[Tensor, "batch *dims"] | None = None,
    sampler: Sampler | None = None,
    cond: Cond | None = None,
    noise: Noise | None = None,
    execution: Execution | None = None,
) -> Iterator[State]:
    """The states of `sample` as they come, of all samples at once: before the first step, then after each step.

    For previews and early stops. Arguments are as in `sample`, whose steps, solver, process and churn are
    parts of the `sampler` here; `execution` allows no batch size, trajectory or
    progress, since the caller holds what is kept.
    """
    options = execution or Execution()
    if options.batch_size is not None or options.trajectory or options.progress is not None:
        raise ValueError("execution: batch_size, trajectory and progress have no effect here; expected none of them")
    start = make_start(denoiser, shape=shape, seeds=seeds, latents=latents)
    return Run(denoiser, start, sampler, cond=cond, noise=noise, execution=options).states()


def sample_from(
    denoiser: Denoiser,
    x: Float[Tensor, "batch *dims"],
    sigma_start: float,
    *,
    seeds: Sequence[int] | None = None,
    sampler: Sampler | None = None,
    cond: Cond | None = None,
    noise: Noise | None = None,
    execution: Execution | None = None,
) -> Samples:
    """`sample` from an unscaled state x with noise of level `sigma_start`, from where the N steps are spaced anew.

    Args:
        denoiser, sampler, cond, noise, execution: as in `sample`.
        x: the states (B, *dims).
        sigma_start: their noise level, above the lowest of the steps.
        seeds: one for each sample, where the sampler adds noise.
    """
    start = make_start(denoiser, seeds=seeds, x=x)
    run = Run(denoiser, start, sampler, cond=cond, noise=noise, execution=execution, sigma_start=sigma_start)
    return run.samples()


def _code(
    denoiser: Denoiser, x: Tensor, sampler: Sampler | None, cond: Cond | None, execution: Execution | None, upward: bool
) -> Samples:
    """The ODE from a state at one end of the steps to the other."""
    sampler = sampler or Sampler(EDMSteps(terminal="sigma_min"))
    check_deterministic(sampler)
    start = make_start(denoiser, x=x)
    return Run(denoiser, start, sampler, cond=cond, execution=execution, upward=upward).samples()


def check_deterministic(sampler: Sampler) -> None:
    """ValueError for a sampler that adds noise, where the ODE alone is followed."""
    check_type("sampler", sampler, Sampler)
    if sampler.adds_noise:
        raise ValueError(f"sampler: {sampler.noise_source} adds noise; expected a solver of the ODE without churn")


def encode(
    denoiser: Denoiser,
    x: Float[Tensor, "batch *dims"],
    *,
    sampler: Sampler | None = None,
    cond: Cond | None = None,
    execution: Execution | None = None,
) -> Samples:
    """Run the ODE upward, from data x taken to be at σ_min to their latents at σ_max (unscaled; divide by σ_max).

    `decode` with the same sampler leads back, to the order of the solver.

    Args:
        denoiser, cond, execution: as in `sample`.
        x: data (B, *dims) in the model's space.
        sampler: without noise, and with steps that end above σ = 0, where the ODE has no slope.
            Default: `Sampler(EDMSteps(18, terminal="sigma_min"))`.
    """
    return _code(denoiser, x, sampler, cond, execution, upward=True)


def decode(
    denoiser: Denoiser,
    x: Float[Tensor, "batch *dims"],
    *,
    sampler: Sampler | None = None,
    cond: Cond | None = None,
    execution: Execution | None = None,
) -> Samples:
    """Run the ODE downward, from latents x as `encode` gives them to data: the inverse of `encode`.

    The levels are those of `encode`, in the other order. Steps that end at σ = 0 are allowed, but are no inverse.

    Args:
        denoiser, sampler, cond, execution: as in `encode`.
        x: unscaled, at the first noise level of the steps: about σ_max times what `sample` takes as `latents`.
    """
    return _code(denoiser, x, sampler, cond, execution, upward=False)
