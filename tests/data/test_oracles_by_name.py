"""Named oracles against scikit-learn, SciPy and the data that they are made of."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture as Fit

from diffspace.data import ORACLES, is_oracle, load_data, named_oracle

F64 = torch.float64
# of GaussianMixture(10, covariance_type="full", reg_covar=0.09, random_state=0, max_iter=200) on the digits/8 − 1
WEIGHTS = (0.108998036, 0.062388614, 0.057334665, 0.099653736, 0.106263357)
WEIGHTS += (0.181882242, 0.097936796, 0.051745615, 0.099053490, 0.134743449)


@pytest.fixture(scope="module")
def mixture():
    return named_oracle("mixture")


def cholesky_of_precisions(covariances):
    return np.stack([np.linalg.cholesky(np.linalg.inv(c)) for c in covariances])


@pytest.mark.parametrize("sigma", [0.002, 0.3, 5.0])
def test_the_mixture_has_the_density_that_scikit_learn_computes(mixture, sigma):
    covariances = mixture.axes @ torch.diag_embed(mixture.variances) @ mixture.axes.mT + sigma**2 * torch.eye(
        64, dtype=F64
    )
    fit = Fit(10, covariance_type="full")
    fit.weights_, fit.means_, fit.covariances_ = mixture.weights.numpy(), mixture.means.numpy(), covariances.numpy()
    fit.precisions_cholesky_ = cholesky_of_precisions(fit.covariances_)
    x = mixture.sample(20, generator=torch.Generator().manual_seed(0))
    x = x + sigma * torch.randn(x.shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    log_prob = fit.score_samples(x.reshape(20, 64).numpy())
    np.testing.assert_allclose(mixture.log_prob(x, torch.tensor(sigma, dtype=F64)), log_prob, rtol=1e-9, atol=1e-9)


def test_the_mixture_is_the_fit_that_is_stated(mixture):
    """A stationary point of expectation maximisation on the digits, with its ten components and added variance."""
    x = torch.tensor(load_digits().data / 8 - 1)
    joint = mixture._components(x.reshape(-1, 1, 8, 8), torch.tensor(0.0, dtype=F64))[2]
    share = joint.softmax(1)
    torch.testing.assert_close(share.mean(0), mixture.weights, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(share.T @ x / share.sum(0)[:, None], mixture.means, rtol=2e-2, atol=2e-2)
    np.testing.assert_allclose(mixture.weights, WEIGHTS, atol=1e-6)
    assert mixture.sample_shape == (1, 8, 8)
    assert len(mixture.means) == 10
    assert float(mixture.variances.min()) == pytest.approx(0.09, rel=1e-6)


def test_the_ring():
    ring = named_oracle("ring")
    assert ring.sample_shape == (1, 1, 2)
    x, sigma = np.array([[0.9, 0.2], [0.0, 0.0], [-3.0, 1.0]]), 0.4
    angles = np.arange(8) * math.pi / 4
    parts = [
        scipy.stats.multivariate_normal([math.cos(a), math.sin(a)], (0.01 + sigma**2) * np.eye(2)).logpdf(x)
        for a in angles
    ]
    log_prob = scipy.special.logsumexp(parts, axis=0) - math.log(8)
    got = ring.log_prob(torch.tensor(x).reshape(3, 1, 1, 2), torch.tensor(sigma, dtype=F64))
    np.testing.assert_allclose(got, log_prob, rtol=1e-12)


def test_digits_are_the_digits_as_a_model_sees_them():
    digits, data = named_oracle("digits"), load_data("digits").batch().double()
    assert digits.sample_shape == tuple(data.shape[1:]) == (1, 8, 8)
    assert (float(data.min()), float(data.max())) == (-1.0, 1.0)
    noise = torch.randn(50, 1, 8, 8, dtype=F64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(digits(data[:50] + 0.01 * noise, torch.tensor(0.01, dtype=F64)), data[:50])
    far = digits(1e6 * noise, torch.tensor(1e9, dtype=F64))
    torch.testing.assert_close(far, data.mean(0, keepdim=True).expand(50, -1, -1, -1), rtol=1e-5, atol=1e-5)


def test_the_oracle_of_any_data(tmp_path):
    points = np.array([[1.0, 2.0, 0.5], [3.0, -1.0, 0.0]], dtype=np.float32)
    np.save(tmp_path / "points.npy", points)
    oracle = named_oracle(f"oracle:{tmp_path / 'points.npy'}")
    x = torch.from_numpy(load_data(tmp_path / "points.npy").batch().numpy()).double()
    torch.testing.assert_close(oracle(x + 1e-4, torch.tensor(1e-3, dtype=F64)), x)
    assert named_oracle("oracle:digits").sample_shape == (1, 8, 8)


def test_names():
    assert set(ORACLES) == {"mixture", "ring", "digits"}
    assert all(map(is_oracle, ["ring", "digits", "oracle:x"]))
    assert not any(map(is_oracle, ["./ring", "runs/digits", "owner/name", "swissroll"]))
    with pytest.raises(ValueError, match=r"oracle: expected mixture, ring, digits, or oracle:DATA .* got 'rings'"):
        named_oracle("rings")
    with pytest.raises(ValueError, match="'nowhere' does not exist"):
        named_oracle("oracle:nowhere")
