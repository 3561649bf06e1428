"""Thresholding of estimates to the range of the data."""

from __future__ import annotations

import math

import torch

from diffspace._shapes import Batch, Sigma, Tensor
from diffspace.checks import check_number
from diffspace.guidance.wrapper import Wrapper, column
from diffspace.protocols import Cond, Denoiser


class DynamicThresholding(Wrapper):
    """clip(D, −s, s)·bound/s with s = max(bound, `percentile` of |D|) for each sample (Saharia et al. 2022, Sec. 2.3).

    For data in [−bound, bound] in the model's space, which strong guidance leaves: static clipping saturates such
    values, this scales them back. `percentile` is a fraction from 0 to 1 (1: the greatest |D|, nothing is clipped),
    with linear interpolation between the values of a sample; None is static clipping, s = bound.
    """

    def __init__(self, denoiser: Denoiser, percentile: float | None = 0.995, bound: float = 1.0) -> None:
        super().__init__(denoiser)
        if percentile is not None:
            check_number("percentile", percentile, "[0, 1]")
        check_number("bound", bound, "(0, inf)")
        self.percentile = percentile
        self.bound = bound

    def forward(self, x: Batch, sigma: Sigma, cond: Cond | None = None) -> Batch:
        denoised = self.denoiser(x, sigma, cond)
        if self.percentile is None:
            return denoised.clamp(-self.bound, self.bound)
        scale = column(_percentile(denoised.flatten(1).abs(), self.percentile).clamp_min(self.bound), denoised)
        return torch.minimum(torch.maximum(denoised, -scale), scale) * (self.bound / scale)


def _percentile(values: Tensor, share: float) -> Tensor:
    """The quantile of each row, between its two order statistics around share·(d − 1).

    By the few values above it: `torch.quantile` sorts all, and refuses more than 2²⁴.
    """
    place = share * (values.shape[1] - 1)
    below = math.floor(place)
    top = values.topk(values.shape[1] - below, dim=1, sorted=True).values
    return torch.lerp(top[:, -1], top[:, max(top.shape[1] - 2, 0)], place - below)
