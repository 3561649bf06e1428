"""Errors by noise level: measured on data beside what is trivial and what is attainable, or gathered in training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_integer, check_seed
from diffspace.objective.loss import denoising_error
from diffspace.objective.noise import NoiseDistribution, Reduce
from diffspace.protocols import Cond, Denoiser, module_of
from diffspace.tensors import check_floating, evaluating

_OUTSIDE = 1e-3  # the share of draws below the lowest edge of bins, and above the highest


@dataclass(frozen=True)
class LossBySigma:
    """Mean squared error per dimension at each σ, with its standard error, in float64.

    `trivial` is the error of the trivial denoiser, which returns the mean of the data: their variance at every σ.
    `attainable` is that of the given oracle on the same noise and conditions, None without one. Multiply by λ(σ) for
    the weighted loss.
    """

    sigma: Float[Tensor, "levels"]
    mse: Float[Tensor, "levels"]
    standard_error: Float[Tensor, "levels"]
    trivial: Float[Tensor, "levels"]
    attainable: Float[Tensor, "levels"] | None


def loss_by_sigma(
    denoiser: Denoiser,
    x0: Float[Tensor, "batch *dims"],
    cond: Cond | None = None,
    *,
    sigmas: Float[Tensor, "levels"],
    oracle: Denoiser | None = None,
    mean: Float[Tensor, "*dims"] | None = None,
    seed: int = 0,
    batch_size: int = 1024,
) -> LossBySigma:
    """The squared error of D on the data x0 at every level, all with the same noise, and modules in evaluation mode.

    Args:
        denoiser: D(x; σ).
        x0: the data, of shape (B, *dims).
        cond: conditions of the data, each of B entries.
        sigmas: the noise levels, of shape (levels,).
        oracle: the exact denoiser, for `attainable`.
        mean: the mean of the training data (default: of x0), which is the trivial denoiser's answer.
        seed: of the noise.
        batch_size: samples of one pass.
    """
    check_integer("x0, number of samples", len(x0), 2)
    check_integer("batch_size", batch_size, 1)
    check_floating("x0", x0)
    x0 = x0.to(torch.promote_types(x0.dtype, torch.float32))
    if not bool((sigmas > 0).all()):
        raise ValueError(f"sigmas: expected positive noise levels, got {float(sigmas.min())}")
    check_seed("seed", seed)
    # far from the small seeds from which data are made, whose normal numbers it would repeat
    generator = torch.Generator().manual_seed((seed + 0x9E3779B9) & 0xFFFFFFFF)
    noise = torch.randn(x0.shape, dtype=x0.dtype, generator=generator, device="cpu").to(x0.device)
    levels = sigmas.to("cpu", torch.float64)

    def errors(of: Denoiser) -> Tensor:
        rows = []
        with evaluating(module_of(of), grad=False):
            for level in levels.tolist():
                for k in (slice(i, i + batch_size) for i in range(0, len(x0), batch_size)):
                    sigma = torch.full((len(x0[k]),), level, dtype=x0.dtype, device=x0.device)
                    given = cond and {name: c[k] for name, c in cond.items()}
                    rows.append(denoising_error(of, x0[k], sigma, given, noise=noise[k]))
        return torch.cat(rows).reshape(len(levels), -1).cpu().double() / x0[0].numel()

    own = errors(denoiser)
    variance = (x0 - (x0.mean(0) if mean is None else mean)).cpu().double().square().mean()
    return LossBySigma(
        sigma=levels,
        mse=own.mean(1),
        standard_error=own.std(1) / len(x0) ** 0.5,
        trivial=variance.expand_as(levels).clone(),
        attainable=None if oracle is None else errors(oracle).mean(1),
    )


class SigmaBins:
    """Means of a quantity over bins that are even in ln σ; the outer bins also take what lies beyond them.

    The edges lie between the 0.1 % and 99.9 % quantiles of `noise`, or are given in increasing order as `edges`.
    `sums`, of shape (2, bins), holds the sum of the quantity and the number of draws, in float64 (float32 on MPS). It
    moves to the device of the values, so that adding never waits. Sums of several processes add up.
    """

    def __init__(
        self, noise: NoiseDistribution | None = None, *, bins: int = 16, edges: Sequence[float] | None = None
    ) -> None:
        if (noise is None) == (edges is None):
            raise ValueError("noise, edges: expected one of the two")
        if noise is not None:
            check_integer("bins", bins, 1)
            ends = noise.quantile(torch.tensor([_OUTSIDE, 1 - _OUTSIDE], dtype=torch.float64, device="cpu")).log()
            edges = (
                torch.linspace(float(ends[0]), float(ends[1]), bins + 1, dtype=torch.float64, device="cpu")
                .exp()
                .tolist()
            )
        if edges is None or len(edges) < 2 or not edges[0] > 0 or not all(a < b for a, b in itertools.pairwise(edges)):
            raise ValueError(f"edges: expected at least 2 positive levels in increasing order, got {edges}")
        self.edges = torch.tensor(edges, dtype=torch.float64, device="cpu")
        self.sums = torch.zeros(2, len(edges) - 1, dtype=torch.float64, device="cpu")

    @torch.no_grad()
    def add(self, sigma: Float[Tensor, "batch"], value: Float[Tensor, "batch"], reduce: Reduce | None = None) -> None:
        """Count the value of each sample in the bin of its σ, if it is finite; `reduce` sums over several processes."""
        if self.sums.device != value.device:
            dtype = torch.float32 if value.device.type == "mps" else torch.float64
            self.sums, self.edges = self.sums.to(value.device, dtype), self.edges.to(value.device, dtype)
        value = value.to(self.sums)
        place = torch.bucketize(sigma.to(self.sums), self.edges[1:-1], right=True)
        own = place == torch.arange(self.sums.shape[1], device=self.sums.device, dtype=torch.int64)[:, None]
        own = own & value.isfinite()
        # not index_add_, whose order of additions, and so whose rounding, differs from run to run on CUDA
        found = torch.stack([torch.where(own, value, 0).sum(1), own.sum(1)])
        self.sums += found if reduce is None else reduce(found)

    def read(self) -> dict[str, list[Any]]:
        """Centres of the bins, means (None in a bin without draws) and counts, as lists; waits for the device."""
        total, count = self.sums.tolist()
        return {
            "sigma": (self.edges[1:] * self.edges[:-1]).sqrt().tolist(),
            "loss": [t / n if n else None for t, n in zip(total, count, strict=True)],
            "count": [int(n) for n in count],
        }

    def reset(self) -> None:
        """Forget what was added."""
        self.sums.zero_()
