"""Found steps and fitted solvers, judged on seeds and on models that the search has not seen."""

import math

import pytest
import torch

from diffspace import (
    EDMSteps,
    FlowSchedule,
    GivenSteps,
    Heun,
    IDDPMPreconditioning,
    Process,
    VPSchedule,
    initial_latents,
    sample,
)
from diffspace.sampling import AdamsBashforth, AnalyticalFirstStep, Execution, FittedSolver, Sampler
from diffspace.solverlab import REFERENCE_SAMPLER, compare_solvers, fit_multistep, optimize_steps, reference
from diffspace.solverlab.family import Family
from diffspace.solverlab.near_paths import NearPaths


def ring(count=8, std=0.1, turn=0.0):
    """E[x₀ | x] of equal Gaussians on the unit circle, as a plain function."""
    angles = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count) + turn
    means = torch.stack([angles.cos(), angles.sin()], 1)

    def denoise(x, sigma, cond=None):
        total = std**2 + sigma**2
        offsets = x[:, None] - means
        posterior = (-offsets.square().sum(2) / (2 * total)).softmax(1)
        return (posterior[:, :, None] * (means + std**2 / total * offsets)).sum(1)

    return denoise


def truth_of(denoiser, seeds, **options):
    return reference(denoiser, seeds=seeds, shape=(2,), sampler=REFERENCE_SAMPLER.with_num_steps(100), **options)


def error(denoiser, truth, **options):
    return truth.error_of(sample(denoiser, latents=truth.latents, **options).x)


@pytest.fixture(scope="module")
def calibration():
    return truth_of(ring(), range(1000, 1160), execution=Execution(trajectory=True))


@pytest.fixture(scope="module")
def unseen():
    return truth_of(ring(), range(96))


@pytest.fixture(scope="module")
def fitted(calibration):
    return fit_multistep(ring(), 8, calibration, iterations=6)


def test_fitted_weights_win_over_every_analytic_choice_on_unseen_seeds(fitted, unseen):
    found = error(ring(), unseen, sampler=fitted)
    analytic = [
        error(ring(), unseen, solver=AdamsBashforth(3, prediction, variable), steps=EDMSteps(8))
        for prediction, variable in (("epsilon", "log_sigma"), ("epsilon", "vp"), ("v", "angle"), ("x0", "log_sigma"))
    ]
    print(f"\n  fitted {found}, best of others {min(analytic)}")
    assert found.rms < 0.2 * min(e.rms for e in analytic)
    assert found.median < 0.1 * min(e.median for e in analytic)


@pytest.mark.parametrize("other", [{"turn": math.pi / 8}, {"count": 7, "std": 0.12}])
def test_fitted_weights_win_on_a_model_not_seen(fitted, other):
    model = ring(**other)
    truth = truth_of(model, range(96))
    default = error(model, truth, solver=AdamsBashforth(3), steps=EDMSteps(8))
    assert error(model, truth, sampler=fitted).rms < 0.25 * default.rms


@pytest.mark.parametrize(
    ("solver", "num_steps"), [(Heun(), 5), (AdamsBashforth(3), 8), (AdamsBashforth(3, "x0", "log_sigma"), 8)]
)
def test_optimised_steps_lower_the_error_on_unseen_seeds(calibration, unseen, solver, num_steps):
    found = optimize_steps(ring(), solver, num_steps, calibration)
    assert found.solver == solver
    assert found.steps.num_steps == num_steps
    assert found.steps.levels[0] == 80
    assert found.steps.levels[-1] == 0
    default = error(ring(), unseen, solver=solver, steps=EDMSteps(num_steps))
    gained = error(ring(), unseen, sampler=found)
    print(f"\n  {solver}: ρ = 7 {default.rms:.2e}, optimised {gained.rms:.2e}")
    assert gained.rms < 0.5 * default.rms


def test_noise_without_bound_leaves_the_analytic_weights(calibration):
    stiff = fit_multistep(ring(), 6, calibration, iterations=0, noise=1e6)
    x = sample(ring(), latents=calibration.latents[:16], sampler=stiff).x
    analytic = sample(ring(), latents=calibration.latents[:16], solver=AdamsBashforth(3, "x0"), steps=stiff.steps).x
    torch.testing.assert_close(x, analytic, rtol=0, atol=1e-6)


def test_on_a_gaussian_few_evaluations_are_enough():
    """There D is affine and every coordinate has its own factor: three evaluations settle two factors and a mean."""
    variances = torch.tensor([0.6, 0.05], dtype=torch.float64)

    def gaussian(x, sigma, cond=None):
        return variances / (variances + sigma**2) * x

    truth = truth_of(gaussian, range(64), execution=Execution(trajectory=True))
    fitted = fit_multistep(gaussian, 4, truth, iterations=4, noise=1e-8)
    latents = initial_latents(range(500, 540), (2,)).double()
    exact = latents * 80 * (variances / (variances + 80**2)).sqrt()
    assert float((sample(gaussian, latents=latents, sampler=fitted).x - exact).abs().max()) < 2e-4
    heun = sample(gaussian, latents=latents, steps=EDMSteps(18)).x
    assert float((heun - exact).abs().max()) > 1e-2


@pytest.mark.parametrize("process", [Process(VPSchedule()), Process(FlowSchedule())])
def test_the_process_makes_no_difference(fitted, unseen, process):
    plain = sample(ring(), latents=unseen.latents, sampler=fitted).x
    torch.testing.assert_close(sample(ring(), latents=unseen.latents, sampler=fitted, process=process).x, plain)


def test_the_table_is_what_is_done(fitted):
    latents = initial_latents(range(4), (2,)).double()
    x, past = latents * fitted.steps.levels[0], []
    for sigma, (a, *weights) in zip(fitted.steps.levels[:-1], fitted.solver.rows, strict=True):
        denoised = ring()(x, sigma)
        x = denoised + a * (x - denoised) + sum(w * (d - denoised) for w, d in zip(weights, past, strict=True))
        past.append(denoised)
    result = sample(ring(), latents=latents, sampler=fitted)
    assert result.nfe == result.num_steps == 8
    torch.testing.assert_close(result.x, x, rtol=1e-9, atol=1e-9)


def test_other_levels_are_refused(fitted):
    with pytest.raises(ValueError, match="steps: step 0 goes"):
        sample(ring(), seeds=[0], shape=(2,), sampler=fitted, steps=EDMSteps(8, sigma_max=70))
    with pytest.raises(ValueError, match="steps: step 2 goes"):
        sample(ring(), seeds=[0], shape=(2,), sampler=fitted, steps=GivenSteps((80.0, *fitted.steps.levels[1:3], 0.0)))


@pytest.mark.parametrize("n", [1, 2])
def test_one_and_two_evaluations(calibration, n):
    fitted = fit_multistep(ring(), n, calibration, iterations=3)
    result = sample(ring(), seeds=range(4), shape=(2,), sampler=fitted)
    assert result.nfe == n
    assert calibration.error_of(sample(ring(), latents=calibration.latents, sampler=fitted).x).rms < 0.8
    assert optimize_steps(ring(), AdamsBashforth(1), n, calibration, iterations=2).steps.num_steps == n


def test_levels_stay_in_the_range_that_the_model_states(calibration):
    class Ranged:
        sigma_min, sigma_max = 0.2, 80.0

        def __call__(self, x, sigma, cond=None):
            assert float(sigma) >= self.sigma_min
            return ring()(x, sigma)

    fitted = fit_multistep(Ranged(), 6, calibration, iterations=3)
    assert fitted.steps.levels[-2] >= 0.2 * (1 - 1e-12)
    assert sample(Ranged(), seeds=[0], shape=(2,), sampler=fitted).nfe == 6


class Discrete:
    """The ring, for a model with a table of levels."""

    choice = IDDPMPreconditioning()
    sigma_min, sigma_max = choice.sigma_range

    def round_sigma(self, sigma):
        return self.choice.round_sigma(sigma)

    def __call__(self, x, sigma, cond=None):
        return ring()(x, sigma)


def test_levels_are_those_of_a_model_that_has_a_table():
    model = Discrete()
    truth = truth_of(model, range(64), execution=Execution(trajectory=True))
    assert truth.sigma_max == float(model.round_sigma(torch.tensor(80.0, dtype=torch.float64)))
    fitted = fit_multistep(model, 6, truth, iterations=2)
    levels = torch.tensor(fitted.steps.levels, dtype=torch.float64)
    assert torch.equal(model.round_sigma(levels), levels)
    # the search sees what `sample` gives
    family = Family(model, truth)
    table = family.stagewise(levels[None, :-1], slice(None), 1e-5, 30.0)[0][0]
    x = sample(model, latents=truth.latents, sampler=table.sampler(None)).x
    torch.testing.assert_close(family.run(table).end, x, rtol=0, atol=1e-9)


def test_no_solver_fails_near_the_paths_of_a_model_that_has_a_table():
    near = NearPaths(Discrete(), truth_of(Discrete(), range(16), execution=Execution(trajectory=True)))
    rows = compare_solvers(near, near.truth, budgets=(8,)).rows
    assert len(rows) == 135
    assert [row.name for row in rows if row.failure] == []


def test_a_solver_knows_what_the_denoiser_states():
    class Large:
        sigma_data = 5.0

        def __call__(self, x, sigma, cond=None):
            return 5 * ring()(x / 5, sigma / 5)

    truth = truth_of(Large(), range(64))
    plain, told = (
        error(Large(), truth, sampler=optimize_steps(Large(), AdamsBashforth(3, "v", "angle", *given), 6, truth))
        for given in ((), (5.0,))
    )
    assert plain == told
    assert optimize_steps(Large(), AnalyticalFirstStep(), 4, truth, iterations=1).solver == AnalyticalFirstStep()
    solvers = (AdamsBashforth(3, "v", "angle", *given) for given in ((), (5.0,)))
    plain, told = (
        reference(Large(), seeds=range(8), shape=(2,), sampler=Sampler(EDMSteps(64), solver)).x for solver in solvers
    )
    assert torch.equal(plain, told)


def test_conditions_reach_the_denoiser():
    def shifted(x, sigma, cond=None):
        return ring()(x - cond["shift"], sigma) + cond["shift"]

    cond = {"shift": torch.linspace(-1, 1, 64, dtype=torch.float64)[:, None].expand(64, 2)}
    truth = truth_of(shifted, range(64), cond=cond, execution=Execution(trajectory=True))
    fitted = fit_multistep(shifted, 8, truth, iterations=3)
    assert error(shifted, truth, sampler=fitted, cond=cond).median < 0.02


def test_batches_make_no_difference(calibration):
    whole, cut = (fit_multistep(ring(), 3, calibration, iterations=1, batch_size=size) for size in (None, 37))
    assert whole.steps.levels == pytest.approx(cut.steps.levels)
    assert optimize_steps(ring(), Heun(), 2, calibration, iterations=1, batch_size=37).steps.num_steps == 2


def test_progress_is_told(calibration):
    told = []
    optimize_steps(ring(), AdamsBashforth(2), 4, calibration, iterations=3, progress=lambda *a: told.append(a))
    assert [i for i, _, _ in told] == [0, 1, 2]
    assert told[-1][2] < told[0][2]


def test_progress_counts_the_levels_and_what_follows(calibration):
    told = []
    fit_multistep(ring(), 3, calibration, iterations=2, progress=lambda *now: told.append(now[:2]))
    assert {total for _, total in told} == {4 * 2 + 1}  # four searches of levels, and half as many for all numbers
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1][0] == 8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FittedSolver((1.0, 0.0), ((-1.0, 2.0),)), "rows: expected rows"),
        (lambda: FittedSolver((1.0, 0.0), ((math.nan,),)), "rows: expected finite numbers up to 1e"),
        (lambda: FittedSolver((0.5, 1.0), ((-1.0,),)), "levels"),
        (lambda: fit_multistep(ring(), 4, truth_of(ring(), [0])), "truth: has no trajectory"),
        (lambda: optimize_steps(ring(), Heun(), 0, truth_of(ring(), [0])), "num_steps: .* got 0"),
    ],
)
def test_bad_tables_and_requests_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
