import pytest
import torch
from plain_denoisers import check, gaussian_of, mixture_of

from diffspace.oracles import Gaussian, GaussianMixture


@pytest.fixture(scope="session")
def mixture():
    """Three isotropic Gaussians in the plane."""
    means = torch.tensor([[0.9, 0.1], [-0.6, 0.7], [-0.2, -0.8]], dtype=torch.float64)
    stds = torch.tensor([0.1, 0.2, 0.05], dtype=torch.float64)
    found = GaussianMixture(means, stds, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))
    found.sigma_data = 0.5  # whose range is the paper's
    return found


@pytest.fixture(scope="session")
def gaussian():
    """A Gaussian of small images, every pixel correlated with every other."""
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(12, 12, dtype=torch.float64, generator=generator)
    mean = torch.randn(2, 3, 2, dtype=torch.float64, generator=generator)
    found = Gaussian(0.4 * mean, 0.02 * root @ root.T)
    found.sigma_data = 0.5  # whose range is the paper's
    return found


@pytest.fixture(scope="session")
def plain_mixture(mixture):
    check(mixture, mixture_of(mixture))
    return mixture_of(mixture)


@pytest.fixture(scope="session")
def plain_gaussian(gaussian):
    check(gaussian, gaussian_of(gaussian))
    return gaussian_of(gaussian)
