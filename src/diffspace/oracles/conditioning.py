"""The exact posterior of a Gaussian for a noisy linear measurement."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from diffspace._shapes import Tensor
from diffspace.checks import check_number


def condition(
    means: Tensor,
    roots: Tensor,
    shape: tuple[int, ...],
    operator: Callable[[Tensor], Tensor],
    y: Tensor,
    sigma_y: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(means, covariances, ln p(y)) of K Gaussians N(μ, R·Rᵀ), given y = A(x) + n with n ~ N(0, σ_y²·I).

    `means` is (K, d), `roots` (K, d, d); A maps (B, *shape) to (B, *measured), y is one of its rows, (1, *measured).
    With A·R = P·S·Qᵀ the covariance is R·Q·(σ_y²/(S² + σ_y²))·Qᵀ·Rᵀ, positive semi-definite despite rounding; σ_y may
    be 0. ln p(y) is not finite if y has no density.
    """
    check_number("sigma_y", sigma_y, "[0, inf)")
    d = means.shape[1]
    offset = operator(means.new_zeros(1, *shape))
    if y.shape != offset.shape:
        raise ValueError(f"y: expected one measurement, of shape {tuple(offset.shape)}, got {tuple(y.shape)}")
    basis = torch.eye(d, dtype=means.dtype).reshape(d, *shape)
    matrix = (operator(basis) - offset).reshape(d, -1).T  # (m, d)
    left, s, right = torch.linalg.svd(matrix @ roots, full_matrices=True)
    # the singular values along the m directions of y and the d directions of x, padded with 0
    s = torch.where(s > max(matrix.shape) * torch.finfo(s.dtype).eps * s.amax(-1, keepdim=True), s, 0.0)
    along_y, along_x = (torch.nn.functional.pad(s, (0, n - s.shape[-1])) for n in matrix.shape)
    residual = torch.einsum("kmj,km->kj", left, (y - offset).reshape(-1).to(means) - means @ matrix.T)

    gain = torch.where(s > 0, s / (s**2 + sigma_y**2), 0.0)
    shift = torch.einsum("kjd,kj->kd", right[:, : s.shape[1]], gain * residual[:, : s.shape[1]])
    shrunk = torch.where(along_x > 0, sigma_y / (along_x**2 + sigma_y**2).sqrt(), 1.0)
    square_root = roots @ right.mT * shrunk[:, None, :]
    total = along_y**2 + sigma_y**2
    log_prob = -0.5 * (residual**2 / total + total.log() + math.log(2 * math.pi)).sum(1)
    return means + torch.einsum("kde,ke->kd", roots, shift), square_root @ square_root.mT, log_prob
