"""Means by noise level, such as the squared error while a model trains, gathered on the device of the values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_integer
from diffspace.objective.noise import NoiseDistribution, Reduce

_OUTSIDE = 1e-3  # the share of draws below the lowest edge, and above the highest


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
            ends = noise.quantile(torch.tensor([_OUTSIDE, 1 - _OUTSIDE], dtype=torch.float64)).log()
            edges = torch.linspace(float(ends[0]), float(ends[1]), bins + 1, dtype=torch.float64).exp().tolist()
        if edges is None or len(edges) < 2 or not edges[0] > 0 or not all(a < b for a, b in itertools.pairwise(edges)):
            raise ValueError(f"edges: expected at least 2 positive levels in increasing order, got {edges}")
        self.edges = torch.tensor(edges, dtype=torch.float64)
        self.sums = torch.zeros(2, len(edges) - 1, dtype=torch.float64)

    @torch.no_grad()
    def add(self, sigma: Float[Tensor, "batch"], value: Float[Tensor, "batch"], reduce: Reduce | None = None) -> None:
        """Count the value of each sample in the bin of its σ, if it is finite; `reduce` sums over several processes."""
        if self.sums.device != value.device:
            dtype = torch.float32 if value.device.type == "mps" else torch.float64
            self.sums, self.edges = self.sums.to(value.device, dtype), self.edges.to(value.device, dtype)
        value = value.to(self.sums)
        place = torch.bucketize(sigma.to(self.sums), self.edges[1:-1], right=True)
        own = place == torch.arange(self.sums.shape[1], device=self.sums.device)[:, None]
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
