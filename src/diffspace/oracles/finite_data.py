"""The ideal denoiser of a finite data set (Appendix B.3, Eq. 57)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from diffspace._shapes import Batch, Float, Sigma, Tensor
from diffspace.checks import check_number
from diffspace.oracles.oracle import Oracle
from diffspace.protocols import Cond

# below this ratio of σ to the extent of the data, ‖x‖² − 2x·y + ‖y‖² has lost the digits that σ² needs
_CANCELLATION = 1e-3


class FiniteData(Oracle):
    """Every data point with equal probability: D(x; σ) = Σ_i y_i·softmax_i(−‖x − y_i‖²/(2σ²)) (Eq. 57).

    `data` is (n, *dims). Computed in float64 by a running log-sum-exp over chunks of x and of the data; results are
    in the dtype of x. As long as no gradients are recorded, scratch memory stays within `max_megabytes`, or within
    what a single row of each needs.
    """

    def __init__(self, data: Float[Tensor, "n *dims"], *, max_megabytes: float = 256.0) -> None:
        if len(data) == 0:
            raise ValueError("data: expected at least one sample, got none")
        check_number("max_megabytes", max_megabytes, "(0, inf]")
        super().__init__(tuple(data.shape[1:]))
        self.data = data.reshape(len(data), -1)
        self.max_megabytes = max_megabytes
        n, d = self.data.shape
        rows = self._rows(4 * d)
        origin = torch.zeros(d, dtype=torch.float64, device=data.device)
        self._center = sum((chunk.sum(0) for chunk in self._chunks(rows, origin)), origin) / n
        if not bool(torch.isfinite(self._center).all()):
            raise ValueError("data: expected finite values")
        self._extent = math.sqrt(d) * max(float(chunk.abs().max()) for chunk in self._chunks(rows, self._center))

    def moments(self) -> tuple[float, float]:
        mean = self._center.mean()
        chunks = self._chunks(self._rows(4 * self.data.shape[1]), mean.expand_as(self._center))
        squares = sum(float(chunk.square().sum()) for chunk in chunks)
        return float(mean), squares / self.data.numel()

    def _rows(self, numbers: int) -> int:
        """How many rows of `numbers` float64 numbers fit into the scratch memory."""
        return max(1, int(self.max_megabytes * 2**20 / 8 / numbers))

    def _chunks(self, rows: int, center: Tensor) -> Iterator[Tensor]:
        """The data less `center`, in float64 on its device, `rows` at a time."""
        for chunk in torch.split(self.data, rows):
            yield chunk.to(center, copy=True).sub_(center)

    def _logits(self, x: Tensor, chunk: Tensor, level: Tensor, exact: bool) -> Tensor:
        """−‖x − y‖²/(2σ²) of every pair of rows, for centred x and y."""
        if exact:
            half: Tensor = 0.5 * torch.cdist(x, chunk, compute_mode="donot_use_mm_for_euclid_dist").square()
        else:
            x_half, y_half = (0.5 * torch.linalg.vector_norm(v, dim=1).square() for v in (x, chunk))
            half = torch.addmm(y_half, x, chunk.T, alpha=-1) + x_half[:, None]
        return half / -level.square()

    def _blocks(self, x: Tensor, sigma: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Rows of x, block by block, with Σ softmax·y of the centred y and the log-sum-exp of the logits."""
        levels = self._level(sigma, x)
        if not bool((levels > 0).all()):
            raise ValueError(f"sigma: expected positive noise levels, got {levels.min().item()}")
        levels = levels.expand(len(x), 1)
        center, d = self._center.to(x.device), self.data.shape[1]
        # half of the memory for a block of x and its sums, half for two chunks of data, the last and this, and logits
        block = self._rows(2 * 5 * d)
        for start in range(0, len(x), block):
            rows = slice(start, start + block)
            flat, level = self._flat(x[rows]) - center, levels[rows]
            exact = level.min().item() < _CANCELLATION * self._extent
            greatest = torch.full_like(level, -math.inf)
            total, mean = torch.zeros_like(level), torch.zeros_like(flat)
            for chunk in self._chunks(self._rows(2 * (2 * d + 5 * len(flat))), center):
                logits = self._logits(flat, chunk, level, exact)
                peak = torch.maximum(greatest, logits.amax(1, keepdim=True))
                keep, weights = (greatest - peak).exp(), (logits - peak).exp_()
                greatest, total = peak, keep * total + weights.sum(1, keepdim=True)
                mean = torch.addmm(keep * mean, weights, chunk)
            yield rows, mean / total, (greatest + total.log()).squeeze(1)

    def _denoise(self, x: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        denoised = torch.empty_like(x)
        for rows, mean, _ in self._blocks(x, sigma):
            denoised[rows] = (mean + self._center.to(x.device)).reshape(-1, *self.sample_shape)
        return denoised

    def log_prob(self, x: Batch, sigma: Sigma) -> Float[Tensor, "batch"]:
        """ln p(x; σ) of the data with noise σ > 0, in float64."""
        n, d = self.data.shape
        log_sum = torch.empty(len(x), dtype=torch.float64, device=x.device)
        for rows, _, part in self._blocks(x, sigma):
            log_sum[rows] = part
        return log_sum - math.log(n) - d * (self._level(sigma, x).squeeze(1).log() + 0.5 * math.log(2 * math.pi))

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "{n} *dims"]:
        which = torch.randint(len(self.data), (n,), generator=generator, dtype=torch.int64, device="cpu")
        return self.data[which].to("cpu", torch.float64).reshape(n, *self.sample_shape)
