"""A small training on the spot: it comes near the exact denoiser, and is the same each time."""

import pytest
import torch

from diffspace.objective import IDDPMUniform, LogNormal, loss_by_sigma
from diffspace.oracles import GaussianMixture
from diffspace.preconditioning import EDMPreconditioning, IDDPMPreconditioning
from diffspace.studies import train_small


@pytest.fixture(scope="module")
def ring():
    angle = torch.arange(6, dtype=torch.float64) * (torch.pi / 3)
    return GaussianMixture(torch.stack([angle.cos(), angle.sin()], 1), torch.full((6,), 0.15, dtype=torch.float64))


def test_training_approaches_the_exact_denoiser(ring):
    stages = train_small(ring, EDMPreconditioning(0.72), steps=300, noise=LogNormal.for_data(0.72))
    held_out = ring.sample(2000, generator=torch.Generator().manual_seed(9)).float()
    sigmas = torch.tensor([0.1, 0.3, 1.0], dtype=torch.float64)
    start, way, end = (loss_by_sigma(d, held_out, sigmas=sigmas, oracle=ring) for d in stages.denoisers)
    assert stages.steps == (0, 30, 300)
    # F = 0 at the start, and the error is that of the best linear denoiser, σ²σ_d²/(σ² + σ_d²)
    linear = sigmas**2 * 0.72**2 / (sigmas**2 + 0.72**2)
    torch.testing.assert_close(start.mse, linear, rtol=0.03, atol=0.0)
    assert bool((end.mse < way.mse)[:2].all())  # at σ = 1 the best denoiser is nearly linear
    assert bool((end.mse < 1.2 * end.attainable).all())
    assert bool((end.mse > 0.97 * end.attainable).all())


def test_training_of_discrete_epsilon_prediction(ring):
    stages = train_small(ring, IDDPMPreconditioning(), noise=IDDPMUniform(), steps=300)
    held_out = ring.sample(2000, generator=torch.Generator().manual_seed(9)).float()
    sigmas = stages.trained.round_sigma(torch.tensor([0.3, 1.0], dtype=torch.float64))
    found = loss_by_sigma(stages.trained, held_out, sigmas=sigmas, oracle=ring)
    assert bool((found.mse < 1.15 * found.attainable).all())


def test_same_arguments_same_weights(ring):
    points = ring.sample(100).float()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = train_small(points, EDMPreconditioning(), steps=5)
    assert torch.equal(torch.get_rng_state(), before)
    two = train_small(points, EDMPreconditioning(), steps=5)
    other = train_small(points, EDMPreconditioning(), steps=5, seed=1)
    same = [torch.equal(a, b) for a, b in zip(one.trained.parameters(), two.trained.parameters(), strict=True)]
    differ = [torch.equal(a, b) for a, b in zip(one.trained.parameters(), other.trained.parameters(), strict=True)]
    assert all(same)
    assert not all(differ)


def test_what_is_kept(ring):
    assert train_small(ring, EDMPreconditioning(), steps=4, shares=(0.5, 0.0, 0.1)).steps == (0, 2)
    with pytest.raises(ValueError, match="shares: expected at least one"):
        train_small(ring, EDMPreconditioning(), shares=())
