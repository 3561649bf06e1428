"""Scores of features against second implementations, closed forms and the spread of fresh draws."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics.pairwise import polynomial_kernel

from diffspace.metrics import (
    Estimate,
    Features,
    FeatureStatistics,
    density_coverage,
    frechet,
    frechet_infinity,
    inception_score,
    kid,
    mind,
    precision_recall,
    sliced_wasserstein,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, Y = Features(0.9 * normal(300, 16) + 0.1), Features(normal(260, 16, seed=1))


def test_kid_is_that_of_sklearn_kernels() -> None:
    x, y = X.values.double().numpy(), Y.values.double().numpy()

    def unbiased(a: np.ndarray, b: np.ndarray) -> float:
        within = [polynomial_kernel(c, degree=3, gamma=1 / 16, coef0=1) for c in (a, b)]
        own = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in within)
        return float(own - 2 * polynomial_kernel(a, b, degree=3, gamma=1 / 16, coef0=1).mean())

    assert kid(X, Y).value == pytest.approx(unbiased(x, y), rel=1e-10)
    # torch-fidelity's subsets: of the first, then of the second, from one generator
    random = np.random.RandomState(2020)
    picks = [[random.choice(len(part), 100, replace=False) for part in (x, y)] for _ in range(8)]
    expected = fmean(unbiased(x[i], y[j]) for i, j in picks)
    assert kid(X, Y, subsets=8, subset_size=100).value == pytest.approx(expected, rel=1e-10)


BITS = [Features((normal(n, 6, seed=n) > 0).float() - 0.3) for n in (150, 120)]
AGAIN = [Features(normal(30, 4, seed=n).repeat(5, 1)) for n in (7, 8)]


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("pair", [(X, Y), BITS, AGAIN], ids=["continuous", "bits", "repeated"])
def test_precision_recall_density_coverage_by_all_distances(k: int, pair: Sequence[Features]) -> None:
    """A distance that is equal to the radius is within, of which there are many where values repeat."""
    x, y = (each.values.double().numpy() for each in pair)

    def pairwise_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.square(a[:, None] - b).sum(2)

    radii = [np.sort(pairwise_distances(part, part), axis=1)[:, k] for part in (x, y)]
    between = pairwise_distances(x, y)
    in_real, in_fake = between <= radii[1], between <= radii[0][:, None]
    precision, recall = precision_recall(*pair, k=k)
    density, coverage = density_coverage(*pair, k=k)
    assert pair is BITS or pair is AGAIN or 0.05 < precision.value < 0.95
    assert precision.value == in_real.any(1).mean()
    assert recall.value == in_fake.any(0).mean()
    assert density.value == pytest.approx(in_real.sum() / k / len(x), rel=1e-12)
    assert coverage.value == in_real.any(0).mean()


def test_inception_score_of_certain_classes_is_their_number() -> None:
    logits = 100 * torch.nn.functional.one_hot(torch.arange(400) % 4, 7).double()
    certain = inception_score(Features(normal(400, 2), logits=logits))
    assert certain.value == pytest.approx(4, rel=1e-12)
    assert certain.standard_error == pytest.approx(0, abs=1e-12)
    p = stats.dirichlet(np.ones(5)).rvs(600, random_state=0)
    parts = [np.exp(np.mean([stats.entropy(row, part.mean(0)) for row in part])) for part in np.split(p, 10)]
    found = inception_score(Features(normal(600, 2), logits=torch.from_numpy(np.log(p))))
    assert found.value == pytest.approx(np.mean(parts), rel=1e-10)


def test_sliced_wasserstein_is_scipys_on_a_line_and_exact_for_shifts() -> None:
    a, b = normal(50, 1), 2 * normal(35, 1, seed=1)
    at = (np.arange(50 * 35) + 0.5) / (50 * 35)
    quantiles = [np.sort(x.double().flatten().numpy())[(at * len(x)).astype(int)] for x in (a, b)]
    expected = math.sqrt(np.mean((quantiles[0] - quantiles[1]) ** 2))
    assert sliced_wasserstein(Features(a), Features(b), projections=3).value == pytest.approx(expected, rel=1e-6)
    # E(u·δ)² = |δ|²/d, so that MIND of a shift is 3|δ|²
    shift = torch.tensor([1.0, -2.0, 0.5])
    x = normal(200, 3).double()
    found = mind(Features(x), Features(x + shift), projections=3000)
    assert found.value == pytest.approx(3 * float(shift.square().sum()), rel=0.06)


def test_frechet_infinity_takes_the_bias_away() -> None:
    # N(0, I) against N(δ, I) in 16 dimensions, known exactly: |δ|²
    target = FeatureStatistics.from_moments(10**6, torch.full((16,), 0.2).double(), torch.eye(16).double())
    exact = 16 * 0.2**2
    found = [
        (frechet(s, target), frechet_infinity(s, target))
        for s in (Features(normal(800, 16, seed=i)) for i in range(12))
    ]
    biased, unbiased = ([e.value for e in each] for each in zip(*found, strict=True))
    assert fmean(biased) > exact + 0.07
    assert abs(fmean(unbiased) - exact) < 4 * stdev(unbiased) / 12**0.5
    assert fmean(e.standard_error or 0 for _, e in found) == pytest.approx(stdev(unbiased), rel=0.5)


def spread(score: Callable[[Features, Features], Estimate], *, fresh: bool, shift: float) -> float:
    """The root of the mean square of stated standard errors, over the standard deviation of 60 fresh draws."""
    found = []
    for seed in range(60):
        reference = Features(normal(250, 8, seed=1000 + seed if fresh else 99))
        found.append(score(Features(normal(200, 8, seed=seed) + shift), reference))
    return math.sqrt(fmean((e.standard_error or 0) ** 2 for e in found)) / stdev(e.value for e in found)


@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_standard_errors_are_the_spread_of_fresh_draws(shift: float) -> None:
    # 60 draws know their spread to 9 %
    assert spread(frechet, fresh=False, shift=shift) == pytest.approx(1, abs=0.3)
    assert spread(kid, fresh=True, shift=shift) == pytest.approx(1, abs=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_standard_errors_of_other_scores_are_the_spread_of_fresh_draws(shift: float) -> None:
    assert spread(lambda s, r: mind(s, r, projections=200), fresh=False, shift=shift) == pytest.approx(1, abs=0.3)
    for score in (precision_recall, density_coverage):
        # the one is a mean of samples; the jackknife of the other errs upwards
        assert spread(lambda s, r, f=score: f(s, r)[0], fresh=False, shift=shift) == pytest.approx(1, abs=0.3)
        assert 0.9 < spread(lambda s, r, f=score: f(s, r)[1], fresh=False, shift=shift) < 1.8
