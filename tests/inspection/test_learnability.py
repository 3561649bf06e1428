"""What can be learnt at a noise level, against distributions whose best denoisers are known."""

import math

import pytest
import torch

from diffspace.inspection.learnability import coordinates, learnable_share, mode_variances
from diffspace.oracles import GaussianMixture

SIGMAS = torch.logspace(-2, 1, 13, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaussian_share(variances: torch.Tensor) -> torch.Tensor:
    """r(σ) of a Gaussian whose covariance has these eigenvalues, in closed form."""
    s2, mean = SIGMAS[:, None] ** 2, variances.mean()
    return 1 - (variances * s2 / (variances + s2)).mean(1) * (mean + s2[:, 0]) / (mean * s2[:, 0])


@pytest.mark.parametrize("shape", [(7,), (2, 6), (3, 20, 24), (1, 40, 40), (2, 5, 12, 16), (2000,)])
def test_coordinates_are_a_rotation(shape: tuple[int, ...]) -> None:
    x = normal(40, *shape) * torch.linspace(0.1, 3, math.prod(shape)).reshape(shape)
    z = coordinates(x)
    if math.prod(shape) == 2000:  # 1024 of the elements are looked at
        assert z.shape == (40, 1024)
        return
    flat = (x - x.mean(0)).flatten(1)
    assert z.shape == flat.shape
    assert torch.allclose(z @ z.T, flat @ flat.T, rtol=1e-9, atol=1e-9)


def test_coordinates_of_waves_are_one_each() -> None:
    # every image is one wave: the cosine transform must find it in one coordinate
    k = torch.arange(64, dtype=torch.float64)
    wave = torch.cos(math.pi / 64 * 5 * (k + 0.5))
    images = normal(200, 1, 1, 1) * wave[:, None] * wave[None, :]
    variances = mode_variances(coordinates(images)).sort(descending=True).values
    assert variances[0] > 100
    assert variances[1] < 1e-20 * variances[0]


def test_variances_are_not_spread_by_chance() -> None:
    # 300 samples of white noise in 100 dimensions: the eigenvalues of their covariance go from 0.18 to 2.5
    variances = mode_variances(coordinates(normal(300, 100)))
    assert abs(variances.mean() - 1) < 0.05
    assert variances.std() < 1.5 * math.sqrt(2 / 150)


def test_a_gaussian_in_closed_form() -> None:
    variances = torch.tensor([9.0, 1.0, 0.1, 0.01], dtype=torch.float64)
    rotation = torch.linalg.qr(normal(4, 4)).Q
    x = (normal(8192, 4, seed=1) * variances.sqrt()) @ rotation.T + 5
    measured = learnable_share(coordinates(x), SIGMAS)
    assert (measured - gaussian_share(variances)).abs().max() < 0.02


def test_an_image_with_a_known_spectrum_in_closed_form() -> None:
    # waves of random height with variance ∝ 1/k², which is what photographs are like
    k = torch.arange(48, dtype=torch.float64)
    basis = math.sqrt(2 / 48) * torch.cos(math.pi / 48 * k[:, None] * (k + 0.5))
    basis[0] /= math.sqrt(2)
    variances = 10 / (1 + k[:, None] ** 2 + k**2)
    x = basis.T @ (normal(1000, 1, 48, 48) * variances.sqrt()) @ basis
    measured = learnable_share(coordinates(x), SIGMAS)
    assert (measured - gaussian_share(variances.flatten())).abs().max() < 0.01


@pytest.mark.parametrize("shape", [(2,), (16,), (100,), (4, 24, 24)])
def test_white_noise_has_nothing_to_learn(shape: tuple[int, ...]) -> None:
    assert learnable_share(coordinates(0.5 * normal(2000, *shape)), SIGMAS).max() < 0.01


def test_a_mixture_against_its_exact_denoiser() -> None:
    # eight narrow Gaussians on a circle: the covariance is isotropic, a linear denoiser learns nothing
    angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    means = 0.7 * torch.stack([angle.cos(), angle.sin()], 1)
    oracle = GaussianMixture(means, torch.full((8,), 0.1, dtype=torch.float64))
    x = means[torch.arange(4096) % 8] + 0.1 * normal(4096, 2)
    x = x[torch.randperm(4096, generator=torch.Generator().manual_seed(0))]
    sigmas = torch.logspace(-1.5, 0.5, 9, dtype=torch.float64)
    measured = learnable_share(coordinates(x), sigmas)

    fresh = means[torch.arange(80_000) % 8] + 0.1 * normal(80_000, 2, seed=5)
    noise, variance = normal(80_000, 2, seed=6), 0.7**2 / 2 + 0.01
    for sigma, share in zip(sigmas, measured, strict=True):
        error = (oracle(fresh + sigma * noise, sigma) - fresh).square().mean()
        exact = 1 - error * (variance + sigma**2) / (variance * sigma**2)
        assert share < exact + 0.01  # no denoiser is better than the exact one
        if sigma >= 0.1:
            assert share > exact - 0.05  # and 2048 samples are dense enough there
