"""Exact posteriors of linear measurements, against Bayes' rule."""

import pytest
import torch

from diffspace.oracles import Gaussian, GaussianMixture

A = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
MEAN = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
ROOT = torch.tensor([[0.6, 0, 0], [0.3, 0.5, 0], [-0.2, 0.1, 0.4]], dtype=torch.float64)
Y = torch.tensor([[0.7, -0.4]], dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def measure(x):
    return x.flatten(1) @ A.T


def full_mixture(seed=1):
    roots = normal(4, 3, 3, seed=seed) / 2
    return GaussianMixture(
        normal(4, 3, seed=seed + 1), weights=torch.tensor([0.4, 0.3, 0.2, 0.1]), covariances=roots @ roots.mT
    )


PRIORS = {
    "Gaussian": Gaussian(MEAN, ROOT @ ROOT.T),
    "mixture": full_mixture(),
    "isotropic": GaussianMixture(normal(3, 3, seed=5), torch.tensor([0.2, 0.4, 0.6])),
}


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
@pytest.mark.parametrize("sigma_y", [0.05, 0.5, 3.0])
def test_the_density_is_prior_times_likelihood(prior, sigma_y):
    """ln p(x|y) − ln p(x) − ln p(y|x) is the same at all x."""
    x, none = normal(50, 3), torch.tensor(0.0, dtype=torch.float64)
    posterior = prior.posterior(measure, Y, sigma_y)
    likelihood = -0.5 * ((Y - measure(x)) / sigma_y).square().sum(1)
    evidence = posterior.log_prob(x, none) - prior.log_prob(x, none) - likelihood
    assert float(evidence.std()) < 1e-9 * float(likelihood.abs().max())


def test_without_noise_the_measured_part_is_known_and_the_rest_is_the_conditional():
    covariance = ROOT @ ROOT.T
    posterior = PRIORS["Gaussian"].posterior(lambda x: x[:, :2], MEAN[None, :2] + 0.1, 0.0)
    gain = torch.linalg.solve(covariance[:2, :2], covariance[:2, 2])
    expected = torch.cat([MEAN[:2] + 0.1, MEAN[2:] + 0.1 * gain.sum()])
    torch.testing.assert_close(posterior.mean, expected, rtol=1e-12, atol=1e-12)
    assert posterior.variances.tolist() == pytest.approx(
        [0, 0, float(covariance[2, 2] - gain @ covariance[:2, 2])], abs=1e-16
    )


def test_a_measurement_made_twice_counts_twice_and_without_noise_once():
    prior = PRIORS["Gaussian"]

    def twice(x):
        return torch.cat([measure(x), measure(x)], 1)

    for sigma_y, single in ((0.4, 0.4 / 2**0.5), (0.0, 0.0)):
        one, two = prior.posterior(measure, Y, single), prior.posterior(twice, torch.cat([Y, Y], 1), sigma_y)
        torch.testing.assert_close(two.mean, one.mean, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(two.variances, one.variances, rtol=1e-9, atol=1e-15)


def test_weak_and_affine_measurements():
    prior = PRIORS["Gaussian"]
    blind = prior.posterior(lambda x: 0 * measure(x), Y, 0.1)
    torch.testing.assert_close(blind.mean, prior.mean)
    torch.testing.assert_close(blind.variances, prior.variances)
    shifted = prior.posterior(lambda x: measure(x) + 5, Y + 5, 0.1)
    torch.testing.assert_close(shifted.mean, prior.posterior(measure, Y, 0.1).mean)


def test_samples_of_any_shape():
    mean, root = normal(1, 2, 2), normal(4, 4, seed=3)
    image = Gaussian(mean, root @ root.T).posterior(
        lambda x: x.mean((2, 3)), torch.tensor([[0.3]], dtype=torch.float64), 0.1
    )
    flat = Gaussian(mean.flatten(), root @ root.T).posterior(
        lambda x: x.mean(1, keepdim=True), torch.tensor([[0.3]], dtype=torch.float64), 0.1
    )
    assert image.sample_shape == (1, 2, 2)
    assert torch.equal(image.mean, flat.mean)


@pytest.mark.parametrize(
    ("prior", "y", "sigma_y", "message"),
    [
        ("Gaussian", Y, -1.0, "sigma_y: .* got -1.0"),
        ("mixture", Y, float("nan"), "sigma_y: .* got nan"),
        ("Gaussian", Y[None], 1.0, r"y: expected one measurement, of shape \(1, 2\), got \(1, 1, 2\)"),
        ("mixture", Y[:, :1], 1.0, r"y: .* got \(1, 1\)"),
    ],
)
def test_bad_input_is_named(prior, y, sigma_y, message):
    with pytest.raises(ValueError, match=message):
        PRIORS[prior].posterior(measure, y, sigma_y)


def test_a_mixture_without_density_of_y_is_an_error():
    points = GaussianMixture(normal(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match="y has no density"):
        points.posterior(measure, Y, 0.0)
