"""The layers of the networks, with the initialisation and the parameter names of the authors' implementation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn
from torch.nn import functional as F

from diffspace._shapes import Float, Tensor
from diffspace.tensors import is_transformed

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class GroupNorm(nn.GroupNorm):
    """Group normalisation, which torch.func and forward differentiation transform whatever the layout of memory."""

    def forward(self, x: Float[Tensor, "batch channels *sides"]) -> Float[Tensor, "batch channels *sides"]:
        if not is_transformed(x):
            return super().forward(x)
        groups = x.reshape(x.shape[0], self.num_groups, -1)
        variance, mean = torch.var_mean(groups, dim=2, correction=0, keepdim=True)
        y = ((groups - mean) * (variance + self.eps).rsqrt()).reshape(x.shape)
        weight, bias = (p.reshape(-1, *[1] * (x.ndim - 2)) for p in (self.weight, self.bias))
        return weight * y + bias


def group_norm(channels: int, eps: float = 1e-6) -> GroupNorm:
    """Group normalisation in as many equal groups as possible: at most 32, each of at least 4 channels, or one."""
    return GroupNorm(largest_divisor(channels, min(32, channels // 4)), channels, eps=eps)


def largest_divisor(n: int, maximum: int) -> int:
    """The largest divisor of n that is at most `maximum`, or 1."""
    return next((k for k in range(maximum, 1, -1) if n % k == 0), 1)


class Resample(nn.Module):
    """Halves or doubles every side by a separable filter f, normalised to Σf = 1, in 1, 2 or 3 dimensions.

    "down" filters and keeps every second element; "up" inserts zeros between elements and filters by 2^dims·f. With
    the filter [1, 1] these are averages and repetition; NCSN++ has [1, 3, 3, 1]. None does nothing. The buffer
    `resample_filter` is the outer product of f, as in the checkpoints.
    """

    resample_filter: Tensor

    def __init__(self, dims: int, resample: Literal["up", "down"] | None, filter: Sequence[float] = (1, 1)) -> None:
        super().__init__()
        self.dims, self.resample, self.taps = dims, resample, len(filter)
        self.padding = (self.taps - 1) // 2
        if resample is not None:
            # By plain numbers: arithmetic of tensors on the meta device makes torch import its compiler, for a second.
            total, products = sum(filter) ** dims, map(math.prod, itertools.product(filter, repeat=dims))
            outer = torch.tensor([product / total for product in products], dtype=torch.float32)
            self.register_buffer("resample_filter", outer.reshape(1, 1, *(len(filter),) * dims))

    def forward(self, x: Float[Tensor, "batch channels *sides"]) -> Float[Tensor, "batch channels *_"]:
        if self.resample == "down":
            return self._down(x, self.padding)
        return self._up(x) if self.resample == "up" else x

    def _down(self, x: Tensor, padding: int) -> Tensor:
        if self.taps == 2:
            return _AVERAGE[self.dims](x, 2)
        return _CONV[self.dims](x, self._filters(x, 1), stride=2, padding=padding, groups=x.shape[1])

    def _up(self, x: Tensor) -> Tensor:
        if self.taps == 2:
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        filters = self._filters(x, 2**self.dims)
        return _CONV_TRANSPOSE[self.dims](x, filters, stride=2, padding=self.padding, groups=x.shape[1])

    def _filters(self, x: Tensor, gain: float) -> Tensor:
        """The filter times `gain`, once for each channel of x."""
        return (gain * self.resample_filter).to(x.dtype).expand(x.shape[1], *self.resample_filter.shape[1:])


class Conv(Resample):
    """`Resample`, then a convolution of odd kernel size with zero padding that keeps every side.

    `fused` convolves first and then halves, with the padding of both at the start, as NCSN++'s residual encoder does.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        resample: Literal["up", "down"] | None = None,
        filter: Sequence[float] = (1, 1),
        fused: bool = False,
    ) -> None:
        super().__init__(dims, resample, filter)
        self.kernel, self.fused = kernel, fused
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *[kernel] * dims))
        self.bias = nn.Parameter(torch.empty(out_channels))
        uniform(self)

    def forward(self, x: Float[Tensor, "batch channels *sides"]) -> Float[Tensor, "batch out *_"]:
        if self.fused:
            return self._down(self._convolve(x, self.padding), 0)
        if self.resample == "up" and self.kernel == 1 and self.taps == 2:  # the two commute; this order is cheaper
            return self._up(self._convolve(x))
        return self._convolve(super().forward(x))

    def _convolve(self, x: Tensor, more_padding: int = 0) -> Tensor:
        return _CONV[self.dims](x, self.weight, self.bias, padding=self.kernel // 2 + more_padding)


Layer = TypeVar("Layer", bound=Conv | nn.Linear)


@runtime_checkable
class Init(Protocol):
    """Initialises a layer in place and returns it."""

    def __call__(self, layer: Layer, /) -> Layer: ...


def xavier(layer: Layer, /, gain: float = 1.0) -> Layer:
    """Weights uniform in ±gain·√(6/(fan_in + fan_out)), biases zero: the initialisation of DDPM++ and NCSN++."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def uniform(layer: Layer, /) -> Layer:
    """Weights and biases uniform in ±1/√fan_in: the initialisation of ADM, and of PyTorch."""
    bound = 1 / math.sqrt(layer.weight[0].numel())
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.uniform_(layer.bias, -bound, bound)
    return layer


def zeros(layer: Layer, /) -> Layer:
    """Weights and biases zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class PositionalEmbedding(nn.Module):
    """cos(f_k·c_noise) and sin(f_k·c_noise) with f_k = 10000^(−k/m), k = 0 … n − 1, for n = channels/2 of at least 2.

    DDPM++ has m = n − 1 and the sines first (`endpoint`); ADM has m = n and the cosines first.
    """

    def __init__(self, channels: int, endpoint: bool = True) -> None:
        super().__init__()
        self.channels, self.endpoint = channels, endpoint

    def forward(self, c_noise: Float[Tensor, "batch"]) -> Float[Tensor, "batch channels"]:
        # c_noise reaches 999 under VP, where the phase has no correct digit in half precision
        wide = c_noise.to(torch.promote_types(c_noise.dtype, torch.float32))
        n = self.channels // 2
        k = torch.arange(n, dtype=wide.dtype, device=wide.device)
        phase = torch.outer(wide, 10000.0 ** (-k / (n - 1 if self.endpoint else n)))
        waves = (phase.sin(), phase.cos()) if self.endpoint else (phase.cos(), phase.sin())
        return torch.cat(waves, dim=1)


class FourierEmbedding(nn.Module):
    """sin(2π·f_k·c_noise) and cos(2π·f_k·c_noise) with channels/2 fixed frequencies f_k ~ N(0, 16²)."""

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        freqs = torch.randn(channels // 2, dtype=torch.float32)
        self.register_buffer("freqs", freqs if freqs.is_meta else 16 * freqs)  # no arithmetic on meta, as above

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FourierEmbedding:
        # frequencies stay in float32 in a network of half precision: rounding them moves phases by whole turns
        freqs = self.freqs
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.freqs.dtype.itemsize < freqs.dtype.itemsize <= 4:
            self.freqs = freqs.to(self.freqs.device)
        return self

    def forward(self, c_noise: Float[Tensor, "batch"]) -> Float[Tensor, "batch channels"]:
        wide = c_noise.to(torch.promote_types(c_noise.dtype, torch.float32))
        phase = torch.outer(wide, 2 * math.pi * self.freqs.to(wide.dtype))
        return torch.cat([phase.sin(), phase.cos()], dim=1)
