"""Steps whose gradient is not finite: left out, counted, and an error where there are too many in a row."""

from __future__ import annotations

from typing import NamedTuple

import torch

from diffspace._shapes import Tensor
from diffspace.protocols import Cond

_PERIOD = 16  # steps between two looks: each waits for the device, which costs an accelerator its lead


class NoisyBatch(NamedTuple):
    """What a process trains on in one step: samples, unit-variance noise and σ (in float64) for each, conditions."""

    x: Tensor
    noise: Tensor
    sigma: Tensor
    cond: Cond | None


class NonFinite(FloatingPointError):
    """Gradients were not finite in too many steps in a row; `batch` is that of the last one."""

    def __init__(self, message: str, batch: NoisyBatch) -> None:
        super().__init__(message)
        self.batch = batch


class NonFiniteGuard:
    """Counts on the device the steps that are left out; `NonFinite` after `limit` of them in a row."""

    def __init__(self, limit: int, device: torch.device) -> None:
        self.limit = limit
        self.counts = torch.zeros(2, device=device)
        """Steps left out in all, and in a row."""

    def count(self, norm: Tensor) -> Tensor:
        """1.0 if a gradient of this norm is to be left out, else 0.0, as a tensor that nobody has waited for."""
        bad = (~norm.isfinite()).float()
        self.counts = torch.stack([self.counts[0] + bad, (self.counts[1] + 1) * bad])
        return bad

    def check(self, step: int, batch: NoisyBatch) -> None:
        """Raise where it is time to: at every step on a CPU, at every 16th on an accelerator."""
        if self.counts.device.type != "cpu" and step % _PERIOD:
            return
        row = int(self.counts[1])
        if row >= self.limit:
            raise NonFinite(
                f"loss: the gradients of {row} steps in a row, up to step {step}, are not finite; "
                "a lower learning_rate or max_grad_norm=1 may help",
                batch,
            )
