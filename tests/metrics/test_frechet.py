"""The Fréchet distance and its statistics against closed forms, high precision and other implementations."""

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from diffspace.metrics import FeatureStatistics, frechet_distance


def gaussian(mean: Tensor, covariance: Tensor) -> FeatureStatistics:
    return FeatureStatistics.from_moments(1000, mean.double(), covariance.double())


def orthogonal(dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=generator)).Q


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def covariance(dim: int, seed: int) -> Tensor:
    factor = normal(dim, 2 * dim, seed=seed)
    return factor @ factor.T / (2 * dim)


coordinate = st.floats(-10, 10)
scale = st.floats(0.01, 100)


@given(coordinate, coordinate, scale, scale)
def test_one_dimension(mean_a: float, mean_b: float, std_a: float, std_b: float) -> None:
    a = gaussian(torch.tensor([mean_a]), torch.tensor([[std_a**2]], dtype=torch.float64))
    b = gaussian(torch.tensor([mean_b]), torch.tensor([[std_b**2]], dtype=torch.float64))
    exact = float(torch.tensor(mean_a) - torch.tensor(mean_b)) ** 2 + (std_a - std_b) ** 2
    assert frechet_distance(a, b) == pytest.approx(exact, rel=1e-6, abs=1e-12)


@given(st.integers(0, 10**6))
def test_two_dimensions_by_trace_and_determinant(seed: int) -> None:
    # tr M^{1/2} = √(tr M + 2√det M) for 2×2 matrices
    p, q = covariance(2, seed), covariance(2, seed + 1)
    root = torch.sqrt((p @ q).trace() + 2 * torch.sqrt(p.det().clamp(0) * q.det().clamp(0)))
    exact = float(p.trace() + q.trace() - 2 * root)
    zero = torch.zeros(2)
    assert frechet_distance(gaussian(zero, p), gaussian(zero, q)) == pytest.approx(exact, rel=1e-7, abs=1e-9)


def test_commuting_covariances() -> None:
    basis = orthogonal(20, 0)
    values_a, values_b = torch.logspace(-3, 3, 20).double(), torch.linspace(0, 5, 20).double()
    mean_a, mean_b = normal(20, seed=1), normal(20, seed=2)
    a = gaussian(mean_a, basis @ values_a.diag() @ basis.T)
    b = gaussian(mean_b, basis @ values_b.diag() @ basis.T)
    exact = (mean_a - mean_b).square().sum() + (values_a.sqrt() - values_b.sqrt()).square().sum()
    assert frechet_distance(a, b) == pytest.approx(float(exact), rel=1e-10)


def test_linear_map_is_the_optimal_transport() -> None:
    # y = T·x with T symmetric positive definite is the optimal map: the distance is E|x − y|²
    source, transport = covariance(30, 3), covariance(30, 4) + 0.1 * torch.eye(30)
    target = transport @ source @ transport
    rest = torch.eye(30) - transport
    exact = float((rest @ source @ rest).trace())
    zero = torch.zeros(30)
    assert frechet_distance(gaussian(zero, source), gaussian(zero, target)) == pytest.approx(exact, rel=1e-11)


def test_against_scipy_sqrtm() -> None:
    p, q = covariance(64, 5), covariance(64, 6)
    root = np.trace(scipy.linalg.sqrtm((p @ q).numpy())).real
    mean = normal(64, seed=7)
    exact = float(mean.square().sum() + p.trace() + q.trace()) - 2 * root
    assert frechet_distance(gaussian(mean, p), gaussian(torch.zeros(64), q)) == pytest.approx(exact, rel=1e-11)


def high_precision(p: Tensor, q: Tensor) -> float:
    """tr(P + Q − 2(PQ)^{1/2}) to 60 digits."""
    with mpmath.workdps(60):
        a, b = mpmath.matrix(p.tolist()), mpmath.matrix(q.tolist())
        values, vectors = mpmath.eigsy(a)
        root = vectors * mpmath.diag([mpmath.sqrt(max(v, 0)) for v in values]) * vectors.T
        product = root * b * root
        eigenvalues = mpmath.eigsy((product + product.T) / 2, eigvals_only=True)
        trace = sum(a[i, i] + b[i, i] for i in range(a.rows))
        return float(trace - 2 * sum(mpmath.sqrt(max(v, 0)) for v in eigenvalues))


@pytest.mark.parametrize(("decades", "tolerance"), [(4, 1e-13), (8, 1e-11), (12, 1e-9), (15, 1e-7)])
def test_ill_conditioned_against_high_precision(decades: int, tolerance: float) -> None:
    values = torch.logspace(0, -decades, 8, dtype=torch.float64)
    u, v = orthogonal(8, 8), orthogonal(8, 9)
    p, q = u @ values.diag() @ u.T, v @ values.flip(0).diag() @ v.T
    p, q = (p + p.T) / 2, (q + q.T) / 2
    zero = torch.zeros(8)
    distance = frechet_distance(gaussian(zero, p), gaussian(zero, q))
    assert distance == pytest.approx(high_precision(p, q), rel=tolerance)


def test_fewer_items_than_features() -> None:
    # with centred features A and B, tr(Σ_a·Σ_b)^{1/2} is the nuclear norm of the small matrix A·Bᵀ
    features_a, features_b = normal(20, 64, seed=10), 1 + 2 * normal(30, 64, seed=11)
    a, b = FeatureStatistics.of(features_a), FeatureStatistics.of(features_b)
    factor_a = (features_a - features_a.mean(0)) / 19**0.5
    factor_b = (features_b - features_b.mean(0)) / 29**0.5
    shift = (features_a.mean(0) - features_b.mean(0)).square().sum()
    nuclear = torch.linalg.svdvals(factor_a @ factor_b.T).sum()
    exact = float(shift + factor_a.square().sum() + factor_b.square().sum() - 2 * nuclear)
    assert frechet_distance(a, b) == pytest.approx(exact, rel=1e-12)
    assert frechet_distance(b, a) == pytest.approx(exact, rel=1e-12)


def test_covariances_of_rank_zero_and_of_disjoint_ranges() -> None:
    zero, p = torch.zeros(6), torch.diag(torch.tensor([1.0, 2, 3, 0, 0, 0]))
    q = torch.diag(torch.tensor([0.0, 0, 0, 4, 5, 6]))
    assert frechet_distance(gaussian(zero, p), gaussian(zero, q)) == pytest.approx(21, rel=1e-14)
    assert frechet_distance(gaussian(zero, p), gaussian(zero, 0 * p)) == pytest.approx(6, rel=1e-14)
    assert frechet_distance(gaussian(zero, 0 * p), gaussian(zero + 2, 0 * p)) == pytest.approx(24, rel=1e-14)


def test_symmetric_and_invariant_under_shift_and_rotation() -> None:
    x, y = normal(100, 10, seed=12) @ covariance(10, 13), normal(80, 10, seed=14)
    turn, shift = orthogonal(10, 15), 5 * normal(10, seed=16)
    distance = frechet_distance(FeatureStatistics.of(x), FeatureStatistics.of(y))
    moved = frechet_distance(FeatureStatistics.of(x @ turn + shift), FeatureStatistics.of(y @ turn + shift))
    scaled = frechet_distance(FeatureStatistics.of(3 * x), FeatureStatistics.of(3 * y))
    assert frechet_distance(FeatureStatistics.of(y), FeatureStatistics.of(x)) == pytest.approx(distance, rel=1e-13)
    assert moved == pytest.approx(distance, rel=1e-12)
    assert scaled == pytest.approx(9 * distance, rel=1e-13)


@pytest.mark.parametrize("n", [10, 500])
def test_small_distances_keep_their_digits(n: int) -> None:
    x = normal(n, 50, seed=17)
    a = FeatureStatistics.of(x)
    assert 0 <= frechet_distance(a, a) < 1e-24
    assert 0 <= frechet_distance(a, FeatureStatistics.of(x.flip(0))) < 1e-24
    stretched = FeatureStatistics.of(x - x.mean(0) + (x - x.mean(0)) * 1e-7 + x.mean(0))
    assert frechet_distance(a, stretched) == pytest.approx(1e-14 * float(a.covariance.trace()), rel=1e-5)


def test_statistics_against_numpy() -> None:
    x = normal(37, 5, seed=18).float()
    statistics = FeatureStatistics.of(x)
    assert (statistics.n, statistics.dim, statistics.mean.dtype) == (37, 5, torch.float64)
    np.testing.assert_allclose(statistics.mean, x.double().mean(0), rtol=1e-15)
    np.testing.assert_allclose(statistics.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-13)


def test_moments_far_from_the_origin_keep_their_digits() -> None:
    x = normal(300, 4, seed=19) + 1e7
    found = FeatureStatistics.of(x)
    # sums of x², which are 1e14, would leave one digit of the covariance
    np.testing.assert_allclose(found.covariance, np.cov((x - 1e7).numpy(), rowvar=False), rtol=0, atol=2e-9)
    np.testing.assert_allclose(found.mean - 1e7, (x - 1e7).mean(0), rtol=0, atol=1e-8)


def test_moments_make_the_round_trip() -> None:
    statistics = FeatureStatistics.of(normal(50, 6, seed=22))
    again = FeatureStatistics.from_moments(50, statistics.mean, statistics.covariance)
    torch.testing.assert_close(again.scatter, statistics.scatter, rtol=1e-14, atol=1e-14)


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    eye = torch.eye(2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"features: .* got none"):
        FeatureStatistics.of(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="mean: has values that are not finite"):
        FeatureStatistics.of(torch.tensor([[1.0, float("nan")], [0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"mean: .* got torch\.float32 on cpu"):
        FeatureStatistics(3, torch.zeros(2), eye)
    with pytest.raises(ValueError, match="n: the covariance needs at least 2 items, got 1"):
        _ = FeatureStatistics.of(torch.zeros(1, 3)).covariance
    with pytest.raises(ValueError, match=r"n: .* at least 2, got 1"):
        FeatureStatistics.from_moments(1, torch.zeros(2), eye)
    with pytest.raises(ValueError, match="not symmetric"):
        gaussian(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"not positive semi-definite.* -1"):
        frechet_distance(gaussian(torch.zeros(2), torch.diag(torch.tensor([1.0, -1.0]))), gaussian(torch.zeros(2), eye))
    with pytest.raises(ValueError, match="b: expected 2 features as in a, got 3"):
        frechet_distance(gaussian(torch.zeros(2), eye), gaussian(torch.zeros(3), torch.eye(3)))
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"covariance: expected shape \(2, 2\), got \(2, 3\)"):
        gaussian(torch.zeros(2), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"scatter: expected shape \(2, 2\), got \(3, 3\)"):
        FeatureStatistics(3, torch.zeros(2, dtype=torch.float64), torch.eye(3, dtype=torch.float64))
