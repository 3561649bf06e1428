"""How averages of the weights remember: the weight that each past step has in them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffspace._shapes import Float, Tensor
from diffspace.averages import Profile
from diffspace.checks import check_integer


@dataclass(frozen=True)
class ProfileCurve:
    """The density of an average's weight over the images seen; its integral is 1 less the weight `initial`."""

    images: Float[Tensor, "steps"]
    """The middles of the steps."""
    density: Float[Tensor, "steps"]
    initial: float
    """Of the weights that training began with."""


def profile_curve(profile: Profile, images: int, *, batch: int = 512) -> ProfileCurve:
    """What an average after `images` images is made of: w_k = (1 − β_k)·Π_{j>k} β_j for step k, over its images."""
    check_integer("batch", batch, 1)
    check_integer("images", images, batch)
    steps = images // batch
    beta = torch.tensor([profile.beta(k * batch, batch) for k in range(steps)], dtype=torch.float64, device="cpu")
    later = torch.cat([beta.flip(0).cumprod(0).flip(0)[1:], beta.new_ones(1)])
    middles = (torch.arange(steps, dtype=torch.float64, device="cpu") + 0.5) * batch
    return ProfileCurve(middles, (1 - beta) * later / batch, float(beta.prod()))
