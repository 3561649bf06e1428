"""What a training learns at which noise level: the weighted loss at its start, on its way and at its end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from diffspace._shapes import Float, Tensor
from diffspace.objective import LogNormal, loss_by_sigma
from diffspace.oracles import FiniteData, GaussianMixture
from diffspace.preconditioning import EDMPreconditioning
from diffspace.protocols import Denoiser
from diffspace.studies.coefficients import training_density
from diffspace.studies.problems import log_space
from diffspace.studies.training import train_small


@dataclass(frozen=True)
class WeightedLoss:
    """λ(σ)·E‖D − y‖² per dimension over σ, at some time of a training: 1 for a network that has learnt nothing."""

    name: str
    sigma: Float[Tensor, "levels"]
    loss: Float[Tensor, "levels"]


@dataclass(frozen=True)
class LossStages:
    """The weighted loss at the start, on the way and at the end, with the density of ln σ in training."""

    title: str
    stages: tuple[WeightedLoss, ...]
    attainable: WeightedLoss | None
    sigma: Float[Tensor, "levels"]
    density: Float[Tensor, "levels"]


def loss_stages(
    data: GaussianMixture | FiniteData,
    held_out: Float[Tensor, "n *dims"],
    *,
    steps: int,
    title: str = "",
    progress: Callable[[str], None] = lambda text: None,
) -> LossStages:
    """Train a small network with the paper's choices for σ_data of the data, and measure it three times.

    Args:
        data: what it is trained on. A mixture is its own exact denoiser, whose loss is the attainable one.
        held_out: other samples, on which the loss is measured.
        steps: of the training.
        title: of the result.
        progress: called with a line on the way.
    """
    sigma_data = math.sqrt(data.moments()[1])
    noise, preconditioning = LogNormal.for_data(sigma_data), EDMPreconditioning(sigma_data)
    trained = train_small(data, preconditioning, noise=noise, steps=steps, shares=(0.0, 0.05, 1.0), progress=progress)
    sigma = sigma_data * log_space(0.004, 160.0, 81)
    shown = sigma[::2]
    oracle = data if isinstance(data, GaussianMixture) else None
    found = [loss_by_sigma(d, held_out, sigmas=shown, oracle=oracle) for d in trained.denoisers]
    weight = preconditioning.weight(shown)
    names = ("start", "after 5 % of the steps", "end")
    stages = tuple(WeightedLoss(n, shown, weight * f.mse) for n, f in zip(names, found, strict=True))
    best = found[-1].attainable
    attainable = None if best is None else WeightedLoss("attainable", shown, weight * best)
    return LossStages(title, stages, attainable, sigma, training_density(noise, sigma))


@torch.no_grad()
def excess_loss(
    denoiser: Denoiser,
    oracle: Denoiser,
    x0: Float[Tensor, "batch *dims"],
    *,
    sigmas: Float[Tensor, "levels"],
    seed: int = 0,
) -> Float[Tensor, "levels"]:
    """E‖D − D*‖² per dimension over σ, by which the loss is above that of the exact denoiser D*.

    D*(x) is the mean of y given x, so that E‖D − y‖² = E‖D* − y‖² + E‖D − D*‖². This part varies less between draws
    than the difference of the two losses.

    Args:
        denoiser: D(x; σ).
        oracle: D*.
        x0: the data, which noise is added to, of shape (B, *dims); all levels are one batch.
        sigmas: the noise levels.
        seed: of the noise, which is the same at all levels.
    """
    noise = torch.randn(x0.shape, dtype=x0.dtype, generator=torch.Generator().manual_seed(seed), device="cpu")
    level = sigmas.repeat_interleave(len(x0)).to(x0)
    noisy = x0.repeat(len(sigmas), *[1] * (x0.ndim - 1))
    noisy = noisy + level.reshape(-1, *[1] * (x0.ndim - 1)) * noise.repeat(len(sigmas), *[1] * (x0.ndim - 1))
    far = (denoiser(noisy, level) - oracle(noisy, level)).double().square()
    return far.reshape(len(sigmas), -1).mean(1)


def attainable_loss(
    oracle: Denoiser, x0: Float[Tensor, "batch *dims"], *, sigmas: Float[Tensor, "levels"], seed: int = 0
) -> Float[Tensor, "levels"]:
    """E‖D* − y‖² per dimension over σ as σ²·E[∇·D*(y + n)]/d, with symmetric differences for the divergence.

    The covariance of y given x is σ²·∂D*/∂x. Its mean varies less between draws than that of squared errors; where the
    noise is small or large, hardly at all.

    Args:
        oracle: the exact denoiser D*, in float64.
        x0: the data y, of shape (B, *dims), which noise is added to.
        sigmas: the noise levels.
        seed: of the noise, which is the same at all levels.
    """
    x0 = x0.double()
    noise = torch.randn(x0.shape, dtype=x0.dtype, generator=torch.Generator().manual_seed(seed), device="cpu")
    dims = x0[0].numel()
    found = []
    for sigma in sigmas.double():
        x, shift = (x0 + sigma * noise).flatten(1), 1e-4 * sigma
        slopes = torch.zeros((), dtype=x.dtype, device=x.device)
        for k, axis in enumerate(torch.eye(dims, dtype=x.dtype, device=x.device)):
            step = axis * shift
            above, below = (oracle(y.reshape(x0.shape), sigma).flatten(1)[:, k] for y in (x + step, x - step))
            slopes = slopes + ((above - below) / (2 * shift)).mean()
        found.append(sigma**2 * slopes / dims)
    return torch.stack(found)
