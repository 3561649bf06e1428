"""c_skip, c_out and c_in of D(x; σ) = c_skip·x + c_out·F(c_in·x; c_noise) as pure functions of σ (Eq. 7, Table 1).

Each takes σ as a tensor of any shape and returns three tensors of that shape. The training weight of every column
of Table 1 is λ = 1/c_out², which makes the loss of F uniform in σ.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from diffspace._shapes import Float, Tensor


class Coefficients(NamedTuple):
    """c_skip, c_out, c_in, each of the shape of σ."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor


def edm(sigma: Float[Tensor, "*batch"], sigma_data: float) -> Coefficients:
    """σ_d²/(σ² + σ_d²), σ·σ_d/√(σ² + σ_d²), 1/√(σ² + σ_d²): unit variance in and out (Appendix B.6)."""
    total = torch.hypot(sigma, torch.full_like(sigma, sigma_data))
    return Coefficients((sigma_data / total) ** 2, sigma * (sigma_data / total), 1 / total)


def epsilon(sigma: Float[Tensor, "*batch"]) -> Coefficients:
    """1, −σ, 1/√(σ² + 1): F predicts the noise ε (DDPM; VP and iDDPM in Table 1)."""
    return Coefficients(torch.ones_like(sigma), -sigma, 1 / torch.hypot(sigma, torch.ones_like(sigma)))


def ve(sigma: Float[Tensor, "*batch"]) -> Coefficients:
    """1, σ, 1: F predicts σ·score, the noise with its sign changed (VE in Table 1)."""
    return Coefficients(torch.ones_like(sigma), sigma, torch.ones_like(sigma))


def v(sigma: Float[Tensor, "*batch"]) -> Coefficients:
    """1/(σ² + 1), −σ/√(σ² + 1), 1/√(σ² + 1): F predicts v = (ε − σ·x₀)/√(σ² + 1) (Salimans and Ho 2022)."""
    c_skip, c_out, c_in = edm(sigma, 1.0)
    return Coefficients(c_skip, -c_out, c_in)


def x0(sigma: Float[Tensor, "*batch"]) -> Coefficients:
    """0, 1, 1/√(σ² + 1): F predicts x₀ itself from the variance-preserving input."""
    one = torch.ones_like(sigma)
    return Coefficients(torch.zeros_like(sigma), one, 1 / torch.hypot(sigma, one))


def flow(sigma: Float[Tensor, "*batch"]) -> Coefficients:
    """1/(1 + σ), −σ/(1 + σ), 1/(1 + σ): F predicts the velocity ε − x₀ at (1 − t)·x₀ + t·ε (rectified flow)."""
    s = 1 / (1 + sigma)
    return Coefficients(s, -sigma * s, s)
