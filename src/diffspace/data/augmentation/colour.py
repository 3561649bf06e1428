"""Affine transforms of colour about the axis of grays."""

from __future__ import annotations

import math

import torch

from diffspace._shapes import Float, Tensor

__all__ = ["recolour"]


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
    gray = torch.full((channels, channels), 1 / channels, dtype=hue.dtype)
    across = hue.cos()[:, None, None] * (torch.eye(channels, dtype=hue.dtype) - gray)
    if channels == 3:
        turn = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=hue.dtype) / math.sqrt(3)
        across = across + hue.sin()[:, None, None] * turn
    matrix = contrast[:, None, None] * (luma[:, None, None] * gray + saturation[:, None, None] * across)
    offset = contrast * luma * brightness
    return (matrix.to(x) @ x.flatten(2)).reshape(x.shape) + offset.to(x)[:, None, None, None]
