"""The adaptive pair: its error follows the tolerance, each sample has its own steps, and no evaluation is wasted."""

import math

import numpy as np
import pytest
import torch

from diffspace import DormandPrince, EDMSteps, GivenSteps, count_evaluations, encode, initial_latents, sample
from diffspace.oracles import Gaussian, GaussianMixture
from diffspace.sampling import Execution, Sampler, sample_from

LATENTS = initial_latents(range(6), (2,)).double()
GAUSSIAN = Gaussian(torch.tensor([0.3, -0.5]).double(), torch.tensor([[0.5, 0.2], [0.2, 0.3]]).double())
GAUSSIAN.sigma_data = 0.5  # the range of the paper's data
TOLERANCES = (1e-4, 1e-6, 1e-8)


def rms(x):
    return float(x.square().mean().sqrt())


class Counting:
    """A denoiser that counts its calls and keeps the levels that it was asked for."""

    def __init__(self, denoiser):
        self.denoiser, self.levels = denoiser, []

    def __call__(self, x, sigma, cond=None):
        self.levels.append(sigma)
        return self.denoiser(x, sigma)


def test_the_error_is_proportional_to_the_tolerance(mixture):
    steps = EDMSteps(1, terminal="sigma_min")
    truth = sample(mixture, latents=LATENTS, steps=steps, solver=DormandPrince(1e-11, 1e-12)).x
    errors, counts = [], []
    for tolerance in TOLERANCES:
        solver = DormandPrince(tolerance, tolerance)
        result = sample(mixture, latents=LATENTS, steps=steps, solver=solver)
        errors.append(rms(result.x - truth))
        counts.append(result.nfe)
    slope = np.polyfit(np.log(TOLERANCES), np.log(errors), 1)[0]
    print(f"\n  {slope:.2f}", *(f"{e:.1e} ({n})" for e, n in zip(errors, counts, strict=True)))
    assert 0.9 < slope < 1.25
    assert all(error < 3 * tolerance for error, tolerance in zip(errors, TOLERANCES, strict=True))
    # a fifth-order method takes 10^(2/5) times as many steps for two digits more
    assert counts[-1] / counts[-2] == pytest.approx(100 ** (1 / 5), rel=0.2)


def test_down_up_and_down_again_on_a_gaussian():
    x = GAUSSIAN.flow(LATENTS * 80, 80.0, 0.002)
    steps = EDMSteps(3, 0.002, 80.0, terminal="sigma_min")
    for tolerance in TOLERANCES:
        solver = DormandPrince(tolerance, tolerance)
        encoded = encode(GAUSSIAN, x, sampler=Sampler(steps, solver))
        decoded = sample_from(GAUSSIAN, encoded.x, 80.0, sampler=Sampler(steps, solver))
        assert rms(encoded.x - LATENTS * 80) / 80 < 10 * tolerance
        assert rms(decoded.x - x) < 10 * tolerance


def test_every_level_is_inside_the_range_and_both_ends_are_met_exactly(mixture):
    for steps in (EDMSteps(2, 0.01, 40.0, terminal="sigma_min"), GivenSteps((40.0, 7.0, 0.01))):
        counting = Counting(mixture)
        grid = sample(counting, latents=LATENTS, steps=steps, solver=DormandPrince()).sigmas
        levels = torch.cat([level.reshape(-1) for level in counting.levels])
        assert levels.max() == grid[0]
        assert levels.min() == grid[-1]
        assert counting.levels[0].shape == ()


def test_first_evaluations_are_the_last_of_the_step_before(mixture):
    """Six evaluations a step on given steps, one at the start, and none in a last step to zero."""
    solver = DormandPrince(atol=math.inf)
    for n in (1, 2, 5):
        ends = sample(mixture, latents=LATENTS, steps=EDMSteps(n, terminal="sigma_min"), solver=solver)
        assert ends.nfe == 1 + 6 * n
        steps = EDMSteps(n)
        counting = Counting(mixture)
        zero = sample(counting, latents=LATENTS, steps=steps, solver=solver, execution=Execution(trajectory=True))
        assert zero.nfe == len(counting.levels) == 1 + 6 * (n - 1)
        last = mixture(zero.trajectory.x[-2], zero.sigmas[-2])
        assert torch.allclose(zero.x, last, rtol=1e-10, atol=1e-10)
        for i, denoised in enumerate(zero.trajectory.denoised):
            assert torch.allclose(denoised, mixture(zero.trajectory.x[i], zero.sigmas[i]), rtol=1e-9, atol=1e-9)


def test_no_count_is_declared():
    assert count_evaluations(DormandPrince(), 5) is None


def test_the_length_of_steps_is_carried_over_the_given_ones(mixture):
    """Ten given steps cost little more than one: no new start in each."""
    solver = DormandPrince(1e-7, 1e-7)
    one, ten = (
        sample(mixture, latents=LATENTS, steps=EDMSteps(n, terminal="sigma_min"), solver=solver) for n in (1, 10)
    )
    assert ten.nfe < one.nfe + 6 * 12
    assert torch.allclose(one.x, ten.x, atol=1e-6)


def test_a_slow_sample_does_not_shorten_the_steps_of_the_others():
    """One of two far ends takes many more steps; the other is the same beside it as alone."""
    means = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    narrow = GaussianMixture(means, torch.full((2,), 1e-3, dtype=torch.float64))
    fast, slow = torch.tensor([[-2.0, 0.5]]).double(), torch.tensor([[0.00625, 0.3]]).double()
    options = {"steps": EDMSteps(1, terminal="sigma_min"), "solver": DormandPrince(1e-7, 1e-7)}
    alone = [sample(narrow, latents=latents, **options) for latents in (fast, slow)]
    both = sample(narrow, latents=torch.cat([fast, slow]), **options)
    assert alone[1].nfe > alone[0].nfe
    assert both.nfe == alone[1].nfe  # it is not the sum of what each requires
    assert torch.equal(both.x, torch.cat([result.x for result in alone]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_either_precision(mixture, dtype):
    result = sample(
        mixture, latents=LATENTS, solver=DormandPrince(1e-5, 1e-5), steps=EDMSteps(4), execution=Execution(dtype=dtype)
    )
    exact = sample(mixture, latents=LATENTS, solver=DormandPrince(1e-7, 1e-7), steps=EDMSteps(4))
    assert result.x.dtype == dtype
    assert rms(result.x - exact.x) < 1e-4


def test_values_that_are_not_finite_end_the_run(mixture):
    def broken(x, sigma, cond=None):
        return mixture(x, sigma) if float(sigma.max()) > 1 else x * math.nan

    with pytest.raises(FloatingPointError, match=r"\d\d steps between σ = 80 and 0\.002 do not .* D is finite"):
        sample(broken, latents=LATENTS, steps=EDMSteps(1, terminal="sigma_min"), solver=DormandPrince())


def test_a_tolerance_beyond_the_precision_is_named(mixture):
    steps = EDMSteps(1, terminal="sigma_min")
    with pytest.raises(FloatingPointError, match=r"100 steps between .* do not reach rtol = 1e-12, atol = 0; check"):
        sample(
            mixture,
            latents=LATENTS,
            steps=steps,
            solver=DormandPrince(1e-12, 0.0, 100),
            execution=Execution(dtype=torch.float32),
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 1e-5), r"rtol: expected a number in \[0, inf\), got -1.0"),
        ((math.inf, 1e-5), r"rtol: .* got inf"),
        ((1e-5, math.nan), r"atol: expected a number in \[0, inf\], got nan"),
        ((0.0, 0.0), "rtol, atol: both are 0"),
        ((0.1, 0.1, 0), r"max_steps: .* got 0"),
    ],
)
def test_wrong_tolerances_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        DormandPrince(*arguments)


def test_the_count_is_that_of_the_slowest_batch(mixture):
    counts = [sample(mixture, seeds=[i], shape=(2,), solver=DormandPrince(), steps=EDMSteps(2)).nfe for i in range(3)]
    together = sample(
        mixture,
        seeds=range(3),
        shape=(2,),
        solver=DormandPrince(),
        steps=EDMSteps(2),
        execution=Execution(batch_size=1),
    )
    assert together.nfe == max(counts) > min(counts)
