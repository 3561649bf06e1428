"""ln p(x) by the probability-flow ODE, from the assumed density at σ_max, its upper end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from diffspace._shapes import Batch, Float, Tensor
from diffspace.checks import check_callable, check_number
from diffspace.likelihood.trace import ExactTrace, Trace, WithLogDensity
from diffspace.protocols import Cond, Denoiser
from diffspace.sampling.runs import Run, Samples, check_deterministic
from diffspace.sampling.sampler import Execution, Sampler, State
from diffspace.sampling.solvers.runge_kutta import Heun
from diffspace.sampling.start import check_finite, make_start
from diffspace.sampling.steps import EDMSteps

Prior: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""ln p(x; σ) in nats, of shape (B,), for x of shape (B, *dims) and σ of shape (); an oracle's `log_prob` is one."""


@dataclass(frozen=True)
class GaussianPrior:
    """N(mean, (σ² + std²)·I) at noise σ.

    The default, N(0, σ²I), is where `sample` starts: the log-likelihood is then that of the sampler's output, without
    an error of the prior. As the density of the data with noise σ it ignores their mean μ and covariance Σ, and is
    lower by ½·(‖μ‖² + ½·tr Σ²/σ²)/σ² nats, on average over the data and to leading order. `mean` and `std`, in the
    model's space, correct this; a function of (x, sigma) such as `oracles.Gaussian(mean, covariance).log_prob` can
    correct more.
    """

    mean: float = 0.0
    std: float = 0.0

    def __post_init__(self) -> None:
        check_number("mean", self.mean)
        check_number("std", self.std, "[0, inf)")

    def __call__(self, x: Batch, sigma: Float[Tensor, ""]) -> Float[Tensor, "batch"]:
        flat = x.reshape(len(x), -1) - self.mean
        variance = sigma.to(x) ** 2 + self.std**2
        return -0.5 * (flat.square().sum(1) / variance + flat.shape[1] * (2 * math.pi * variance).log())


@dataclass(frozen=True, eq=False)
class LogLikelihood:
    """ln p(x; σ_min) of each sample in nats, with its parts.

    `log_prob` is `prior_log_prob` of the `latents` (unscaled, at σ_max) plus the logarithm of the change of volume from
    σ_min to σ_max. `standard_error` is that of the trace estimator alone: zeros for an exact trace, NaN for a single
    probe. `sigmas` are the N+1 noise levels from σ_min to σ_max, `nfe` the number of denoiser evaluations for each
    sample, each with the vector-Jacobian products of `trace`, `seeds` the seeds of the probes.
    """

    log_prob: Float[Tensor, "batch"]
    standard_error: Float[Tensor, "batch"]
    prior_log_prob: Float[Tensor, "batch"]
    latents: Batch
    sigmas: Float[Tensor, "levels"]
    nfe: int
    seeds: tuple[int, ...] | None = None


def log_likelihood(
    denoiser: Denoiser,
    x: Batch,
    *,
    trace: Trace | None = None,
    prior: Prior | None = None,
    seeds: Sequence[int] | None = None,
    sampler: Sampler | None = None,
    cond: Cond | None = None,
    execution: Execution | None = None,
) -> LogLikelihood:
    """ln p(x; σ_min) = ln p(x_max; σ_max) + ∫ (d − tr ∂D/∂x)/σ dσ along dx/dσ = (x − D)/σ from σ_min to σ_max.

    This is the instantaneous change of variables (Song et al. 2021, Eq. 39) for the ODE of the paper's Algorithm 1. The
    density is that of the data with noise σ_min, per unit of volume of the model's space, not of raw values. It is a
    run of `encode` with ln p as another coordinate, so the error of the integral falls with the solver's order.
    ValueError for bad input or a denoiser that cuts the graph from x to D; FloatingPointError if the result is not
    finite.

    Args:
        denoiser: D(x, sigma, cond).
        x: data (B, *dims), unscaled, in the model's space, taken to be at σ_min.
        trace: `ExactTrace()` (default; d products an evaluation) or `Hutchinson(probes)`.
        prior: the density at σ_max. Default: `GaussianPrior()`, N(0, σ_max²·I), where `sample` starts.
        seeds: one for each sample, from which Hutchinson's probes are drawn.
        sampler: without noise, and with steps that end above σ = 0. Default: `Sampler(EDMSteps(64,
            terminal="sigma_min"), Heun(1/2))`, the midpoint rule, which has a third of the error of Heun's here.
        cond: named conditions, one row for each sample.
        execution: as in `sample`, without `trajectory`. With `grad` the result is differentiable, also with respect to
            x, where the gradient is the score.
    """
    trace, prior, execution = trace or ExactTrace(), prior or GaussianPrior(), execution or Execution()
    if not isinstance(trace, Trace):
        raise ValueError(f"trace: expected ExactTrace() or Hutchinson(probes), got {trace!r}")
    check_callable("prior", prior, "prior(x, sigma)")
    sampler = sampler or Sampler(EDMSteps(64, terminal="sigma_min"), Heun(1 / 2))
    check_deterministic(sampler)
    if execution.trajectory:
        raise ValueError("execution: trajectory has no effect here; leave it out")
    if seeds is not None and not trace.seeded:
        raise ValueError(f"seeds: have no effect, since {trace} draws nothing; leave them out")
    if seeds is None and trace.seeded:
        raise ValueError(f"seeds: are missing, from which {trace} draws its probes; pass one for each sample")
    start = make_start(denoiser, seeds=seeds, x=x)
    shape, count, d = start.shape, start.count, math.prod(start.shape)
    density = torch.zeros(count, trace.estimates, dtype=x.dtype, device=x.device)
    state = torch.cat([x.reshape(count, d), density], 1)
    progress = execution.progress
    if progress is not None:
        execution = replace(execution, progress=lambda first, joint: progress(first, _of_x(joint, shape)))
    joint_start = replace(start, shape=tuple(state.shape[1:]), tensor=state)
    run = Run(denoiser, joint_start, sampler, cond=cond, execution=execution, upward=True)

    def augmented(rows: slice) -> WithLogDensity:
        return WithLogDensity(denoiser, shape, trace, trace.vectors((start.seeds or ())[rows], shape).to(run.device))

    ends = Samples.concatenate(list(run.batches(augmented)))
    latents, change = ends.x[:, :d].reshape(-1, *shape), ends.x[:, d:]
    with torch.set_grad_enabled(execution.grad):
        at_top = prior(latents, latents.new_tensor(float(ends.sigmas[-1])))
        if at_top.shape != (count,):
            raise ValueError(f"prior: expected values of shape ({count},), got {tuple(at_top.shape)}")
        log_prob = at_top - change.mean(1)
    check_finite("prior", at_top)
    error = standard_error(change) if trace.seeded else torch.zeros_like(log_prob)
    return LogLikelihood(log_prob, error, at_top, latents, ends.sigmas, ends.nfe, start.seeds)


def _of_x(state: State, shape: tuple[int, ...]) -> State:
    """The state without the density, as in `encode`."""

    def cut(joint: Tensor) -> Tensor:
        return joint[:, : math.prod(shape)].reshape(-1, *shape)

    return state._replace(x=cut(state.x), denoised=None if state.denoised is None else cut(state.denoised))


def standard_error(values: Tensor) -> Tensor:
    """The standard error of the mean of n independent values in the last dimension; NaN for n = 1."""
    n = values.shape[-1]
    return values.std(-1) / math.sqrt(n) if n > 1 else torch.full_like(values[..., 0], math.nan)
