"""Pictures as the published networks take them: 8-bit RGB, resized as each network's reference does it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from diffspace._shapes import Float, Shaped, Tensor
from diffspace.transform import PIXELS, Transform


def to_rgb(x: Float[Tensor, "n *dims"], transform: Transform = PIXELS) -> Shaped[Tensor, "n 3 height width"]:
    """The images x of the model's space as the uint8 RGB that is stored of them.

    Values of other ranges than 0 to 255 are scaled to it: those of the transform's bounds, or else the ones that it
    shows as black and white. Gray images are repeated; transparency is composited on white, as `data` does.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3, 4):
        raise ValueError(f"x: expected images (n, 1, 3 or 4 channels, height, width), got shape {tuple(x.shape)}")
    raw = transform.inverse(x)
    if (transform.lowest, transform.highest, raw.dtype) != (0, 255, torch.uint8):
        bounded = transform.lowest is not None and transform.highest is not None
        low, high = (transform.lowest, transform.highest) if bounded else (transform.shown or (None, None))
        if low is None or high is None:
            raise ValueError("transform: has neither bounds nor values shown as black and white; x are not pictures")
        raw = ((raw.to(torch.float32) - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)
    if raw.shape[1] == 4:
        colours, alpha = raw[:, :3].to(torch.int32), raw[:, 3:].to(torch.int32)
        raw = ((colours * alpha + 255 * (255 - alpha) + 127) // 255).to(torch.uint8)
    return raw.expand(-1, 3, -1, -1)


def resize_like_tf1(pixels: Shaped[Tensor, "n c height width"], size: int) -> Float[Tensor, "n c size size"]:
    """Bilinear interpolation of TensorFlow 1 (`resize_bilinear` with align_corners=False), in float32.

    Element i of the result lies at i·in/out, so that the corners of the pictures coincide and not their centres, and
    nothing is filtered before subsampling. FID is defined with it.
    """
    x = pixels.to(torch.float32)
    for dim in (3, 2):
        length = x.shape[dim]
        step = torch.tensor(length / size, dtype=torch.float32, device=x.device)
        place = torch.arange(size, dtype=torch.float32, device=x.device) * step
        below = place.long()
        share = (place - below).reshape([-1 if d == dim else 1 for d in range(4)])
        low, high = x.index_select(dim, below), x.index_select(dim, (below + 1).clamp(max=length - 1))
        x = low + (high - low) * share
    return x


_UNIT = 2**22  # the denominator of weights in Pillow


def resize_like_pillow(pixels: Shaped[Tensor, "n c height width"], size: int) -> Shaped[Tensor, "n c size size"]:
    """Bicubic interpolation of Pillow, bit for bit: antialiased, a = −0.5, rounded after each axis, width first."""
    x = pixels if pixels.device.type != "mps" else pixels.cpu()  # mps has no float64, in which the sums are exact
    for dim in (3, 2):
        if x.shape[dim] != size:
            weights = _bicubic(x.shape[dim], size).to(x.device)
            sums = x.movedim(dim, -1).to(torch.float64) @ weights.mT
            x = ((sums + 0.5).floor().clamp(0, 255).to(torch.uint8)).movedim(-1, dim)
    return x.to(pixels.device)


@functools.lru_cache(8)
def _bicubic(length: int, size: int) -> Float[Tensor, "size length"]:
    """The weights of each element of an axis in each of the result, multiples of 2^−22."""
    scale = length / size
    width = max(scale, 1.0)
    centre = (torch.arange(size, dtype=torch.float64, device="cpu")[:, None] + 0.5) * scale
    place = torch.arange(length, dtype=torch.float64, device="cpu")
    first, last = ((centre + side * 2 * width + 0.5).trunc().clamp(0, length) for side in (-1, 1))
    t = ((place - centre + 0.5) / width).abs()
    near, far = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    weights = torch.where(t < 1, near, torch.where(t < 2, far, 0.0))
    weights = torch.where((place >= first) & (place < last), weights, 0.0)
    scaled: Tensor = weights / weights.sum(1, keepdim=True) * _UNIT
    return (scaled + 0.5 * scaled.sign()).trunc() / _UNIT


def on_pictures(network: Callable[[Tensor], Tensor], transform: Transform) -> Callable[[Tensor], Tensor]:
    """The network on uint8 RGB as a function of images in the model's space."""
    return lambda x: network(to_rgb(x, transform))
