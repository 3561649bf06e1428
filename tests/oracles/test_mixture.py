"""The mixture oracle against SciPy, quadrature in one dimension, and draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch

from diffspace.oracles import Gaussian, GaussianMixture

F64 = torch.float64
MEANS = torch.tensor([[0.0, 2.0], [-1.5, -0.5], [3.0, 0.0]], dtype=F64)
WEIGHTS = torch.tensor([1.0, 2.0, 5.0], dtype=F64)
STDS = torch.tensor([0.2, 0.5, 1.0], dtype=F64)
ROOTS = torch.randn(3, 2, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
COVARIANCES = ROOTS @ ROOTS.mT
SPREADS = {
    "isotropic": ({"stds": STDS}, STDS[:, None, None] ** 2 * torch.eye(2, dtype=F64)),
    "full": ({"covariances": COVARIANCES}, COVARIANCES),
}
each = pytest.mark.parametrize(("spread", "covariances"), SPREADS.values(), ids=SPREADS)
X = torch.tensor([[0.1, 1.9], [-1.0, 0.0], [2.0, 2.0], [10.0, -7.0]], dtype=F64)


@each
@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1.0, 80.0])
def test_density_and_conditional_mean(spread, covariances, sigma):
    """D is the mean of the components' conditional means, weighted by how likely each has made x."""
    oracle, level = GaussianMixture(MEANS, weights=WEIGHTS, **spread), torch.tensor(sigma, dtype=F64)
    joint = np.stack(
        [
            scipy.stats.multivariate_normal(m, c + sigma**2 * np.eye(2)).logpdf(X.numpy()) + math.log(w / 8)
            for m, c, w in zip(MEANS.numpy(), covariances.numpy(), WEIGHTS.tolist(), strict=True)
        ]
    )
    log_prob = scipy.special.logsumexp(joint, axis=0)
    torch.testing.assert_close(oracle.log_prob(X, level), torch.as_tensor(log_prob), rtol=1e-11, atol=1e-11)
    parts = torch.stack([Gaussian(m, c)(X, level) for m, c in zip(MEANS, covariances, strict=True)])
    denoised = (torch.as_tensor(np.exp(joint - log_prob))[:, :, None] * parts).sum(0)
    # where a density has as large an exponent as 1e8, the weights have that many digits less
    rtol = 1e-11 + 1e-16 * float(np.abs(joint).min(0).max())
    torch.testing.assert_close(oracle(X, level), denoised, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0])
def test_the_conditional_mean_by_quadrature(sigma):
    """E[x₀ | x] = ∫ y·p(y)·N(x; y, σ²) dy / ∫ p(y)·N(x; y, σ²) dy, in one dimension."""
    means, stds, weights = [-1.0, 0.4, 2.0], [0.1, 0.3, 0.7], [0.3, 0.5, 0.2]
    oracle = GaussianMixture(*(torch.tensor(v, dtype=F64) for v in (means, stds, weights)))
    for x in (-1.2, 0.0, 1.1):

        def density(y, x=x):
            prior = sum(w * scipy.stats.norm.pdf(y, m, s) for m, s, w in zip(means, stds, weights, strict=True))
            return prior * scipy.stats.norm.pdf(x, y, sigma)

        edges = np.linspace(-6, 8, 141)
        nodes, node_weights = np.polynomial.legendre.leggauss(16)
        y = (edges[:-1, None] + edges[1:, None]) / 2 + nodes * 0.05
        mass = density(y) * node_weights * 0.05
        level, at = torch.tensor(sigma, dtype=F64), torch.tensor([x], dtype=F64)
        assert oracle(at, level).item() == pytest.approx((y * mass).sum() / mass.sum(), rel=1e-10, abs=1e-10)
        assert oracle.log_prob(at, level).item() == pytest.approx(math.log(mass.sum()), rel=1e-9, abs=1e-10)


@each
def test_draws_have_the_moments_that_mean_and_covariance_state(spread, covariances):
    n = 200_000
    oracle = GaussianMixture(MEANS, weights=WEIGHTS, **spread)
    draws = oracle.sample(n, generator=torch.Generator().manual_seed(0))
    centred = draws - oracle.mean()
    assert (centred.mean(0).abs() < 5 * draws.std(0) / math.sqrt(n)).all()
    products = centred[:, :, None] * centred[:, None, :]
    assert ((products.mean(0) - oracle.covariance()).abs() < 5 * products.std(0) / math.sqrt(n)).all()
    mean = (WEIGHTS / 8) @ MEANS
    offsets = MEANS - mean
    covariance = (WEIGHTS / 8 * (covariances + offsets[:, :, None] * offsets[:, None, :]).movedim(0, 2)).sum(2)
    torch.testing.assert_close(oracle.mean(), mean, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(oracle.covariance(), covariance, rtol=1e-13, atol=1e-13)


def test_draws_follow_the_weights():
    oracle = GaussianMixture(torch.tensor([0.0, 10.0, 20.0]), torch.full((3,), 0.1), WEIGHTS.float())
    draws = oracle.sample(80_000, generator=torch.Generator().manual_seed(0))
    counts = torch.histc(draws, 3, -5, 25)
    assert scipy.stats.chisquare(counts.numpy(), [10_000, 20_000, 50_000]).pvalue > 1e-4
    assert scipy.stats.kstest(draws[draws > 15].numpy(), scipy.stats.norm(20, 0.1).cdf).pvalue > 1e-4


def test_one_component_is_a_gaussian():
    gaussian = Gaussian(MEANS[0], COVARIANCES[0])
    mixture = GaussianMixture(MEANS[:1], covariances=COVARIANCES[:1])
    for sigma in (1e-3, 1.0, 80.0):
        level = torch.tensor(sigma, dtype=F64)
        for name in ("__call__", "score", "log_prob"):
            expected = getattr(gaussian, name)(X, level)
            torch.testing.assert_close(getattr(mixture, name)(X, level), expected, rtol=1e-11, atol=1e-11)


def test_isotropic_is_full_with_a_multiple_of_the_identity():
    isotropic = GaussianMixture(MEANS, STDS, WEIGHTS)
    full = GaussianMixture(MEANS, weights=WEIGHTS, covariances=STDS[:, None, None] ** 2 * torch.eye(2).double())
    level = torch.tensor(0.3, dtype=F64)
    for name in ("__call__", "score", "log_prob"):
        torch.testing.assert_close(getattr(isotropic, name)(X, level), getattr(full, name)(X, level))


def test_an_isotropic_mixture_gives_a_sample_the_same_bits_in_any_batch():
    oracle = GaussianMixture(MEANS, STDS, WEIGHTS)
    x = torch.randn(64, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    level = torch.tensor(0.3, dtype=F64)
    for method in (oracle, oracle.score, oracle.log_prob):
        together = method(x, level)
        assert torch.equal(torch.cat([method(part, level) for part in x.split(7)]), together)
        assert torch.equal(torch.cat([method(part, level) for part in x.split(1)]), together)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({}, "stds, covariances"),
        ({"stds": STDS, "covariances": COVARIANCES}, "stds, covariances"),
        ({"stds": -STDS}, "stds"),
        ({"stds": STDS * math.inf}, "stds"),
        ({"stds": STDS * math.nan}, "stds"),
        ({"stds": STDS, "weights": torch.tensor([1.0, 0.0, 1.0])}, "weights"),
        ({"stds": STDS, "weights": torch.tensor([1.0, math.nan, 1.0])}, "weights"),
        ({"stds": STDS, "weights": torch.tensor([1.0, math.inf, 1.0])}, "weights"),
        ({"stds": STDS, "means": MEANS * math.nan}, "means"),
        ({"stds": STDS[:0], "means": MEANS[:0]}, "means"),
        ({"covariances": COVARIANCES[:, :, :1] @ torch.ones(1, 2, dtype=F64)}, "covariances: expected a symmetric"),
        ({"covariances": -COVARIANCES}, "covariances: expected no negative eigenvalue"),
        ({"covariances": COVARIANCES * math.nan}, "covariances"),
        ({"covariances": torch.eye(3).expand(3, 3, 3)}, "covariances: expected shape"),
    ],
)
def test_bad_parameters_are_named(arguments, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        GaussianMixture(**{"means": MEANS, **arguments})
