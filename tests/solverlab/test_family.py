"""The family of linear multistep solvers: the slopes of its ends, its table as a sampler, float32."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

import diffspace as ds
from diffspace.data import named_oracle
from diffspace.oracles import Gaussian
from diffspace.sampling import Execution, FittedSolver, GivenSteps, Sampler
from diffspace.sampling.runs import evaluating, kept_steps
from diffspace.solverlab import REFERENCE_SAMPLER, calibration_seeds, fit_multistep, judging_seeds, reference
from diffspace.solverlab.end_points import Continuous
from diffspace.solverlab.family import Family, regress, solve_damped
from diffspace.solverlab.near_paths import NearPaths, SecantFamily

MIXTURE = ds.oracles.GaussianMixture(
    ds.initial_latents(range(5), (1, 2, 3)).double(), torch.linspace(0.2, 0.5, 5, dtype=torch.float64)
)


@pytest.fixture(scope="module")
def truth():
    fine = REFERENCE_SAMPLER.with_num_steps(60)
    return reference(MIXTURE, seeds=range(24), sampler=fine, execution=Execution(trajectory=True))


@pytest.fixture(scope="module", params=[None, 0.3])
def family(request, truth):
    return Family(MIXTURE, truth, mean=request.param)


@pytest.fixture(scope="module")
def levels(truth):
    return torch.tensor([[truth.sigma_max, 6.0, 1.5, 0.4, 0.05]], dtype=torch.float64)


@pytest.fixture(scope="module")
def table(family, levels):
    return family.stagewise(levels, slice(None), 1e-5, 30.0)[0][0]


def test_a_table_is_a_sampler_that_ends_where_its_runs_end(family, table, truth):
    sampler = table.sampler(family.mean)
    result = ds.sample(MIXTURE, latents=truth.latents, sampler=sampler)
    assert result.nfe == sampler.nfe == 5 - (family.mean is not None)
    torch.testing.assert_close(result.x.flatten(1), family.run(table).end, rtol=1e-9, atol=1e-9)


def test_slopes_are_those_of_the_end(family, table):
    slopes = family.slopes(table, family.run(table), levels=True)
    count = len(table.numbers)
    assert slopes.shape == (24, 6, count + 4)
    for k in range(count + 4):
        ends = []
        for h in (1e-5, -1e-5):
            numbers, levels = table.numbers.clone(), table.levels.clone()
            if k < count:
                numbers[k] += h
            else:
                levels[1 + k - count] *= 1 + h
            ends.append(family.run(table.with_numbers(numbers)._replace(levels=levels)).end)
        expected = (ends[0] - ends[1]) / 2e-5
        error = (slopes[..., k] - expected).norm()
        assert float(error) <= 5e-3 * float(expected.norm()), k


def test_each_change_of_a_run_has_the_conditions_of_its_samples(truth, levels):
    def scaled(x, sigma, cond=None):
        return MIXTURE(x / cond["scale"], sigma / cond["scale"].flatten()) * cond["scale"]

    cond = {"scale": torch.linspace(0.5, 2.0, 24, dtype=torch.float64).reshape(24, 1, 1, 1)}
    own = replace(truth, cond=cond)
    whole, cut = (Family(scaled, own, batch_size) for batch_size in (None, 5))
    table = whole.stagewise(levels, slice(None), 1e-5, 30.0)[0][0]
    alone = [Family(scaled, own.rows(slice(k, k + 1))) for k in range(24)]
    expected = torch.cat([one.slopes(table, one.run(table), levels=True) for one in alone])
    for family in (whole, cut):
        torch.testing.assert_close(family.slopes(table, family.run(table), levels=True), expected, rtol=1e-9, atol=1e-7)


def test_blocks_and_groups_make_no_difference(family, table, levels, monkeypatch):
    whole = family.slopes(table, family.run(table), levels=True)
    several = levels * torch.tensor([[1.0], [0.9], [1.1]]).where(torch.arange(5) > 0, 1.0).double()
    _, ends = family.stagewise(several, slice(0, 18), 1e-5, 30.0)
    monkeypatch.setattr("diffspace.solverlab.family._AT_HAND", 2_000)
    torch.testing.assert_close(family.slopes(table, family.run(table), levels=True), whole, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(family.stagewise(several, slice(0, 18), 1e-5, 30.0)[1], ends, rtol=1e-9, atol=1e-9)


def test_a_shift_of_the_data_shifts_the_samples(truth, levels):
    """Every table does, so that one for data around 0 serves for others."""
    shifted = ds.oracles.GaussianMixture(MIXTURE.means.reshape(5, 1, 2, 3) + 7.0, MIXTURE.variances.flatten().sqrt())
    for mean in (None, 0.3):
        table = Family(MIXTURE, truth, mean=mean).stagewise(levels, slice(None), 1e-5, 30.0)[0][0]
        latents = ds.initial_latents(range(4), (1, 2, 3)).double()
        moved = latents + 7.0 / truth.sigma_max
        own, other = (
            ds.sample(oracle, latents=x, sampler=table.sampler(None if mean is None else mean + shift)).x
            for oracle, x, shift in ((MIXTURE, latents, 0.0), (shifted, moved, 7.0))
        )
        torch.testing.assert_close(other, own + 7.0, rtol=0, atol=1e-8)


def test_a_gaussian_takes_one_evaluation_after_its_mean():
    """There D is linear in x, and one that is evaluated nearly at 0 tells the whole way to the end."""
    oracle = Gaussian(torch.full((4,), 0.7, dtype=torch.float64), 0.25 * torch.eye(4, dtype=torch.float64))
    fine = REFERENCE_SAMPLER.with_num_steps(100)
    truth = reference(oracle, seeds=range(40), sampler=fine, execution=Execution(trajectory=True))
    fitted = fit_multistep(oracle, 1, truth, mean=0.7, iterations=4)
    assert fitted.nfe == 1
    assert truth.error_of(ds.sample(oracle, latents=truth.latents, sampler=fitted).x).rms < 1e-5


def test_paths_of_which_some_states_are_kept():
    whole, some = (
        reference(MIXTURE, seeds=range(8), execution=Execution(trajectory=every), sampler=REFERENCE_SAMPLER)
        for every in (True, 4)
    )
    assert torch.equal(some.x, whole.x)
    levels = whole.sigmas.tolist()
    assert some.path.x.shape[0] == len(kept_steps(400, 4)) == 102  # 0, 4, … 396, 399, 400
    assert torch.equal(some.path.x[:3], whole.path.x[[0, 4, 8]])
    assert torch.equal(some.path.x[-2:], whole.path.x[-2:])
    assert torch.equal(some.path.denoised[1], whole.path.denoised[4])
    for i in (0, 4, 399, 400):
        torch.testing.assert_close(some.at(levels[i]), whole.at(levels[i]), rtol=0, atol=1e-9)
    between = [(a * b) ** 0.5 for a, b in itertools.pairwise(levels[:-1])]
    worst = max(float((some.at(sigma) - whole.at(sigma)).abs().max()) for sigma in between)
    assert 0 < worst < 1e-4
    with pytest.raises(ValueError, match="trajectory: expected an integer"):
        Execution(trajectory=-1)


def test_gradients_go_through_a_fitted_solver():
    levels = (80.0, 5.0, 0.5, 0.0)
    solver = FittedSolver(levels, ((0.0625,), (0.1, -0.2), (0.01, 0.3, -0.1)))
    sampler, execution = Sampler(GivenSteps(levels), solver), Execution(grad=True)

    def total(width, execution=None):
        def denoise(x, sigma, cond=None):
            return x * width / (width + sigma)

        return ds.sample(denoise, seeds=[0, 1], shape=(3,), sampler=sampler, execution=execution).x.sum()

    width = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(total(width, execution), width)
    assert float(slope) == pytest.approx(float(total(2.0 + 1e-6) - total(2.0 - 1e-6)) / 2e-6, rel=1e-6)


@pytest.mark.parametrize("first", [0, 1000, 2000])
def test_single_precision_is_enough(first):
    ring = named_oracle("ring")
    fine, kept = REFERENCE_SAMPLER.with_num_steps(100), Execution(trajectory=True)
    truth = reference(ring, seeds=range(first, first + 128), sampler=fine, execution=kept)
    fitted = fit_multistep(ring, 8, truth, iterations=4)
    exact, single = (
        ds.sample(ring, latents=truth.latents, sampler=fitted, execution=Execution(dtype=dtype)).x
        for dtype in (torch.float64, torch.float32)
    )
    assert truth.error_of(single).rms == pytest.approx(truth.error_of(exact).rms, rel=0.01)


def test_a_level_just_below_the_first_is_moved_within_the_range(truth):
    levels = torch.tensor([truth.sigma_max, truth.sigma_max / 1.0005, 1.0], dtype=torch.float64)
    with evaluating(Continuous(MIXTURE), grad=False):
        family, near = Family(MIXTURE, truth), NearPaths(MIXTURE, truth)
        table = family.stagewise(levels[None], slice(None), 1e-5, 30.0)[0][0]
        runs, estimate = family.run(table), SecantFamily(family, near)
        found, estimated = (of.slopes(table, runs, True)[..., len(table.numbers)] for of in (family, estimate))
        lower, upper = (
            family.run(table._replace(levels=levels * torch.tensor([1, math.exp(change), 1]))).end
            for change in (-1e-4, 1e-4)
        )
    expected = (upper - lower) / 2e-4
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0.01 * float(expected.abs().max()))
    assert bool(torch.isfinite(estimated).all())


def test_regression_finds_weights_and_keeps_to_the_prior_where_data_say_nothing():
    features = ds.initial_latents(range(50), (6, 3)).double()[None].repeat(2, 1, 1, 1)
    features[1, ..., 2] = 0
    weights = torch.tensor([[0.5, -1.0, 2.0], [0.3, 0.2, 9.0]], dtype=torch.float64)
    target = (features * weights[:, None, None]).sum(-1)
    prior = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 4.0]], dtype=torch.float64)
    found = regress(features, target, prior, 1e-9, 30.0)
    torch.testing.assert_close(found[0], weights[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(found[1], torch.tensor([0.3, 0.2, 4.0], dtype=torch.float64), rtol=0, atol=1e-9)
    stiff = regress(features, target, prior, 1e9, 30.0)
    torch.testing.assert_close(stiff, prior, rtol=0, atol=1e-9)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e200])
def test_runs_that_diverge_keep_the_prior_and_leave_others_alone(wrong):
    features = ds.initial_latents(range(20), (6, 2)).double()[None].repeat(2, 1, 1, 1)
    weights = torch.tensor([[0.5, -1.0]], dtype=torch.float64).expand(2, 2)
    target = (features * weights[:, None, None]).sum(-1)
    features[0, 3] = wrong
    prior = torch.tensor([[0.1, 0.2]], dtype=torch.float64).expand(2, 2)
    found = regress(features, target, prior, 1e-9, 30.0)
    torch.testing.assert_close(found[0], prior[0])
    torch.testing.assert_close(found[1], weights[1])


def test_singular_systems_have_a_solution():
    normal = torch.tensor([[4.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    found = solve_damped(normal, torch.tensor([2.0, 0.0], dtype=torch.float64), 1.0)
    assert found.tolist() == pytest.approx([0.25, 0.0])


@pytest.mark.parametrize(
    ("elements", "seeds", "judging"), [(1, 1024, 4096), (8, 1024, 4096), (64, 128, 512), (784, 64, 167), (3072, 64, 64)]
)
def test_seeds_by_the_size_of_a_sample(elements, seeds, judging):
    assert calibration_seeds(elements) == seeds
    assert judging_seeds(elements, seeds) == judging


def test_a_mean_needs_an_evaluation_after_it():
    with pytest.raises(ValueError, match="mean: a run of one step would have no evaluation"):
        FittedSolver((80.0, 0.0), ((0.0,),), 0.0)
    with pytest.raises(ValueError, match="mean"):
        FittedSolver((80.0, 1.0, 0.0), ((0.0125,), (0.0, 0.0)), float("nan"))
    sampler = Sampler(GivenSteps((80.0, 1.0, 0.0)), FittedSolver((80.0, 1.0, 0.0), ((0.0125,), (0.0, 0.0)), 0.0))
    assert sampler.nfe == 1
