"""Explicit times, for σ(t) that rise and fall, and the checks of times that steps find by themselves."""

import math

import pytest
import torch

from diffspace import (
    EDMSteps,
    Euler,
    GivenSteps,
    GivenTimes,
    Heun,
    NoScaling,
    Process,
    VPSchedule,
    initial_latents,
    sample,
)
from diffspace.oracles import Gaussian
from diffspace.sampling import Sampler, sample_from

GAUSSIAN = Gaussian(torch.tensor([0.3, -0.5]), torch.tensor([[0.5, 0.2], [0.2, 0.3]]))
GAUSSIAN.sigma_data = 0.5  # the range of the paper's data
LATENTS = initial_latents(range(8), (2,)).double()


def test_times_stand_for_levels(mixture):
    process = Process(VPSchedule())
    levels = EDMSteps(9).sigmas()
    times = GivenTimes(tuple(process.sigma_inv(levels).tolist()))
    by_times = sample(mixture, seeds=range(3), steps=times, process=process)
    by_levels = sample(mixture, seeds=range(3), steps=GivenSteps(tuple(levels.tolist())), process=process)
    torch.testing.assert_close(by_times.x, by_levels.x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(by_times.sigmas, levels, rtol=1e-12, atol=1e-12)
    assert by_times.nfe == by_levels.nfe == 17


@pytest.mark.parametrize(("solver", "order"), [(Euler(), 1), (Heun(), 2)])
def test_a_schedule_that_rises_and_falls_leads_to_the_same_end(solver, order):
    """The ODE does not care for the way: x at the end is a function of σ at the end."""
    process = Process(sigma=lambda t: t + 0.9 * torch.sin(2 * t), s=lambda t: 1 / (1 + t))
    errors = []
    for n in (500, 1000):
        grid = torch.linspace(10.0, 0.05, n + 1, dtype=torch.float64)
        assert bool((process.sigma(grid).diff() > 0).any())
        result = sample(
            GAUSSIAN, latents=LATENTS, steps=GivenTimes(tuple(grid.tolist())), process=process, solver=solver
        )
        start, end = float(result.sigmas[0]), float(result.sigmas[-1])
        assert end == pytest.approx(0.05 + 0.9 * math.sin(0.1))
        errors.append(float((result.x - GAUSSIAN.flow(LATENTS * start, start, end)).norm()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)
    assert errors[1] < (4e-2 if order == 1 else 4e-4)


def test_times_end_at_zero_where_sigma_does():
    process = Process(sigma=lambda t: t + 0.9 * torch.sin(2 * t))
    result = sample(GAUSSIAN, latents=LATENTS, steps=GivenTimes((20.0, 5.0, 1.0, 0.0)), process=process)
    assert result.sigmas[-1] == 0
    assert result.nfe == 5


@pytest.mark.parametrize(
    ("sigma", "times", "message"),
    [
        (lambda t: t, (1.0, 0.0, 0.5), "times: σ.* finite, and positive at every time but the last"),
        (lambda t: t - 1, (2.0, 0.5), "times: σ.* finite, and positive"),
        (lambda t: 1 / t, (2.0, 0.0), "times: σ.* finite, and positive"),
        (lambda t: t - 1, (2.0, 1.0), "times: σ.* must be 0 at t = 0 and nowhere else"),
        (lambda t: t + 0.1, (2.0, 0.0), "times: σ.* must be 0 at t = 0 and nowhere else"),
    ],
)
def test_wrong_times_are_named(sigma, times, message):
    with pytest.raises(ValueError, match=message):
        sample(GAUSSIAN, latents=LATENTS, steps=GivenTimes(times), process=Process(sigma=sigma))


def test_options_that_times_leave_without_effect_are_errors():
    times = GivenTimes((5.0, 1.0, 0.0))
    with pytest.raises(ValueError, match=r"sigma_start: expected σ = 5, .* got 4"):
        sample_from(GAUSSIAN, LATENTS, 4.0, sampler=Sampler(times))
    at_start = sample_from(GAUSSIAN, LATENTS * 5, 5.0, sampler=Sampler(times))
    assert torch.equal(at_start.x, sample(GAUSSIAN, latents=LATENTS, steps=times).x)


def test_a_schedule_that_does_not_begin_at_zero_cannot_end_there():
    process = Process(sigma=lambda t: 0.001 + t)
    with pytest.raises(ValueError, match="sigma"):
        sample(GAUSSIAN, latents=LATENTS, steps=EDMSteps(5), process=process)
    sample(GAUSSIAN, latents=LATENTS, steps=EDMSteps(5, terminal="sigma_min"), process=process)


def test_a_schedule_whose_inverse_is_wrong_is_found_out():
    class Wrong:
        scaling = NoScaling()

        def sigma(self, t):
            return t**2

        def sigma_dot(self, t):
            return 2 * t

        def sigma_inv(self, sigma):
            return sigma

    with pytest.raises(ValueError, match=r"process: σ\(t\) is 6400 at t = 80, where a step needs σ = 80"):
        sample(GAUSSIAN, latents=LATENTS, steps=EDMSteps(5), process=Process(Wrong()))


def test_times_between_the_levels_of_a_model_are_refused():
    def coarse(x, sigma, cond=None):
        return GAUSSIAN(x, sigma)

    coarse.round_sigma = lambda sigma: (2 * sigma).round() / 2
    assert sample(coarse, latents=LATENTS, steps=GivenTimes((5.0, 1.5, 0.0))).nfe == 3
    with pytest.raises(
        ValueError, match=r"times: σ\(t\) = 1.3 is between the model's levels, of which the nearest is 1.5"
    ):
        sample(coarse, latents=LATENTS, steps=GivenTimes((5.0, 1.3, 0.0)))


def test_times_on_which_noise_does_not_fall_are_refused():
    with pytest.raises(ValueError, match=r"times: σ\(t\) goes from 0.002 to 80; expected a fall"):
        sample(GAUSSIAN, latents=LATENTS, steps=GivenTimes((0.002, 80.0)))
