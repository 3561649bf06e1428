"""How uncertain a denoiser is at each noise level, learnt with it, as a weight of the loss (EDM2)."""

from __future__ import annotations

import math

import torch

from diffspace._shapes import Float, Tensor
from diffspace.checks import check_integer


class Uncertainty(torch.nn.Module):
    """u(σ) = w·f(¼·ln σ)/√features, with f_k(c) = √2·cos(2π·(a_k·c + b_k)), a_k ~ N(0, 1), b_k ~ U(0, 1).

    The weighted squared error per dimension ℓ(σ) = λ(σ)·‖D − y‖²/d is trained as ℓ/e^u + u (Karras et al. 2024,
    arXiv:2312.02696, Eq. 14 to 16), times d where the loss is a sum over the d dimensions. For a given denoiser it is
    least at u(σ) = ln E[ℓ | σ]: every level then has the same share in the gradient, since e^−u·λ‖D − y‖² is 1 for each
    dimension. w begins at 0, so that u = 0 and the loss is the plain one.

    The features are those of the paper's network (its Eq. 21), the same for every process and run; they are in the
    state dict.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, features: int = 128) -> None:
        super().__init__()
        check_integer("features", features, 1)
        generator = torch.Generator().manual_seed(features)
        self.register_buffer(
            "frequencies", 2 * math.pi * torch.randn(features, generator=generator, dtype=torch.float32, device="cpu")
        )
        self.register_buffer(
            "phases", 2 * math.pi * torch.rand(features, generator=generator, dtype=torch.float32, device="cpu")
        )
        self.weight = torch.nn.Parameter(torch.zeros(features, dtype=torch.float32, device="cpu"))

    def forward(self, sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """u(σ), in the dtype of the weight."""
        angle = (sigma.log() / 4).to(self.weight)[..., None] * self.frequencies + self.phases
        # a product and a sum instead of a matrix product: autocast would round it
        return (angle.cos() * self.weight).sum(-1) * math.sqrt(2 / len(self.weight))
