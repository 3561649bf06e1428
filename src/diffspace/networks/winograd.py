"""3×3 convolutions by Winograd's minimal filtering F(4×4, 3×3), on a CPU (Lavin and Gray 2016).

Each 4×4 tile of the output is Aᵀ·[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)]·A, where g is the 3×3 kernel and d the 6×6 tile of the input: 36
multiplications in place of 144. Sums over channels make the ⊙ 36 matrix products.
"""

from __future__ import annotations

import threading
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

from diffspace._shapes import Float, Tensor
from diffspace.networks.layers import Conv

__all__ = ["use_winograd"]

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

_LEAST_CHANNELS = 64
_TILES = 512  # taken at a time: enough for the matrix products, few enough to stay in the cache

_buffers = threading.local()


def _square(matrix: _Matrix) -> Tensor:
    """The transform of both sides of a tile at once."""
    m = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(m, m)


def _buffer(name: str, *shape: int) -> Tensor:
    """Scratch memory that is kept: fresh pages for every layer would cost as much as the transforms."""
    size = torch.Size(shape).numel()
    held: Tensor | None = getattr(_buffers, name, None)
    if held is None or held.numel() < size:
        with torch.inference_mode(False):  # it serves outside of that mode too
            held = torch.empty(size)
        setattr(_buffers, name, held)
    return held[:size].view(shape)


def transformed(weight: Float[Tensor, "out channels 3 3"]) -> Float[Tensor, "36 out channels"]:
    """G·g·Gᵀ of every kernel."""
    out, channels = weight.shape[:2]
    kernels = weight.detach().permute(2, 3, 0, 1).reshape(9, -1)
    return (_square(_G).to(weight.dtype) @ kernels).view(36, out, channels)


@torch.library.custom_op(
    "diffspace::winograd", mutates_args=(), schema="(Tensor x, Tensor kernels, Tensor bias) -> Tensor"
)
def winograd(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    """The convolution of x (B, C, H, W), padded by one, with transformed kernels (36, out, C); channels are last."""
    batch, channels, height, width = x.shape
    out = kernels.shape[1]
    rows, columns = -(-height // 4), -(-width // 4)
    to_tiles, from_tiles = _square(_B).float(), _square(_A).float()
    y = torch.empty(batch, 4 * rows, 4 * columns, out)
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


@winograd.register_fake
def _(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    y = x.new_empty(batch, -(-height // 4) * 4, -(-width // 4) * 4, kernels.shape[1])
    return y[:, :height, :width].permute(0, 3, 1, 2)


class _Differentiable(torch.autograd.Function):
    """The convolution, whose gradient with respect to x is one as well, with the kernels turned by half a circle."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        y: Tensor = winograd(x, transformed(weight), bias)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        (dy,), (x, weight) = gradients, ctx.saved_tensors
        dx = None
        if ctx.needs_input_grad[0]:
            dx = winograd(dy, transformed(weight.flip(2, 3)).mT, dy.new_zeros(weight.shape[1]))
        _, dweight, dbias = torch.ops.aten.convolution_backward(
            dy, x, weight, [len(weight)], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, True]
        )
        return dx, dweight, dbias


class WinogradConv(Conv):
    """A `Conv` that convolves by Winograd's algorithm on a CPU in float32, and as ever elsewhere."""

    def __init__(self, conv: Conv) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(conv.__dict__)
        # no buffer: the average of a network has its own, or none
        self._made: tuple[tuple[int, int], Tensor] | None = None

    def _convolve(self, x: Tensor, more_padding: int = 0) -> Tensor:
        elsewhere = x.device.type != "cpu" or x.dtype != torch.float32 or self.weight.dtype != torch.float32
        if elsewhere or more_padding or torch.is_autocast_enabled("cpu"):
            return super()._convolve(x, more_padding)
        if torch.is_grad_enabled():
            differentiable: Tensor = _Differentiable.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return differentiable
        y: Tensor = winograd(x, self._kernels(), self.bias)
        return y

    def _kernels(self) -> Tensor:
        """The transformed kernels, kept until the weights change."""
        if torch.compiler.is_compiling():  # which folds constants, and cannot look at versions
            return transformed(self.weight)
        state = (self.weight.data_ptr(), self.weight._version)
        if self._made is None or self._made[0] != state:
            self._made = (state, transformed(self.weight))
        return self._made[1]


def use_winograd(network: nn.Module) -> int:
    """Let the wide 3×3 convolutions of a U-Net of diffspace use Winograd's algorithm; the number of them is returned.

    It changes what is computed on a CPU in float32, by 2e-6 of its norm, and nothing else. Inference keeps four times
    the weights of these convolutions; docs/performance.md has what is gained.
    """
    count = 0
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if (
                type(layer) is Conv
                and layer.weight.shape[2:] == (3, 3)
                and min(layer.weight.shape[:2]) >= _LEAST_CHANNELS
            ):
                setattr(parent, name, WinogradConv(layer))
                count += 1
    return count
