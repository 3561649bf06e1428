"""ln p(x) by the probability-flow ODE."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from diffspace._shapes import Float, Tensor
from diffspace.likelihood.prior import GaussianPrior, Prior
from diffspace.likelihood.trace import ExactTrace, Trace, WithLogDensity
from diffspace.process import Process
from diffspace.protocols import Cond, Denoiser, Solver, TimeSteps
from diffspace.sampling.driver import State
from diffspace.sampling.solvers.heun import Heun
from diffspace.sampling.start import check_finite, is_finite, make_start, prepare
from diffspace.sampling.steps import EDMSteps, GivenTimes

__all__ = ["LogLikelihood", "log_likelihood", "standard_error"]


@dataclass(frozen=True, eq=False)
class LogLikelihood:
    """ln p(x; σ_min) of each sample in nats, and what it was made of.

    `log_prob` is `prior_log_prob` of the `latents` (unscaled, at σ_max) plus what the volume changed by on the way up.
    `standard_error` is that of the trace estimator alone: zeros for an exact trace, NaN for a single probe, which does
    not tell. `sigmas` are the N+1 noise levels from σ_min to σ_max, `nfe` the number of denoiser evaluations for each
    sample, each with as many vector-Jacobian products as `trace` wants. `prior` and `trace` are those that were
    assumed; `seeds` those of the probes, where there are some.
    """

    log_prob: Float[Tensor, "batch"]
    standard_error: Float[Tensor, "batch"]
    prior_log_prob: Float[Tensor, "batch"]
    latents: Float[Tensor, "batch *dims"]
    sigmas: Float[Tensor, "levels"]
    nfe: int
    prior: Prior
    trace: Trace
    seeds: tuple[int, ...] | None = None


def log_likelihood(
    denoiser: Denoiser,
    x: Float[Tensor, "batch *dims"],
    *,
    trace: Trace | None = None,
    prior: Prior | None = None,
    seeds: Sequence[int] | None = None,
    steps: TimeSteps | GivenTimes | None = None,
    solver: Solver | None = None,
    process: Process | None = None,
    cond: Cond | None = None,
    batch_size: int | None = None,
    clip: bool = False,
    grad: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    progress: Callable[[int, State], None] | None = None,
) -> LogLikelihood:
    """ln p(x; σ_min) = ln p(x_max; σ_max) + ∫ (d − tr ∂D/∂x)/σ dσ along dx/dσ = (x − D)/σ from σ_min to σ_max.

    This is the instantaneous change of variables (Song et al. 2021, Eq. 39) for the ODE of the paper's Algorithm 1. x
    is unscaled, in the model's space, and taken to be at σ_min; the density is that of the data with noise σ_min, per
    unit of volume of that space, and not of raw values.

    `trace` is `ExactTrace()` (default; d products an evaluation) or `Hutchinson(probes)`, whose probes are drawn by
    `seeds`, one for each sample. `prior` is the density at σ_max (default `GaussianPrior()`, N(0, σ_max²I), where
    `sample` starts). `steps` (default `EDMSteps(64, terminal="sigma_min")`), `solver` (default `Heun(1/2)`, the
    midpoint rule, whose integral has a third of the error of Heun's), `process`, `cond`, `batch_size`, `clip`, `dtype`,
    `device` and `progress` are those of `encode`, of which this is a run with ln p as one more coordinate; so the error
    of the integral falls with the order of the solver. With `grad=True` the result is differentiable, also with respect
    to x, of which the gradient is the score.

    ValueError for bad input, and for a denoiser that cuts the graph from x to D; FloatingPointError where the run ends
    in values that are not finite.
    """
    trace = ExactTrace() if trace is None else trace
    prior = GaussianPrior() if prior is None else prior
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: {batch_size}; want at least 1")
    if seeds is not None and not trace.seeded:
        raise ValueError(f"seeds: have no effect; {trace} draws nothing")
    if seeds is None and trace.seeded:
        raise ValueError(f"seeds: {trace} draws its vectors by the seed of each sample; give one for each")
    start = make_start(denoiser, None, seeds, None, x)
    shape, count, d = start.shape, start.count, math.prod(start.shape)
    density = torch.zeros(count, trace.estimates, dtype=x.dtype, device=x.device)
    state = torch.cat([x.reshape(count, d), density], 1)
    run = prepare(
        denoiser,
        dataclasses.replace(start, shape=tuple(state.shape[1:]), tensor=state),
        steps=EDMSteps(64, terminal="sigma_min") if steps is None else steps,
        solver=Heun(1 / 2) if solver is None else solver,
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
        upward=True,
    )
    size = count if batch_size is None else batch_size
    keep = torch.device("cpu") if batch_size is not None else run.device
    ends, nfe = [], 0
    for first in range(0, count, size):
        rows = slice(first, min(first + size, count))
        vectors = trace.vectors(None if start.seeds is None else start.seeds[rows], shape).to(run.device)
        augmented = WithLogDensity(denoiser, shape, trace, vectors)
        for reached in dataclasses.replace(run, denoiser=augmented).states(rows):
            if progress is not None:
                progress(first, _of_x(reached, shape))
        if not is_finite(reached.x):
            raise FloatingPointError(
                "denoiser: the likelihood ended in values that are not finite, in the batch that begins with sample "
                f"{first}"
            )
        nfe = max(nfe, reached.nfe)
        ends.append(reached.x.to(keep))
    end = torch.cat(ends)
    latents, change = end[:, :d].reshape(-1, *shape), end[:, d:]
    with torch.set_grad_enabled(grad):
        at_top = prior(latents, latents.new_tensor(run.grid.sigmas[-1]))
        if at_top.shape != (count,):
            raise ValueError(f"prior: returned shape {tuple(at_top.shape)} for {count} samples; want ({count},)")
        log_prob = at_top - change.mean(1)
    check_finite("prior", at_top)
    return LogLikelihood(
        log_prob=log_prob,
        standard_error=standard_error(change) if trace.seeded else torch.zeros_like(log_prob),
        prior_log_prob=at_top,
        latents=latents,
        sigmas=torch.tensor(run.grid.sigmas, dtype=torch.float64),
        nfe=nfe,
        prior=prior,
        trace=trace,
        seeds=start.seeds,
    )


def _of_x(state: State, shape: tuple[int, ...]) -> State:
    """A state as those of `encode` are, without the density."""

    def cut(joint: Tensor) -> Tensor:
        return joint[:, : math.prod(shape)].reshape(-1, *shape)

    return state._replace(x=cut(state.x), denoised=None if state.denoised is None else cut(state.denoised))


def standard_error(values: Tensor) -> Tensor:
    """That of the mean of n independent values along the last dimension; NaN for n = 1, which does not tell."""
    n = values.shape[-1]
    return values.std(-1) / math.sqrt(n) if n > 1 else torch.full_like(values[..., 0], math.nan)
