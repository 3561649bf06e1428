"""One exact denoiser for each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from diffspace._shapes import Batch, Float, Sigma, Tensor
from diffspace.oracles.oracle import Oracle
from diffspace.protocols import Cond


class ByClass(Oracle):
    """The exact conditional denoiser E[x₀ | x, label]: oracle number k denoises the samples of class k.

    `cond["labels"]`, class indices of shape (B,), is required. `log_prob` is that of the mixture of equal classes.
    """

    conditions = ("labels",)

    def __init__(self, oracles: Sequence[Oracle]) -> None:
        if not oracles:
            raise ValueError("oracles: expected one for each class, got none")
        shapes = {oracle.sample_shape for oracle in oracles}
        if len(shapes) > 1:
            raise ValueError(f"oracles: expected one sample shape, got {sorted(shapes)}")
        super().__init__(oracles[0].sample_shape)
        self.oracles = tuple(oracles)

    def _denoise(self, x: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        labels = cond.get("labels")
        if labels is None or labels.shape != (len(x),):
            raise ValueError(f"labels: expected class indices of shape ({len(x)},)")
        if int(labels.min()) < 0 or int(labels.max()) >= len(self.oracles):
            raise ValueError(f"labels: expected 0 to {len(self.oracles) - 1}, got [{labels.min()}, {labels.max()}]")
        levels = sigma.expand(len(x))
        denoised = torch.empty_like(x)
        for k, oracle in enumerate(self.oracles):
            rows = (labels == k).nonzero().flatten()
            if len(rows):
                denoised[rows] = oracle(x[rows], levels[rows])
        return denoised

    def log_prob(self, x: Batch, sigma: Sigma) -> Float[Tensor, "batch"]:
        joint = torch.stack([oracle.log_prob(x, sigma) for oracle in self.oracles])
        return joint.logsumexp(0) - torch.tensor(float(len(self.oracles)), dtype=torch.float64).log()
