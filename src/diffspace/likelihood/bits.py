"""Bits per dimension of whole-number data, such as 8-bit images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from diffspace._shapes import Float, Shaped, Tensor
from diffspace.checks import check_integer
from diffspace.likelihood.log_likelihood import Prior, log_likelihood, standard_error
from diffspace.likelihood.trace import Trace
from diffspace.protocols import Cond, Denoiser, stated
from diffspace.sampling.sampler import Execution, Sampler
from diffspace.sampling.streams import initial_latents, substreams
from diffspace.transform import Transform


@dataclass(frozen=True, eq=False)
class BitsPerDim:
    """Bits per dimension of each sample, and over all samples.

    `bits` is the bound of uniform dequantisation, `standard_error` the error of its estimate for each sample, from the
    draws of noise and probes (with one draw, from the probes alone; NaN for one of each). `importance_weighted` is the
    tighter bound of several draws; None with an estimated trace, with whose noise it would not be a bound. `log_probs`
    holds ln p(x; σ_min) of each draw in nats, in the model's space. `nfe` counts the evaluations of one draw.
    """

    bits: Float[Tensor, "batch"]
    standard_error: Float[Tensor, "batch"]
    importance_weighted: Float[Tensor, "batch"] | None
    log_probs: Float[Tensor, "draws batch"]
    sigmas: Float[Tensor, "levels"]
    nfe: int

    @property
    def mean(self) -> float:
        """The mean of `bits` over the samples."""
        return float(self.bits.mean())

    @property
    def mean_error(self) -> float:
        """The standard error of `mean` for the distribution of the data, over the samples; NaN for one sample."""
        return float(standard_error(self.bits))

    @property
    def estimator_error(self) -> float:
        """The standard error of `mean` for these samples, from noise and probes alone; NaN if `standard_error` is."""
        return float(self.standard_error.square().sum().sqrt()) / len(self.bits)


def bits_per_dim(
    denoiser: Denoiser,
    raw: Shaped[Tensor, "batch *dims"],
    *,
    seeds: Sequence[int],
    draws: int = 1,
    transform: Transform | None = None,
    trace: Trace | None = None,
    prior: Prior | None = None,
    sampler: Sampler | None = None,
    cond: Cond | None = None,
    execution: Execution | None = None,
) -> BitsPerDim:
    """−E_u[ln p(x(k + u); σ_min) + ln |det ∂x/∂raw|]/(d·ln 2), u ~ U[−½, ½)^d: an upper bound of −log₂ P(k)/d.

    P(k) = ∫ p(k + u) du is the probability that a sample rounds to the whole numbers k (less for the lowest and the
    highest, to which samples are clipped); by Jensen's inequality its logarithm is at least the mean of ln p over the
    bin (Theis et al. 2016). With x = (raw − c)/s in each element, ln |det ∂x/∂raw| = −Σ ln |s|: 8-bit pixels in [−1, 1]
    add log₂ 127.5 = 6.994 bits. Several draws of u average the bound and allow the tighter one of importance weighting,
    −log₂(1/K·Σ_j p(k + u_j))/d (Burda et al. 2016). ValueError for raw values that are not whole numbers.

    Args:
        denoiser: D(x, sigma, cond).
        raw: stored whole numbers (B, *dims).
        seeds: one for each sample, from which the noise u and the probes of the trace are drawn.
        draws: the number of u for each sample, all of them one request to `log_likelihood`.
        transform: from raw values to the model's space. Default: the model's own.
        trace, prior, sampler, cond, execution: as in `log_likelihood`; not differentiable.
    """
    check_integer("draws", draws, 1)
    if len(seeds) != len(raw) or not len(raw):
        raise ValueError(f"seeds: {len(seeds)} for {len(raw)} samples; expected one for each of at least one sample")
    if execution is not None and execution.grad:
        raise ValueError("execution: grad is not supported here; use log_likelihood")
    transform = transform or stated(denoiser, "transform")
    if not isinstance(transform, Transform):
        raise ValueError("transform: the denoiser has none; pass the transform of the raw values")
    shape, estimated = tuple(raw.shape[1:]), trace is not None and trace.seeded
    streams = [substreams(seeds, draw) for draw in range(draws)]
    # Φ of normal numbers is uniform
    noises = [torch.special.ndtr(initial_latents(own, shape).to(torch.float64)) - 0.5 for own in streams]
    result = log_likelihood(
        denoiser,
        torch.cat([transform.dequantise(raw, noise) for noise in noises]),
        trace=trace,
        prior=prior,
        seeds=list(itertools.chain(*streams)) if estimated else None,
        sampler=sampler,
        cond=None if cond is None else {name: torch.cat([value] * draws) for name, value in cond.items()},
        execution=execution,
    )
    nats = result.log_prob.reshape(draws, len(raw))
    unit, volume = math.prod(shape) * math.log(2), transform.log_volume(shape)
    bits = -(nats.mean(0) + volume) / unit
    error = (standard_error(nats.T) if draws > 1 else result.standard_error) / unit
    weighted = None if estimated else -(nats.logsumexp(0) - math.log(draws) + volume) / unit
    return BitsPerDim(bits, error, weighted, nats, result.sigmas, result.nfe)
