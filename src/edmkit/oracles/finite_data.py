"""The ideal denoiser of a finite data set (Appendix B.3, Eq. 57)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from edmkit._shapes import Float, Tensor
from edmkit.oracles.base import Oracle, per_sample
from edmkit.protocols import Cond, check_cond

__all__ = ["FiniteData"]

# below this ratio of σ to the extent of the data, ‖x‖² − 2x·y + ‖y‖² has lost the digits that σ² needs
_CANCELLATION = 1e-3


class FiniteData(Oracle):
    """Every data point with equal probability: D(x; σ) = Σ_i y_i·softmax_i(−‖x − y_i‖²/(2σ²)) (Eq. 57).

    `data` is (n, *dims). Computed in float64 by a running log-sum-exp over chunks of the data, with no more than
    `max_megabytes` of scratch memory; results are in the dtype of x.
    """

    def __init__(self, data: Float[Tensor, "n *dims"], *, max_megabytes: float = 256.0) -> None:
        if len(data) == 0:
            raise ValueError("data: is empty; want at least one sample")
        if not max_megabytes > 0:
            raise ValueError(f"max_megabytes: {max_megabytes}; want a positive number")
        if not bool(torch.isfinite(data).all()):
            raise ValueError("data: holds values that are not finite")
        super().__init__(tuple(data.shape[1:]))
        self.data = data.flatten(1)
        self.max_megabytes = max_megabytes
        self._center = self.data.to(torch.float64).mean(0)
        self._extent = float((self.data.to(torch.float64) - self._center).abs().max()) * math.sqrt(self.data.shape[1])

    def _chunks(self, batch: int, device: torch.device) -> Iterator[Tensor]:
        """The centred data in float64, so many rows at a time that the scratch memory stays within bounds."""
        d = self.data.shape[1]
        # a chunk of c rows needs c·d for itself, twice while it is centred, and c·B for each of logits and weights
        rows = max(1, int(self.max_megabytes * 2**20 / 8 / (2 * d + 3 * batch)))
        center = self._center.to(device)
        for i in range(0, len(self.data), rows):
            yield self.data[i : i + rows].to(device, torch.float64) - center

    def _logits(self, x: Tensor, chunk: Tensor, level: Tensor, exact: bool) -> Tensor:
        """−‖x − y‖²/(2σ²), of shape (B, rows), for centred x and y."""
        if exact:
            squared = torch.cdist(x, chunk, compute_mode="donot_use_mm_for_euclid_dist") ** 2
        else:
            squared = (x**2).sum(1, keepdim=True) - 2 * (x @ chunk.T) + (chunk**2).sum(1)
        return -squared / (2 * level**2)

    def _reduce(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(Σ softmax·y, log-sum-exp of the logits), of centred y."""
        level = per_sample(sigma, x)
        if not bool((level > 0).all()):
            raise ValueError(f"sigma: {float(level.min())}; want positive noise levels")
        flat = x.flatten(1).to(torch.float64) - self._center.to(x.device)
        exact = float(level.min()) < _CANCELLATION * self._extent
        greatest = torch.full((len(x), 1), -math.inf, dtype=torch.float64, device=x.device)
        total = torch.zeros_like(greatest)
        mean = torch.zeros_like(flat)
        for chunk in self._chunks(len(x), x.device):
            logits = self._logits(flat, chunk, level, exact)
            peak = torch.maximum(greatest, logits.amax(1, keepdim=True))
            weights = (logits - peak).exp_()
            keep = (greatest - peak).exp()
            total = keep * total + weights.sum(1, keepdim=True)
            mean = keep * mean + weights @ chunk
            greatest = peak
        return mean / total, (greatest + total.log()).squeeze(1)

    def __call__(
        self,
        x: Float[Tensor, "batch *dims"],
        sigma: Float[Tensor, ""] | Float[Tensor, "batch"],
        cond: Cond | None = None,
    ) -> Float[Tensor, "batch *dims"]:
        check_cond(cond, (), "a finite-data oracle")
        mean, _ = self._reduce(x, sigma)
        return (mean + self._center.to(x.device)).reshape(x.shape).to(x.dtype)

    def log_prob(
        self, x: Float[Tensor, "batch *dims"], sigma: Float[Tensor, ""] | Float[Tensor, "batch"]
    ) -> Float[Tensor, "batch"]:
        """ln p(x; σ) of the data with noise σ > 0, in float64."""
        n, d = self.data.shape
        _, log_sum = self._reduce(x, sigma)
        return log_sum - math.log(n) - d * (per_sample(sigma, x).squeeze(1).log() + 0.5 * math.log(2 * math.pi))

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "{n} *dims"]:
        """n independent draws from the data set in float64 on the CPU."""
        which = torch.randint(len(self.data), (n,), generator=generator)
        return self.data[which].to("cpu", torch.float64).reshape(n, *self.sample_shape)
