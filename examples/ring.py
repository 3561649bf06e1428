"""The problem of the four loops: points around eight places on a circle, whose exact denoiser is known."""

import torch

import diffspace as ds
from diffspace.data import named_oracle
from shared import print_errors

RING = named_oracle("ring")
"""The exact denoiser of eight Gaussians of standard deviation 0.1 on the unit circle; samples of shape (1, 1, 2)."""
SIGMA_DATA = 0.714
"""The standard deviation of a coordinate, √(½ + 0.1²)."""


def points(n: int, seed: int) -> torch.Tensor:
    """n samples in float32."""
    return RING.sample(n, generator=torch.Generator().manual_seed(seed)).float()


def judge(denoiser: ds.Denoiser) -> float:
    """Print the error beside the trivial and the attainable one by noise level; return mean error/attainable − 1."""
    sigmas = torch.tensor([0.05, 0.1, 0.2, 0.5, 1.0, 2.0])
    found = ds.loss_by_sigma(denoiser, points(4000, seed=1), sigmas=sigmas, oracle=RING)
    assert found.attainable is not None
    print_errors(found)
    excess = float((found.mse / found.attainable - 1).mean())
    print(f"error above the attainable, mean over the levels: {excess:.1%}")
    return excess
