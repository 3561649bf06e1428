"""The squared error by noise level while a model trains, gathered where it is computed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from diffspace._shapes import Float, Tensor
from diffspace.objective.noise import NoiseDistribution

__all__ = ["SigmaBins"]

_OUTSIDE = 1e-3  # the share of draws below the lowest edge, and above the highest


class SigmaBins:
    """Means of a quantity, such as the squared error per dimension, over bins that are even in ln σ.

    The edges lie between the 0.1 % and 99.9 % quantiles of `noise`, or are given, rising, as `edges` (their number is
    then that of the bins and one); the outer bins also take what lies beyond. Sums are kept on `device`, and adding to
    them never waits for it.

    `sums` has shape (2, bins): the sum of the quantity and the number of draws, in float64 (float32 on MPS). Sums of
    several processes add up: all-reduce the tensor in place before `read`.
    """

    def __init__(
        self,
        noise: NoiseDistribution | None = None,
        *,
        bins: int = 16,
        edges: Sequence[float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if noise is not None and edges is None:
            if bins < 1:
                raise ValueError(f"bins: {bins}; want at least 1")
            ends = noise.quantile(torch.tensor([_OUTSIDE, 1 - _OUTSIDE], dtype=torch.float64)).log()
            edges = torch.linspace(float(ends[0]), float(ends[1]), bins + 1, dtype=torch.float64).exp().tolist()
        elif noise is not None or edges is None:
            raise ValueError("noise, edges: give one of the two")
        if len(edges) < 2 or not edges[0] > 0 or not all(a < b for a, b in itertools.pairwise(edges)):
            raise ValueError(f"edges: {list(edges)}; want at least 2 positive levels that rise")
        device = torch.device(device)
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.edges = torch.tensor(edges, dtype=dtype, device=device)
        self.sums = torch.zeros(2, len(edges) - 1, dtype=dtype, device=device)

    @torch.no_grad()
    def add(self, sigma: Float[Tensor, "batch"], value: Float[Tensor, "batch"]) -> None:
        """Count the value of each sample in the bin of its σ; values that are not finite are left out."""
        value = value.to(self.sums)
        place = torch.bucketize(sigma.to(self.sums), self.edges[1:-1], right=True)
        own = place == torch.arange(self.sums.shape[1], device=self.sums.device)[:, None]
        own = own & value.isfinite()
        # not index_add_, whose order of additions, and so whose rounding, differs from run to run on CUDA
        self.sums += torch.stack([torch.where(own, value, 0).sum(1), own.sum(1)])

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
