"""The assumed density at σ_max, the upper end of the ODE."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from diffspace._shapes import Batch, Float, Tensor
from diffspace.checks import check_number

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
