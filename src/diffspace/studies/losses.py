"""What a training learns at which noise level: the weighted loss at its start, on its way and at its end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from diffspace._shapes import Float, Tensor
from diffspace.objective import LogNormal, loss_by_sigma
from diffspace.oracles import FiniteData, GaussianMixture
from diffspace.preconditioning import EDMPreconditioning
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
