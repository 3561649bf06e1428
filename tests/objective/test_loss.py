"""The loss of the exact denoiser of a Gaussian against its closed form, in the columns of Table 1.

At noise σ the least squared error is Σ_k λ_k·σ²/(λ_k + σ²), λ_k the eigenvalues of the data covariance.
"""

from __future__ import annotations

import math

import pytest
import scipy.integrate
import scipy.stats
import torch

from diffspace.objective import (
    DenoisingLoss,
    EDMWeight,
    IDDPMUniform,
    InverseVariance,
    LogNormal,
    LogUniform,
    UniformWeight,
    VPUniform,
)
from diffspace.oracles import Gaussian
from diffspace.preconditioning import EDMPreconditioning, IDDPMPreconditioning, VEPreconditioning, VPPreconditioning
from diffspace.process import IDDPMLevels

COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
DATA = Gaussian(torch.tensor([0.3, -0.2], dtype=torch.float64), COVARIANCE)
EIGENVALUES = torch.linalg.eigvalsh(COVARIANCE).tolist()


def least_error(sigma):
    return sum(v * sigma**2 / (v + sigma**2) for v in EIGENVALUES)


def inverse_variance(sigma):
    return 1 / sigma**2


def integral(function, low, high):
    value, _ = scipy.integrate.quad(function, low, high, epsabs=0, epsrel=1e-10, limit=200)
    return value


def over_lognormal(loss):
    return integral(lambda z: scipy.stats.norm.pdf(z) * loss(math.exp(-1.2 + 1.2 * z)), -12, 12)


def over_loguniform(loss):
    low, high = math.log(0.02), math.log(100)
    return integral(lambda v: loss(math.exp(v)), low, high) / (high - low)


def over_vp_time(loss):
    return integral(lambda t: loss(math.sqrt(math.expm1(9.95 * t**2 + 0.1 * t))), 1e-5, 1) / (1 - 1e-5)


def over_iddpm_levels(loss):
    return sum(map(loss, IDDPMLevels().table().tolist())) / 1000


class Known:
    """The exact denoiser with the weight of a preconditioning."""

    def __init__(self, preconditioning):
        self.weight = preconditioning.weight

    def __call__(self, x, sigma, cond=None, /):
        return DATA(x, sigma, cond)


COLUMNS = {
    "vp": (VPPreconditioning(), VPUniform(), inverse_variance, over_vp_time),
    "ve": (VEPreconditioning(), LogUniform(), inverse_variance, over_loguniform),
    "iddpm": (IDDPMPreconditioning(), IDDPMUniform(), inverse_variance, over_iddpm_levels),
    "edm": (EDMPreconditioning(), LogNormal(), lambda s: (s**2 + 0.25) / (s * 0.5) ** 2, over_lognormal),
}
columns = pytest.mark.parametrize(("preconditioning", "noise", "weight", "mean"), COLUMNS.values(), ids=COLUMNS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def data(n, seed=100):
    return DATA.sample(n, generator=seeded(seed))


@columns
@pytest.mark.parametrize("stratified", [False, True])
def test_the_loss_of_the_exact_denoiser_is_the_expected_one(preconditioning, noise, weight, mean, stratified):
    loss = DenoisingLoss(noise, stratified=stratified)(Known(preconditioning), data(100_000), generator=seeded())
    assert loss.shape == (100_000,)
    expected = mean(lambda sigma: weight(sigma) * least_error(sigma))
    assert abs(loss.mean().item() - expected) < 4 * loss.std().item() / math.sqrt(len(loss))
    assert loss.std().item() / math.sqrt(len(loss)) < 0.01 * expected  # so that the line above says something


@columns
def test_strata_keep_the_mean_of_the_loss_and_shrink_its_variance(preconditioning, noise, weight, mean):
    """With an error that depends on σ alone, the mean over a batch of 64 varies at least 40 times less."""
    x0, generator = torch.zeros(64, 1, dtype=torch.float64), seeded()
    plain, stratified = (
        torch.stack(
            [
                DenoisingLoss(noise, UniformWeight(), stratified=choice)(
                    lambda x, sigma, cond: sigma[:, None] / (1 + sigma[:, None]), x0, generator=generator
                ).mean()
                for _ in range(500)
            ]
        )
        for choice in (False, True)
    )
    expected = mean(lambda sigma: (sigma / (1 + sigma)) ** 2)
    for means in (plain, stratified):
        assert abs(means.mean().item() - expected) < 4 * means.std().item() / math.sqrt(500)
    assert stratified.var() < plain.var() / 40


@columns
def test_an_explicit_weight_comes_first(preconditioning, noise, weight, mean):
    """Given Table 1's weights by name, a plain function has the same loss."""
    denoiser, x0 = Known(preconditioning), data(16)
    named = EDMWeight(0.5) if isinstance(preconditioning, EDMPreconditioning) else InverseVariance()
    own = DenoisingLoss(noise)(denoiser, x0, generator=seeded())
    given = DenoisingLoss(noise, weight=named)(DATA, x0, generator=seeded())
    torch.testing.assert_close(given, own, rtol=1e-13, atol=0)
    plain = DenoisingLoss(noise, weight=UniformWeight())(denoiser, x0, generator=seeded())
    sigma = noise.sample(16, stratified=True, generator=seeded())  # σ is drawn first
    torch.testing.assert_close(own, plain * sigma.apply_(weight), rtol=1e-13, atol=0)


def test_each_loss_is_that_of_its_own_sample():
    """Written out by hand, for image-shaped data in float32 with labels."""
    x0 = torch.randn(6, 3, 4, 5, generator=seeded(1))
    cond = {"labels": torch.arange(6)}

    def denoiser(x, sigma, cond):
        assert (x.dtype, sigma.dtype, sigma.shape) == (torch.float32, torch.float32, (6,))
        return x * cond["labels"].reshape(6, 1, 1, 1) / (1 + sigma.reshape(6, 1, 1, 1))

    noise = LogNormal()
    generator = seeded()
    sigma = noise.sample(6, generator=generator)
    draws = torch.randn(x0.shape, generator=generator).double()
    expected = []
    for i, level in enumerate(sigma.tolist()):
        denoised = (x0[i].double() + level * draws[i]) * i / (1 + level)
        expected.append(3 * (denoised - x0[i]).square().sum())
    for reduction, count in (("sum", 1), ("mean", 60)):
        loss = DenoisingLoss(noise, weight=lambda sigma: 3 + 0 * sigma, reduction=reduction, stratified=False)
        actual = loss(denoiser, x0, cond, generator=seeded())
        torch.testing.assert_close(actual.double(), torch.stack(expected) / count, rtol=1e-5, atol=0)


def test_draws_come_from_the_generator():
    loss, x0 = DenoisingLoss(LogNormal(), UniformWeight()), data(8)
    first = loss(DATA, x0, generator=seeded(3))
    assert torch.equal(first, loss(DATA, x0, generator=seeded(3)))
    assert not torch.equal(first, loss(DATA, x0, generator=seeded(4)))
    torch.manual_seed(3)
    assert torch.equal(first, loss(DATA, x0))


def test_gradients_reach_the_denoiser():
    gain = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    loss = DenoisingLoss(LogNormal(), UniformWeight())
    assert torch.autograd.gradcheck(lambda g: loss(lambda x, s, c: g * x, data(4), generator=seeded()), (gain,))


def test_samples_that_are_single_numbers():
    loss = DenoisingLoss(LogNormal(), UniformWeight())(lambda x, s, c: x, torch.ones(5), generator=seeded())
    assert loss.shape == (5,)


@pytest.mark.parametrize("weight", [InverseVariance(), EDMWeight(0.5), EDMWeight(2.0), UniformWeight()])
def test_weights_of_table_1(weight):
    sigma = torch.logspace(-4, 4, 17, dtype=torch.float64)
    if isinstance(weight, EDMWeight):
        expected = EDMPreconditioning(weight.sigma_data).weight(sigma)
    else:
        expected = sigma**-2 if isinstance(weight, InverseVariance) else torch.ones_like(sigma)
    torch.testing.assert_close(weight(sigma), expected, rtol=1e-14, atol=0)


def test_a_denoiser_without_weight_is_an_error():
    with pytest.raises(ValueError, match=r"^weight: the denoiser has no weight"):
        DenoisingLoss(LogNormal())(DATA, data(2))


@pytest.mark.usefixtures("unchecked")
def test_bad_options_are_named():
    with pytest.raises(ValueError, match=r"^reduction: expected 'sum' or 'mean', got 'median'"):
        DenoisingLoss(LogNormal(), reduction="median")
    with pytest.raises(ValueError, match=r"^sigma_data: "):
        EDMWeight(0.0)


@pytest.mark.usefixtures("unchecked")
def test_a_denoiser_that_returns_another_shape():
    with pytest.raises(ValueError, match=r"^denoiser: returned shape \(4,\) for x of shape \(4, 2\)"):
        DenoisingLoss(LogNormal(), UniformWeight())(lambda x, s, c: x[:, 0], data(4))
