"""The exponential moving average of the weights (Appendix F.2)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch

__all__ = ["EMA", "ema_beta"]


def ema_beta(batch_size: int, images: int, halflife_images: float, ramp_ratio: float | None) -> float:
    """β = ½^(batch/half-life), with the half-life in images limited to `ramp_ratio` of the images seen so far.

    The ramp keeps the average young at the start; None leaves it out. A half-life of 0 gives β = 0: no average.
    """
    halflife = halflife_images if ramp_ratio is None else min(halflife_images, images * ramp_ratio)
    return 0.5 ** (batch_size / halflife) if halflife > 0 else 0.0


M = TypeVar("M", bound=torch.nn.Module)


class EMA(Generic[M]):
    """A copy of a module whose parameters follow the original's: θ' ← β·θ' + (1 − β)·θ; buffers are copied."""

    def __init__(self, module: M) -> None:
        self.module: M = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, source: torch.nn.Module, beta: float) -> None:
        """One step towards the parameters of `source`."""
        torch._foreach_lerp_(list(self.module.parameters()), list(source.parameters()), 1 - beta)
        for own, buffer in zip(self.module.buffers(), source.buffers(), strict=True):
            own.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        return self.module.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state)
