"""What holds for every oracle: Eq. 3, its limits, its range, its draws and its errors."""

from __future__ import annotations

import math

import pytest
import torch

from diffspace.oracles import FiniteData, Gaussian, GaussianMixture
from diffspace.protocols import Denoiser

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def covariances(k, d, rank=None):
    roots = torch.randn(k, d, rank or d, dtype=F64, generator=seeded(7))
    return roots @ roots.mT / d


MEANS = torch.randn(3, 2, 2, dtype=F64, generator=seeded(1))
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=F64)
ORACLES = {
    "gaussian": Gaussian(MEANS[0], covariances(1, 4)[0]),
    "gaussian-flat": Gaussian(MEANS[0], covariances(1, 4, rank=2)[0]),
    "mixture-isotropic": GaussianMixture(MEANS, torch.tensor([0.1, 0.5, 1.0]), WEIGHTS),
    "mixture-points": GaussianMixture(MEANS, torch.zeros(3), WEIGHTS),
    "mixture-full": GaussianMixture(MEANS, weights=WEIGHTS, covariances=covariances(3, 4)),
    "mixture-flat": GaussianMixture(MEANS, weights=WEIGHTS, covariances=covariances(3, 4, rank=2)),
    "finite": FiniteData(torch.randn(40, 2, 2, dtype=F64, generator=seeded(2))),
    "finite-chunked": FiniteData(torch.randn(40, 2, 2, dtype=F64, generator=seeded(2)), max_megabytes=1e-3),
}
each = pytest.mark.parametrize("oracle", ORACLES.values(), ids=ORACLES)
LEVELS = [1e-6, 1e-3, 0.03, 0.5, 3.0, 80.0, 1e6]


def states(oracle, sigma, n=16, dtype=F64):
    generator = seeded(3)
    x0 = oracle.sample(n, generator=generator)
    return (x0 + sigma * torch.randn(x0.shape, dtype=F64, generator=generator)).to(dtype)


@each
@pytest.mark.parametrize("sigma", LEVELS)
def test_denoiser_and_score_are_the_gradient_of_the_density(oracle, sigma):
    """D = x + σ²·∇ ln p(x; σ) (Eq. 3)."""
    x, level = states(oracle, sigma).requires_grad_(), torch.tensor(sigma, dtype=F64)
    (gradient,) = torch.autograd.grad(oracle.log_prob(x, level).sum(), x)
    x = x.detach()
    assert (oracle(x, level) - (x + sigma**2 * gradient)).abs().max() <= 1e-10 * max(1, sigma)
    bound = 1e-9 * gradient.flatten(1).norm(dim=1).max()
    assert (oracle.score(x, level) - gradient).abs().max() <= bound


@each
def test_each_sample_has_its_own_sigma(oracle):
    sigma = torch.tensor(LEVELS, dtype=F64)
    x = torch.cat([states(oracle, level, n=1) for level in LEVELS])
    for method in (oracle, oracle.score, oracle.log_prob):
        together = method(x, sigma)
        alone = torch.cat([method(x[i : i + 1], level) for i, level in enumerate(sigma)])
        # the score divides the rounding of a whole state by σ², so that it is a part of the largest element
        bound = 1e-9 * (1 + alone.reshape(len(x), -1).abs().amax(1))
        assert ((together - alone).reshape(len(x), -1).abs().amax(1) <= bound).all()


@each
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_nothing_overflows_or_is_undefined(oracle, dtype):
    """σ from 1e-6 to 1e6, x where it belongs and far off, where every density underflows."""
    for sigma in torch.logspace(-6, 6, 13, dtype=dtype):
        for x in (states(oracle, float(sigma), dtype=dtype), torch.full((1, 2, 2), 1e3, dtype=dtype)):
            denoised, score, log_prob = oracle(x, sigma), oracle.score(x, sigma), oracle.log_prob(x, sigma)
            assert (denoised.dtype, score.dtype, log_prob.dtype) == (dtype, dtype, F64)
            assert (denoised.shape, log_prob.shape) == (x.shape, x.shape[:1])
            assert torch.isfinite(torch.cat([denoised.flatten(), score.flatten(), log_prob])).all()


@each
def test_float32_states_lose_no_more_than_their_own_rounding(oracle):
    """Also in the score at small σ, where D and x agree in all digits of float32."""
    for level in LEVELS:
        x, sigma = states(oracle, level, dtype=torch.float32), torch.tensor(level)
        for method in (oracle, oracle.score):
            exact = method(x.double(), sigma)
            torch.testing.assert_close(method(x, sigma), exact.float(), rtol=0, atol=0)


@each
def test_much_noise_leaves_the_mean_and_little_leaves_x(oracle):
    generator = seeded()
    mean = oracle.sample(200_000, generator=generator).mean(0)
    x = torch.randn(8, 2, 2, dtype=F64, generator=generator)
    far = oracle(x, torch.tensor(1e6, dtype=F64))
    torch.testing.assert_close(far, mean.expand(8, 2, 2), rtol=0, atol=0.02)
    x = oracle.sample(8, generator=generator)
    torch.testing.assert_close(oracle(x, torch.tensor(1e-6, dtype=F64)), x, rtol=0, atol=1e-9)


@each
def test_draws_are_reproducible_and_have_the_shape_of_a_sample(oracle):
    assert isinstance(oracle, Denoiser)
    first = oracle.sample(5, generator=seeded(4))
    assert (first.shape, first.dtype) == ((5, 2, 2), F64)
    assert torch.equal(first, oracle.sample(5, generator=seeded(4)))
    torch.manual_seed(4)
    assert torch.equal(first, oracle.sample(5))


def test_samples_that_are_single_numbers():
    x, sigma = torch.randn(6, dtype=F64, generator=seeded()), torch.tensor(0.5, dtype=F64)
    one, column = torch.tensor([0.2], dtype=F64), torch.tensor([[0.3]], dtype=F64)
    pairs = [
        (Gaussian(one[0], column), Gaussian(one, column)),
        (GaussianMixture(x[:3], x[:3].abs()), GaussianMixture(x[:3, None], x[:3].abs())),
        (FiniteData(x[:3]), FiniteData(x[:3, None])),
    ]
    for scalar, vector in pairs:
        assert torch.equal(scalar(x, sigma), vector(x[:, None], sigma)[:, 0])
        assert torch.equal(scalar.score(x, sigma), vector.score(x[:, None], sigma)[:, 0])
        assert torch.equal(scalar.log_prob(x, sigma), vector.log_prob(x[:, None], sigma))
        assert scalar.sample(4).shape == (4,)


@each
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("x", "sigma", "name"),
    [
        (torch.zeros(3, 4), torch.tensor(1.0), "x"),
        (torch.zeros(3, 1, 1), torch.tensor(1.0), "x"),
        (torch.zeros(3, 2, 2), torch.ones(2), "sigma"),
        (torch.zeros(3, 2, 2), torch.ones(3, 1), "sigma"),
        (torch.zeros(3, 2, 2), torch.tensor(-1.0), "sigma"),
        (torch.zeros(3, 2, 2), torch.tensor([1.0, math.nan, 1.0]), "sigma"),
    ],
)
def test_bad_input_is_named(oracle, x, sigma, name):
    for method in (oracle, oracle.score, oracle.log_prob):
        with pytest.raises(ValueError, match=f"^{name}: "):
            method(x, sigma)


@each
def test_conditions_are_refused(oracle):
    x, sigma = torch.zeros(1, 2, 2), torch.tensor(1.0)
    assert torch.equal(oracle(x, sigma, {}), oracle(x, sigma, None))
    with pytest.raises(ValueError, match=r"^cond: .*'labels'"):
        oracle(x, sigma, {"labels": torch.zeros(1)})


@pytest.mark.parametrize("name", ["gaussian-flat", "mixture-points", "mixture-flat", "finite"])
def test_data_without_density_have_none_at_sigma_zero(name):
    oracle, x = ORACLES[name], torch.zeros(1, 2, 2)
    for method in (oracle.log_prob, oracle.score):
        with pytest.raises(ValueError, match=r"^sigma: expected positive noise.* got 0\.0$"):
            method(x, torch.tensor(0.0))


@pytest.mark.parametrize("name", ["gaussian", "mixture-isotropic", "mixture-full"])
def test_at_sigma_zero_the_density_is_that_of_the_data(name):
    oracle, x = ORACLES[name], states(ORACLES[name], 0.0).requires_grad_()
    zero = torch.tensor(0.0, dtype=F64)
    torch.testing.assert_close(oracle(x, zero), x, rtol=0, atol=1e-13)
    (gradient,) = torch.autograd.grad(oracle.log_prob(x, zero).sum(), x)
    torch.testing.assert_close(oracle.score(x, zero), gradient, rtol=1e-10, atol=1e-10)


def test_on_flat_data_the_gaussian_keeps_x_at_sigma_zero():
    oracle = ORACLES["gaussian-flat"]
    x = oracle.sample(8, generator=seeded())
    torch.testing.assert_close(oracle(x, torch.tensor(0.0)), x, rtol=0, atol=1e-13)
