"""A DDPM that is known exactly: its denoiser, the orders of its samplers, and where they end."""

import math

import pytest
import torch

from diffspace.data import Digits
from diffspace.objective import loss_by_sigma
from diffspace.preconditioning import EDMPreconditioning, Preconditioned
from diffspace.process import DiscreteLevels
from diffspace.sampling import Euler, Heun, LevelSteps, Sampler, sample
from diffspace.studies import (
    UniformLevels,
    classes_oracle,
    compare_ddpm,
    ddpm_samplers,
    ddpm_table,
    exact_ddpm,
    quantiles,
    three_modes,
    trained_ddpm,
)
from diffspace.studies.problems import cumulative, even

_LEVELS = DiscreteLevels.from_alphas_cumprod(ddpm_table())


@pytest.fixture(scope="module")
def comparison():
    return compare_ddpm(exact_ddpm(three_modes(), ddpm_table()), nfes=(5, 9), fitted=(5,), count=16)


def test_table_is_that_of_ho_et_al():
    table = ddpm_table()
    assert float(table[0]) == pytest.approx(1 - 1e-4, abs=1e-15)
    assert float(table[1] / table[0]) == pytest.approx(1 - 1e-4 - 0.0199 / 999, abs=1e-15)
    assert float(table[-1] / table[-2]) == pytest.approx(0.98, abs=1e-15)
    assert float(table[-1]) == pytest.approx(math.prod(1 - 1e-4 - 0.0199 * n / 999 for n in range(1000)), rel=1e-12)


def test_every_level_is_as_likely_as_any_other():
    levels = _LEVELS.table()
    drawn = UniformLevels(_LEVELS).sample(len(levels), stratified=True, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn.sort().values, levels)


def test_exact_ddpm_is_the_oracle_at_its_levels_and_between():
    data, table = three_modes(), _LEVELS.table()
    ddpm = exact_ddpm(data, ddpm_table())
    between = (table[:-1] * table[1:]).sqrt()
    for sigma in (table[::100], between[::100], table[-1:]):
        x = quantiles(data, even(9), sigma).reshape(-1, 1)
        levels = sigma.repeat_interleave(9)
        torch.testing.assert_close(ddpm(x, levels), data(x, levels), rtol=0, atol=1e-10)


@pytest.mark.parametrize("solver", [Euler(), Heun()])
def test_ddpm_converges_to_the_ends_of_the_continuous_oracle(solver):
    data, table = three_modes(), _LEVELS.table()
    ddpm, u = exact_ddpm(data, ddpm_table()), even(41)
    latents = quantiles(data, u, table[-1:]).T / table[-1]
    # flow lines keep u down to the lowest level, from where the last step is D
    exact = data(quantiles(data, u, table[:1]).T, table[0])
    errors = []
    for num_steps in (111, 333):  # divisors of 999: every ninth and every third level
        steps = LevelSteps(num_steps + 1, levels=ddpm.levels)
        end = sample(ddpm, latents=latents, sampler=Sampler(steps, solver)).x
        errors.append(float((end - exact).square().mean().sqrt()))
    assert 3 ** (solver.order - 0.15) < errors[0] / errors[1] < 3 ** (solver.order + 0.25)


def test_samplers_take_their_evaluations_and_the_trained_levels():
    known = set(_LEVELS.table().tolist()) | {0.0}
    for group in ddpm_samplers(_LEVELS, (5, 9, 49)).values():
        assert [sampler.nfe for sampler in group] == [5, 9, 49]
        assert all(set(sampler.steps.sigmas().tolist()) <= known for sampler in group)


def test_comparison_measures_the_ends_of_sample(comparison):
    ddpm = exact_ddpm(three_modes(), ddpm_table())
    for name, solver in (("DDIM", Euler()), ("Heun", Heun())):
        steps = LevelSteps(9 if name == "DDIM" else 5, levels=ddpm.levels)
        ends = sample(ddpm, seeds=range(16), sampler=Sampler(steps, solver)).x
        assert torch.equal(comparison.at(name, 9).x, ends)
        error = float((ends - comparison.reference.x).square().mean().sqrt())
        nfes, errors = comparison.errors()[name]
        assert nfes == [5, 9]
        assert errors[1] == pytest.approx(error)


def test_reference_is_where_flow_lines_end(comparison):
    data, table = three_modes(), _LEVELS.table()
    x = comparison.reference.latents.double()[:, 0] * table[-1]
    u = cumulative(data, x, table[-1])
    exact = data(quantiles(data, u, table[:1]).T, table[0])
    torch.testing.assert_close(comparison.reference.x, exact, rtol=0, atol=1e-5)


def test_fitted_solver_is_nearest_on_seeds_that_it_has_not_seen(comparison):
    errors = {name: dict(zip(*line, strict=True))[5] for name, line in comparison.errors().items()}
    assert errors["fitted"] < 0.75 * min(error for name, error in errors.items() if name != "fitted")


def test_denoiser_without_levels_is_refused():
    plain = Preconditioned(torch.nn.Identity(), EDMPreconditioning())
    with pytest.raises(ValueError, match="denoiser: expected a DDPM with its table"):
        compare_ddpm(plain)


def test_trained_ddpm_comes_near_the_exact_one():
    data, generator = three_modes(), torch.Generator().manual_seed(0)
    ddpm = trained_ddpm(data.sample(4000, generator=generator).float(), ddpm_table(), steps=400, batch=128)
    held_out = data.sample(4000, generator=generator).float()
    sigmas = _LEVELS.table()[[150, 300, 500]]
    found = loss_by_sigma(ddpm, held_out, sigmas=sigmas, oracle=data)
    assert bool((found.mse < 1.2 * found.attainable).all()), found.mse / found.attainable


def test_oracle_of_classes_has_the_moments_of_the_data():
    digits = Digits().load()
    x = digits.batch().double().flatten(1)
    oracle = classes_oracle(digits)
    torch.testing.assert_close(oracle.mean().flatten(), x.mean(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(oracle.covariance(), x.T.cov(correction=0), rtol=0, atol=1e-12)
    assert len(oracle.weights) == 10
