"""A small training on the spot: it comes near the exact denoiser, and is the same each time."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from diffspace.objective import IDDPMUniform, LogNormal, UniformWeight, loss_by_sigma
from diffspace.oracles import GaussianMixture
from diffspace.preconditioning import EDMPreconditioning, IDDPMPreconditioning
from diffspace.studies import train_small, training_stages


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


def test_stages_are_those_of_training_to_the_end(ring):
    kept = train_small(ring, EDMPreconditioning(), steps=8, shares=(0.25, 1.0))
    found = {}
    for step, denoiser in training_stages(ring, EDMPreconditioning(), at=(2, 8), steps=8):
        found[step] = [p.clone() for p in denoiser.parameters()]
    for step, denoiser in zip(kept.steps, kept.denoisers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found[step], denoiser.parameters(), strict=True))


def test_trainings_at_the_same_time_have_the_weights_of_each_alone(ring):
    def train(seed):
        stages = train_small(ring, EDMPreconditioning(), steps=6, shares=(1.0,), seed=seed)
        return [p.clone() for p in stages.trained.parameters()]

    alone = [train(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(train, range(4)))
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_training_ends_within_a_step(ring):
    taken = []

    def stop(step):
        taken.append(step)
        if step == 3:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        list(training_stages(ring, EDMPreconditioning(), at=(10,), steps=10, before=stop))
    assert taken == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="at: expected rising numbers of steps from 0 to 10"):
        next(training_stages(ring, EDMPreconditioning(), at=(4, 2), steps=10))


def test_weight_decides_what_is_learnt(ring):
    held_out = ring.sample(1000, generator=torch.Generator().manual_seed(9)).float()
    sigmas = torch.tensor([0.05], dtype=torch.float64)

    def error(weight):
        trained = train_small(ring, EDMPreconditioning(0.72), weight=weight, steps=200, shares=(1.0,)).trained
        return float(loss_by_sigma(trained, held_out, sigmas=sigmas, oracle=ring).mse)

    assert error(None) < error(UniformWeight())  # λ = 1 hardly counts low noise
