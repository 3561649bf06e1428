"""The weighted loss of a small training, from that of an untrained network down to the attainable one."""

import math

import pytest
import torch

from diffspace.objective import LogNormal, loss_by_sigma
from diffspace.oracles import Gaussian, GaussianMixture
from diffspace.studies import attainable_loss, excess_loss, loss_stages, three_modes


def test_loss_of_a_training_on_the_spot():
    data = three_modes()
    points = data.sample(4000, generator=torch.Generator().manual_seed(1)).float()
    found = loss_stages(data, points, steps=200)
    start, way, end = found.stages
    # F = 0 has the loss λ·σ²σ_d²/(σ² + σ_d²) = 1
    assert start.loss.tolist() == pytest.approx([1.0] * len(start.loss), abs=0.05)
    middle = (end.sigma > 0.1) & (end.sigma < 0.5)
    best = found.attainable.loss
    assert bool((end.loss[middle] < way.loss[middle]).all())
    assert bool((end.loss > best - 0.02).all())
    assert float((end.loss - best)[middle].max()) < 0.15
    assert float(best.min()) < 0.6
    # p_train over ln σ
    assert float(torch.trapezoid(found.density, found.sigma.log())) == pytest.approx(1, abs=1e-3)
    peak = float(found.sigma[found.density.argmax()])
    assert math.log(peak) == pytest.approx(LogNormal.for_data(math.sqrt(data.moments()[1])).P_mean, abs=0.1)


def plane():
    means = torch.tensor([[-1.0, 0.5], [0.8, -0.3]], dtype=torch.float64)
    return GaussianMixture(means, torch.tensor([0.2, 0.4], dtype=torch.float64))


@pytest.mark.parametrize("make", [three_modes, plane])
def test_attainable_loss_is_the_error_of_the_exact_denoiser(make):
    data, sigmas = make(), torch.tensor([0.05, 0.3, 1.0, 10.0], dtype=torch.float64)
    x0 = data.sample(20_000, generator=torch.Generator().manual_seed(2))
    found = attainable_loss(data, x0, sigmas=sigmas)
    torch.testing.assert_close(found, loss_by_sigma(data, x0, sigmas=sigmas).mse, rtol=0.03, atol=0.0)


def test_attainable_loss_of_a_gaussian_has_no_noise():
    data = Gaussian(torch.zeros(2, dtype=torch.float64), torch.diag(torch.tensor([0.25, 4.0], dtype=torch.float64)))
    sigmas = torch.tensor([0.01, 0.7, 30.0], dtype=torch.float64)
    exact = 0.5 * sum(v * sigmas**2 / (v + sigmas**2) for v in (0.25, 4.0))
    x0 = data.sample(3, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(attainable_loss(data, x0, sigmas=sigmas), exact, rtol=1e-7, atol=0.0)


def test_excess_is_the_loss_above_the_attainable_one():
    data, other = plane(), Gaussian(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    sigmas = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    x0 = data.sample(40_000, generator=torch.Generator().manual_seed(2))
    loss = loss_by_sigma(other, x0, sigmas=sigmas, oracle=data)
    found = excess_loss(other, data, x0, sigmas=sigmas)
    torch.testing.assert_close(found, loss.mse - loss.attainable, rtol=0.05, atol=0.0)
    assert bool((excess_loss(data, data, x0, sigmas=sigmas) == 0).all())
