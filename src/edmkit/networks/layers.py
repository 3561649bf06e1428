"""The layers of the networks, with the initialisation and the parameter names of the reference."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from edmkit._shapes import Float, Tensor

__all__ = ["Conv2d", "PositionalEmbedding", "group_norm", "linear", "xavier_"]


def xavier_(layer: nn.Linear | nn.Conv2d, gain: float = 1.0) -> None:
    """Weights uniform in ±gain·√(6/(fan_in + fan_out)), biases zero."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def linear(in_features: int, out_features: int, *, bias: bool = True) -> nn.Linear:
    """A fully connected layer, initialised by `xavier_`."""
    layer = nn.Linear(in_features, out_features, bias)
    xavier_(layer)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with ε = 1e-6, in as many groups of equal size as possible.

    There are at most 32 groups, and at least 4 channels in each; fewer than 4 channels are one group.
    """
    most = max(1, min(32, channels // 4))
    groups = next(n for n in range(most, 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6)


class Conv2d(nn.Conv2d):
    """A convolution of odd kernel size that keeps height and width, or halves or doubles them first.

    `resample="down"` averages 2×2 pixels, "up" repeats each pixel 2×2 times. Both are the [1, 1] filter of
    the reference, whose checkpoints hold it as `resample_filter`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        resample: Literal["up", "down"] | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)
        xavier_(self, gain)
        self.resample = resample
        if resample is not None:
            self.register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25))

    def forward(self, input: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out _ _"]:
        """The convolution of the resampled input."""
        if self.resample is None:
            return super().forward(input)
        if self.resample == "down":
            return super().forward(F.avg_pool2d(input, 2))
        if self.kernel_size == (
            1,
            1,
        ):  # commutes with the repetition of pixels, and costs a quarter before it
            return F.interpolate(super().forward(input), scale_factor=2, mode="nearest")
        return super().forward(F.interpolate(input, scale_factor=2, mode="nearest"))


class PositionalEmbedding(nn.Module):
    """(sin, cos)(f_k·c_noise) with f_k = 10000^(−k/(n−1)), k = 0 … n−1, for n = channels/2 of at least 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, c_noise: Float[Tensor, "batch"]) -> Float[Tensor, "batch channels"]:
        """The embedding of each c_noise, in float32 or better."""
        # c_noise reaches 999 under VP: its phase has no correct digit in half precision
        wide = c_noise.to(torch.promote_types(c_noise.dtype, torch.float32))
        n = self.channels // 2
        k = torch.arange(n, dtype=wide.dtype, device=wide.device)
        phase = torch.outer(wide, 10000.0 ** (-k / (n - 1)))
        return torch.cat([phase.sin(), phase.cos()], dim=1)
