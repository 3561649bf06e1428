"""Range, mean and variance of each channel, in one pass over chunks of samples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from diffspace._shapes import Float, Shaped, Tensor

__all__ = ["Moments", "channel_moments", "standardising"]


class Moments(NamedTuple):
    """Of the elements of each channel (dimension 1), in float64; the variance is the population's, 1/n."""

    low: Float[Tensor, "channels"]
    high: Float[Tensor, "channels"]
    mean: Float[Tensor, "channels"]
    var: Float[Tensor, "channels"]


def channel_moments(chunks: Iterable[Shaped[Tensor, "batch channels *dims"]]) -> Moments:
    """The moments of all chunks together, merged by the formula of Chan et al. 1979, which does not cancel.

    A channel that holds anything that is not finite has a mean that is not finite.
    """
    total: Moments | None = None
    count = 0
    for chunk in chunks:
        values = chunk.movedim(1, 0).flatten(1).to(torch.float64)
        low, high = torch.aminmax(values, dim=1)
        var, mean = torch.var_mean(values, dim=1, correction=0)
        n = values.shape[1]
        if total is None:
            total, count = Moments(low, high, mean, var), n
            continue
        share = n / (count + n)
        delta = mean - total.mean
        total = Moments(
            torch.minimum(low, total.low),
            torch.maximum(high, total.high),
            total.mean + share * delta,
            total.var + share * (var - total.var) + share * (1 - share) * delta**2,
        )
        count += n
    if total is None:
        raise ValueError("chunks: want at least one")
    return total


def standardising(moments: Moments, std: float = 0.5) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(shift, scale) such that (x − shift)/scale has mean 0 and this standard deviation in each channel.

    A constant channel is only shifted.
    """
    scale = torch.where(moments.high > moments.low, moments.var.sqrt() / std, 1.0)
    return tuple(moments.mean.tolist()), tuple(scale.tolist())
