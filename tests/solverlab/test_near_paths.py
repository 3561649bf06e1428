"""What stands in for a denoiser near the exact paths."""

import pytest
import torch

import diffspace as ds
from diffspace.oracles import Gaussian
from diffspace.sampling import Execution
from diffspace.solverlab import REFERENCE_SAMPLER, reference
from diffspace.solverlab.family import Family
from diffspace.solverlab.near_paths import NearFamily, NearPaths, SecantFamily

FINE = REFERENCE_SAMPLER.with_num_steps(100)
MIXTURE = ds.oracles.GaussianMixture(
    ds.initial_latents(range(5), (1, 2, 3)).double(), torch.linspace(0.2, 0.5, 5, dtype=torch.float64)
)


def paths(oracle, count):
    return reference(oracle, seeds=range(count), sampler=FINE, execution=Execution(trajectory=True))


@pytest.fixture(scope="module")
def truth():
    return paths(MIXTURE, 24)


@pytest.mark.parametrize("sigma", [80.0, 11.0, 1.7, 0.31, 0.013])
def test_the_paths_tell_their_denoised(truth, sigma):
    x, denoised = truth.along(sigma)
    assert torch.equal(x, truth.at(sigma))
    exact = MIXTURE(x, torch.tensor(sigma, dtype=torch.float64))
    torch.testing.assert_close(denoised, exact, rtol=0, atol=2e-3)


def test_below_the_paths_all_are_the_ends(truth):
    assert all(torch.equal(part, truth.x) for part in truth.along(1e-5))


@pytest.mark.parametrize("sigma", [20.0, 1.0, 0.1])
def test_a_gaussian_is_known_away_from_the_paths_too(sigma):
    variances = torch.tensor([1.0, 0.3, 0.05, 0.01], dtype=torch.float64)
    oracle = Gaussian(torch.full((4,), 0.7, dtype=torch.float64), variances.diag())
    truth = paths(oracle, 512)
    near, moved = NearPaths(oracle, truth), 0.3 * sigma * ds.initial_latents(range(900, 1412), (4,)).double()
    x, level = truth.at(sigma) + moved, torch.tensor(sigma, dtype=torch.float64)
    change = oracle(x, level) - oracle(truth.at(sigma), level)
    missed = near(x, level) - oracle(x, level)
    assert float(missed.norm()) < 0.1 * float(change.norm())  # 512 seeds know the covariance to some per cent


def test_a_run_tells_the_slope_towards_its_path(truth):
    """At the path's own state the denoised is that of the path, however far the run is from it."""
    near = NearPaths(MIXTURE, truth)
    family = SecantFamily(Family(MIXTURE, truth), near)
    levels = torch.tensor([[truth.sigma_max, 4.0, 0.8, 0.1]], dtype=torch.float64)
    runs = family.run(family.stagewise(levels, slice(None), 1e-5, 30.0)[0][0])
    for i, level in enumerate(levels[0].tolist()[1:], 1):
        x, denoised = (part.flatten(1) for part in truth.along(level))
        found = family.nudged(i, runs, x, (level, level), slice(None))
        torch.testing.assert_close(found, denoised, rtol=0, atol=1e-6)
        found = family.nudged(i, runs, runs.states[i], (level, level), slice(None))
        torch.testing.assert_close(found, runs.denoised[i], rtol=0, atol=1e-12)


def test_what_stands_in_makes_no_evaluation_and_ends_near_the_truth(truth):
    def forbidden(x, sigma, cond=None):
        raise AssertionError

    family = NearFamily(NearPaths(forbidden, truth), None)
    levels = torch.tensor([[80.0, 20.0, 6.0, 2.0, 0.8, 0.3, 0.1, 0.02]], dtype=torch.float64)
    table = family.stagewise(levels, slice(None), 1e-5, 30.0)[0][0]
    torch.testing.assert_close(family.run(table).end, truth.x.flatten(1), rtol=0, atol=0.1)


def test_few_samples_and_elements_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr("diffspace.solverlab.near_paths._SAMPLES", 8)
    monkeypatch.setattr("diffspace.solverlab.near_paths._ELEMENTS", 32)
    whole = NearPaths(MIXTURE, paths(MIXTURE, 12))
    few = whole.few().truth
    assert few.x.shape == few.latents.shape == (8, 4)
    columns = [int((whole.truth.x[:8].flatten(1) == column[:, None]).all(0).nonzero()) for column in few.x.T]
    assert len(set(columns)) == 4
    for sigma in (30.0, 0.4):
        torch.testing.assert_close(few.at(sigma), whole.truth.at(sigma)[:8].flatten(1)[:, columns])
