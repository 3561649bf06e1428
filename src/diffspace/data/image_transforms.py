"""Transforms of images: whole pixels, affine maps band-limited by the wavelet sym6, and colours.

An image continued by reflection is periodic: with n pixels along an axis, 2(n − 1). Upsampling by 2 is therefore
needed for one period, and coordinates wrap, however far a transform reaches. Up- and downsampling are linear along each
axis, y = D·warp(U·x·Uᵀ)·Dᵀ, and D·U = 1: without a transform the image is unchanged.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from diffspace._shapes import Float, Int, Tensor

# the orthonormal low-pass filter of the wavelet sym6 (least asymmetric of Daubechies' with 6 vanishing moments), whose
# centre is the element number 5
_SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
_CENTRE = 5


def reflected(index: Int[Tensor, "*any"], length: int) -> Int[Tensor, "*any"]:
    """The place within 0 … length − 1 of an index of the line continued by reflection at its first and last element."""
    last = length - 1
    return last - (last - index.remainder(_period(length))).abs() if last else torch.zeros_like(index)


def _period(length: int) -> int:
    return max(2 * (length - 1), 1)


def shift(x: Float[Tensor, "batch channels height width"], by: Int[Tensor, "batch 2"]) -> Tensor:
    """Each image moved by whole pixels to the right and downwards, continued by reflection."""
    height, width = x.shape[2:]
    columns = reflected(torch.arange(width, dtype=torch.int64, device="cpu") - by[:, :1], width).to(x.device)
    rows = reflected(torch.arange(height, dtype=torch.int64, device="cpu") - by[:, 1:], height).to(x.device)
    x = x.gather(3, columns[:, None, None, :].expand(x.shape))
    return x.gather(2, rows[:, None, :, None].expand(x.shape))


def affine(
    scale: Float[Tensor, "batch"],
    rotation: Float[Tensor, "batch"],
    stretch: Float[Tensor, "batch"],
    axis: Float[Tensor, "batch"],
    translation: Float[Tensor, "batch 2"],
) -> tuple[Float[Tensor, "batch 2 2"], Float[Tensor, "batch 2"]]:
    """(L, b): what is seen at q, measured from the centre in pixels to the right and downwards, lies at L·q + b.

    L = R(rotation)·R(−axis)·diag(1/stretch, stretch)·R(axis)/scale and b = −L·translation, with R(θ) the matrix
    [[cos θ, −sin θ], [sin θ, cos θ]]: the image is magnified, turned, stretched along an axis, and moved.
    """
    stretched = _turn(-axis) @ torch.diag_embed(torch.stack([1 / stretch, stretch], -1)) @ _turn(axis)
    linear = _turn(rotation) @ stretched / scale[:, None, None]
    return linear, -(linear @ translation[..., None])[..., 0]


def _turn(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], -1).reshape(-1, 2, 2)


def warp(
    x: Float[Tensor, "batch channels height width"],
    linear: Float[Tensor, "batch 2 2"],
    offset: Float[Tensor, "batch 2"],
) -> Float[Tensor, "batch channels height width"]:
    """Each image read at L·q + b (see `affine`), upsampled by 2 before and downsampled by 2 after."""
    height, width = x.shape[2:]
    up_y, up_x = (_upsampling(n).to(x) for n in (height, width))
    down_y, down_x = (_downsampling(n).to(x) for n in (height, width))
    grid = _grid(height, width, linear.to(x), offset.to(x))
    fine = F.grid_sample(up_y @ (x @ up_x.T), grid, align_corners=True)
    return down_y @ (fine @ down_x.T)


def _upsampling(length: int) -> Float[Tensor, "fine length"]:
    """U: element k is the value at pixel k/2, over one period and the first element of the next."""
    k = torch.arange(2 * _period(length) + 1, dtype=torch.int64, device="cpu")
    matrix = torch.zeros(len(k), length, dtype=torch.float64, device="cpu")
    for number, value in enumerate(_SYM6):
        place = k + _CENTRE - number
        even = place % 2 == 0
        matrix[k[even], reflected(place[even] // 2, length)] += value
    return matrix


def _downsampling(length: int) -> Float[Tensor, "length fine"]:
    """D: its element m of the other side belongs to pixel (m − 5)/2."""
    k = torch.arange(length, dtype=torch.int64, device="cpu")
    matrix = torch.zeros(length, _fine(length), dtype=torch.float64, device="cpu")
    for number, value in enumerate(_SYM6):
        matrix[k, 2 * k + number] = value
    return matrix


def _fine(length: int) -> int:
    return 2 * (length - 1) + len(_SYM6)


def _grid(height: int, width: int, linear: Tensor, offset: Tensor) -> Float[Tensor, "batch fine_y fine_x 2"]:
    """Where `grid_sample` reads, from −1 to 1 over a period, for every element that is downsampled."""
    centres = ((width - 1) / 2, (height - 1) / 2)
    x = (torch.arange(_fine(width), dtype=torch.int64, device="cpu").to(linear) - _CENTRE) / 2 - centres[0]
    y = (torch.arange(_fine(height), dtype=torch.int64, device="cpu").to(linear) - _CENTRE) / 2 - centres[1]
    read = []
    for i, period in enumerate((_period(width), _period(height))):
        columns = linear[:, i, 0, None] * x
        rows = linear[:, i, 1, None] * y + offset[:, i, None] + centres[i]
        read.append((columns[:, None, :] + rows[:, :, None]).remainder(period) * (2 / period) - 1)
    return torch.stack(read, dim=-1)


def recolour(
    x: Float[Tensor, "batch channels height width"],
    brightness: Float[Tensor, "batch"],
    contrast: Float[Tensor, "batch"],
    luma: Float[Tensor, "batch"],
    hue: Float[Tensor, "batch"],
    saturation: Float[Tensor, "batch"],
) -> Float[Tensor, "batch channels height width"]:
    """contrast·(luma·vvᵀ + saturation·(cos(hue)·(1 − vvᵀ) + sin(hue)·[v]×))·(x + brightness) in every pixel.

    v = (1, …, 1)/√C is the axis of grays: `luma`, 1 or −1, acts along it, saturation and hue (radians) across. [v]× is
    the cross product with v, which only three channels have; elsewhere `hue` is 0.
    """
    channels = x.shape[1]
    gray = torch.full((channels, channels), 1 / channels, dtype=hue.dtype, device=hue.device)
    across = hue.cos()[:, None, None] * (torch.eye(channels, dtype=hue.dtype, device=hue.device) - gray)
    if channels == 3:
        turn = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=hue.dtype, device=hue.device) / math.sqrt(3)
        across = across + hue.sin()[:, None, None] * turn
    matrix = contrast[:, None, None] * (luma[:, None, None] * gray + saturation[:, None, None] * across)
    offset = contrast * luma * brightness
    return (matrix.to(x) @ x.flatten(2)).reshape(x.shape) + offset.to(x)[:, None, None, None]
