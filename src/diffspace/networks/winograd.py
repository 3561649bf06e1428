"""Inference with 3×3 convolutions by Winograd's minimal filtering F(4×4, 3×3), on a CPU (Lavin and Gray 2016).

Each 4×4 tile of the output is Aᵀ·[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)]·A, where g is the 3×3 kernel and d the 6×6 tile of the input: 36
multiplications instead of 144. Summed over channels, ⊙ is 36 matrix products.
"""

from __future__ import annotations

import threading
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

from diffspace._shapes import Float, Tensor
from diffspace.networks.layers import Conv
from diffspace.tensors import is_transformed

_Matrix: TypeAlias = list[list[float]]

# interpolation at 0, ±1, ±2 and ∞
_B: _Matrix = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_G: _Matrix = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_A: _Matrix = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
_CONSTANT = 7  # Aᵀ·E·A is 1 everywhere for the E that is 1 at (1, 1) alone

_MIN_CHANNELS = 64
_TILES = 512  # in one pass: enough for the matrix products, few enough for the cache

_buffers = threading.local()


def _square(matrix: _Matrix) -> Tensor:
    """The transform of both sides of a tile at once."""
    m = torch.tensor(matrix, dtype=torch.float64, device="cpu")
    return torch.kron(m, m)


def _buffer(name: str, *shape: int) -> Tensor:
    """Scratch memory, reused between calls: new pages for each layer would cost as much as the transforms."""
    size = torch.Size(shape).numel()
    buffer: Tensor | None = getattr(_buffers, name, None)
    if buffer is None or buffer.numel() < size:
        with torch.inference_mode(False):  # the buffer is used outside that mode too
            buffer = torch.empty(size, dtype=torch.float32, device="cpu")
        setattr(_buffers, name, buffer)
    return buffer[:size].view(shape)


def transformed(weight: Float[Tensor, "out channels 3 3"]) -> Float[Tensor, "36 out channels"]:
    """G·g·Gᵀ of every kernel."""
    out, channels = weight.shape[:2]
    kernels = weight.detach().permute(2, 3, 0, 1).reshape(9, -1)
    return (_square(_G).to(weight.dtype) @ kernels).view(36, out, channels)


@torch.library.custom_op(
    "diffspace::winograd", mutates_args=(), schema="(Tensor x, Tensor kernels, Tensor bias) -> Tensor"
)
def convolve(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    """The convolution of x (B, C, H, W), padded by one, with transformed kernels (36, out, C); channels are last."""
    batch, channels, height, width = x.shape
    out = kernels.shape[1]
    rows, columns = -(-height // 4), -(-width // 4)
    to_tiles, from_tiles = _square(_B).float(), _square(_A).float()
    y = torch.empty(batch, 4 * rows, 4 * columns, out, dtype=torch.float32, device="cpu")
    pixels = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 4 * columns + 1 - width, 1, 4 * rows + 1 - height))
    step = max(1, _TILES // (rows * columns))
    for first in range(0, batch, step):
        part, target = pixels[first : first + step], y[first : first + step]
        n = len(part)
        tiles = n * rows * columns
        d = _buffer("d", 6, 6, n, rows, columns, channels)
        d.copy_(part.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3))
        v = torch.mm(to_tiles, d.view(36, -1), out=_buffer("v", 36, tiles * channels))
        m = torch.bmm(v.view(36, tiles, channels), kernels.mT, out=_buffer("m", 36, tiles, out))
        m[_CONSTANT] += bias
        z = torch.mm(from_tiles, m.view(36, -1), out=_buffer("d", 16, tiles * out))
        target.view(n, rows, 4, columns, 4, out).copy_(z.view(4, 4, n, rows, columns, out).permute(2, 3, 0, 4, 1, 5))
    return y[:, :height, :width].permute(0, 3, 1, 2)


@convolve.register_fake
def _(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    y = x.new_empty(batch, -(-height // 4) * 4, -(-width // 4) * 4, kernels.shape[1])
    return y[:, :height, :width].permute(0, 3, 1, 2)


class WinogradConv(Conv):
    """A `Conv` that uses Winograd's algorithm where float32 is computed on a CPU without gradients."""

    def __init__(self, conv: Conv) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(conv.__dict__)
        self._cache: tuple[tuple[int, int], Tensor] | None = None  # not a buffer: not part of the state

    def _convolve(self, x: Tensor, more_padding: int = 0) -> Tensor:
        other_type = x.device.type != "cpu" or x.dtype != torch.float32 or self.weight.dtype != torch.float32
        plain = other_type or more_padding or torch.is_autocast_enabled("cpu") or is_transformed(x)
        if plain or torch.is_grad_enabled():
            return super()._convolve(x, more_padding)
        y: Tensor = convolve(x, self._kernels(), self.bias)
        return y

    def _kernels(self) -> Tensor:
        """The transformed kernels, kept until the weights change."""
        if torch.compiler.is_compiling():  # the compiler folds constants, and cannot trace versions
            return transformed(self.weight)
        state = (self.weight.data_ptr(), self.weight._version)
        if self._cache is None or self._cache[0] != state:
            self._cache = (state, transformed(self.weight))
        return self._cache[1]


def use_winograd(network: nn.Module) -> None:
    """Make the wide 3×3 convolutions of a U-Net use Winograd's algorithm for inference in float32 on a CPU.

    Results differ by 2e-6 of their norm; memory grows by four times the weights of these convolutions.
    docs/performance.md states the speed. Computations with gradients or in other precisions do not change. ValueError
    for a network without such convolutions, or not in float32 on a CPU.
    """
    count = 0
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if (
                type(layer) is Conv
                and layer.weight.shape[2:] == (3, 3)
                and min(layer.weight.shape[:2]) >= _MIN_CHANNELS
                and layer.weight.device.type == "cpu"
                and layer.weight.dtype == torch.float32
            ):
                setattr(parent, name, WinogradConv(layer))
                count += 1
    if not count:
        required = f"a U-Net of {_MIN_CHANNELS} or more channels in float32 on a CPU"
        raise ValueError(f"winograd: has no effect on this network; it requires {required}")
