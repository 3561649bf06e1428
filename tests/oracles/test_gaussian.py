"""The Gaussian oracle against SciPy, the formula of the conditional mean, and an integrated ODE."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

from diffspace.oracles import Gaussian

F64 = torch.float64
MEAN = torch.tensor([[0.3, -1.0], [2.0, 0.1]], dtype=F64)
ROOT = torch.randn(4, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
COVARIANCE = ROOT @ ROOT.T / 4
ORACLE = Gaussian(MEAN, COVARIANCE)
X = torch.randn(6, 2, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
LEVELS = [1e-3, 0.1, 1.0, 80.0]


@pytest.mark.parametrize("sigma", LEVELS)
def test_density_and_conditional_mean(sigma):
    total = COVARIANCE + sigma**2 * torch.eye(4, dtype=F64)
    flat, mean = X.flatten(1), MEAN.flatten()
    level = torch.tensor(sigma, dtype=F64)
    expected = scipy.stats.multivariate_normal(mean.numpy(), total.numpy()).logpdf(flat.numpy())
    torch.testing.assert_close(ORACLE.log_prob(X, level), torch.as_tensor(expected), rtol=1e-11, atol=0)
    denoised = mean + (flat - mean) @ torch.linalg.solve(total, COVARIANCE)
    torch.testing.assert_close(ORACLE(X, level).flatten(1), denoised, rtol=1e-11, atol=1e-11)
    score = -torch.linalg.solve(total, (flat - mean).T).T
    torch.testing.assert_close(ORACLE.score(X, level).flatten(1), score, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("start", "end"), [(80.0, 0.002), (0.01, 5.0)])
def test_flow_solves_the_ode(start, end):
    """dx/d ln σ = x − D(x; σ), by 400 steps of the classical Runge–Kutta method."""
    steps = 400
    h = math.log(end / start) / steps
    x = X * start

    def slope(x, log_sigma):
        return x - ORACLE(x, torch.tensor(math.exp(log_sigma), dtype=F64))

    for i in range(steps):
        at = math.log(start) + i * h
        k1 = slope(x, at)
        k2 = slope(x + h / 2 * k1, at + h / 2)
        k3 = slope(x + h / 2 * k2, at + h / 2)
        k4 = slope(x + h * k3, at + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    torch.testing.assert_close(ORACLE.flow(X * start, start, end), x, rtol=0, atol=1e-7)


def test_flow_is_a_flow_and_carries_one_density_to_another():
    there = ORACLE.flow(X, 3.0, 0.1)
    torch.testing.assert_close(ORACLE.flow(there, 0.1, 3.0), X, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ORACLE.flow(ORACLE.flow(X, 3.0, 1.0), 1.0, 0.1), there, rtol=1e-12, atol=1e-12)
    # to σ = 0 it makes noisy data clean: their covariance is then that of the data
    noisy = (COVARIANCE + 9 * torch.eye(4, dtype=F64)).numpy()
    root = torch.linalg.cholesky(torch.as_tensor(noisy))
    columns = ORACLE.flow(MEAN + root.T.reshape(4, 2, 2), 3.0, 0.0) - MEAN
    clean = columns.flatten(1)
    torch.testing.assert_close(clean.T @ clean, COVARIANCE, rtol=1e-12, atol=1e-12)


def test_draws_have_the_mean_and_covariance():
    n = 200_000
    draws = ORACLE.sample(n, generator=torch.Generator().manual_seed(0)).flatten(1)
    variances = COVARIANCE.diag()
    assert ((draws.mean(0) - MEAN.flatten()).abs() < 5 * (variances / n).sqrt()).all()
    # the sample covariance of i and j has variance (Σ_ii·Σ_jj + Σ_ij²)/n
    error = ((variances[:, None] * variances + COVARIANCE**2) / n).sqrt()
    assert ((draws.T.cov() - COVARIANCE).abs() < 5 * error).all()


def test_draws_of_flat_data_stay_on_their_plane():
    basis = torch.tensor([[1.0, 1, 0], [0, 1, 1]], dtype=F64)
    normal = torch.linalg.cross(basis[0], basis[1])
    flat = Gaussian(torch.zeros(3, dtype=F64), basis.T @ basis)
    draws = flat.sample(100, generator=torch.Generator().manual_seed(0))
    assert (draws @ normal).abs().max() < 1e-7
    # across the plane there is only noise, whose score is −x/σ²
    sigma = torch.tensor(1e-3, dtype=F64)
    off = draws + 5e-3 * normal / normal.norm()
    torch.testing.assert_close(flat.score(off, sigma) @ normal / normal.norm(), torch.full((100,), -5e3).double())


def test_float32_covariances_may_have_their_own_rounding():
    """64 dimensions of rank 5: eigenvalues that are 0 come out slightly negative in float32."""
    root = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    covariance = root @ root.T
    assert torch.linalg.eigvalsh(covariance.double()).min() < 0
    oracle = Gaussian(torch.zeros(64), covariance)
    assert (oracle.variances >= 0).all()


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        (torch.zeros(2), torch.eye(3), r"covariance: expected shape \(2, 2\), like the mean, got \(3, 3\)"),
        (torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "covariance: expected a symmetric"),
        (torch.zeros(2), torch.tensor([[1e-14, 5e-15], [0.0, 1e-14]]).double(), "covariance: expected a symmetric"),
        (torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "covariance: expected no negative eigenvalue, got -1"),
        (torch.zeros(2), -1e-13 * torch.eye(2, dtype=F64), "covariance: expected no negative eigenvalue, got -1e-13"),
        (torch.zeros(2), torch.full((2, 2), math.nan), "covariance: expected a symmetric, finite"),
        (torch.zeros(2), torch.full((2, 2), math.inf), "covariance: expected a symmetric, finite"),
        (torch.tensor([0.0, math.nan]), torch.eye(2), "mean: expected finite values"),
    ],
)
def test_bad_parameters_are_named(mean, covariance, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Gaussian(mean, covariance)
