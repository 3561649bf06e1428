import pytest
import torch

from diffspace.oracles import GaussianMixture


@pytest.fixture(scope="session")
def mixture():
    """Three isotropic Gaussians in the plane."""
    means = torch.tensor([[0.9, 0.1], [-0.6, 0.7], [-0.2, -0.8]], dtype=torch.float64)
    stds = torch.tensor([0.1, 0.2, 0.05], dtype=torch.float64)
    found = GaussianMixture(means, stds, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))
    found.sigma_data = 0.5  # whose range is the paper's
    return found
