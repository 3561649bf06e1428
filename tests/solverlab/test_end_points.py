"""The reference solution against the closed-form flow of a Gaussian."""

import functools
import math

import pytest
import torch

from diffspace.oracles import Gaussian
from diffspace.protocols import sigma_range, stated
from diffspace.sampling import EDMSteps, Execution, initial_latents, sample
from diffspace.solverlab import REFERENCE_SAMPLER, EndPointError, end_point_error, reference
from diffspace.solverlab.end_points import Continuous, richardson
from diffspace.solverlab.near_paths import NearPaths

GAUSSIAN = Gaussian(torch.tensor([0.3, -0.5]), torch.tensor([[0.5, 0.2], [0.2, 0.3]]))
GAUSSIAN.sigma_data = 0.5  # the range of the paper's data
LATENTS = initial_latents(range(16), (2,)).double()


@pytest.fixture(scope="module")
def truth():
    return reference(GAUSSIAN, latents=LATENTS, execution=Execution(trajectory=True))


def test_end_points_are_exact_to_the_stated_error(truth):
    exact = GAUSSIAN(GAUSSIAN.flow(LATENTS * 80, 80.0, 0.002), torch.tensor(0.002))
    actual = end_point_error(truth.x, exact)
    assert actual.rms < 1e-7
    for told, distance in zip(truth.error, actual, strict=True):
        assert distance / 2 < told < 2 * distance
    assert truth.nfe == 700


@pytest.mark.parametrize("num_steps", [8, 16, 30, 60, 120])
def test_the_stated_error_is_not_below_the_actual_one_where_steps_are_few(num_steps):
    truth = reference(GAUSSIAN, latents=LATENTS, sampler=REFERENCE_SAMPLER.with_num_steps(num_steps))
    exact = GAUSSIAN(GAUSSIAN.flow(LATENTS * 80, 80.0, 0.002), torch.tensor(0.002))
    actual = end_point_error(truth.x, exact)
    assert actual.rms < 1.5 * truth.error.rms < 30 * actual.rms


class Dropping(torch.nn.Module):
    """A denoiser that is right in evaluation mode alone, and computes elsewhere than its caller."""

    sigma_data, sigma_max = 0.7, 40.0

    def __init__(self, device="cpu"):
        super().__init__()
        self.place = torch.nn.Parameter(torch.zeros(1, device=device))

    def round_sigma(self, sigma):
        return sigma.log2().round().exp2()

    def forward(self, x, sigma, cond=None):
        assert not self.training
        assert x.device == sigma.device == self.place.device
        assert all(value.device == x.device for value in (cond or {}).values())
        return torch.zeros(x.shape, dtype=x.dtype, device="cpu")


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_model_inside_is_found_and_what_it_states(wrapped):
    model = Dropping().train()
    denoiser = functools.partial(model) if wrapped else model
    truth = reference(denoiser, seeds=range(24), shape=(2,), execution=Execution(trajectory=True))
    assert model.training
    assert truth.sigma_max == 32.0
    assert float(truth.x.abs().max()) == 0.0
    smooth = Continuous(denoiser)
    assert stated(smooth, "sigma_data") == 0.7
    assert stated(smooth, "round_sigma") is None
    assert sigma_range(smooth) == (0.0, math.inf)
    near = NearPaths(denoiser, truth)
    assert stated(near, "sigma_max") == 40.0
    assert stated(near, "weight") is None


def test_a_model_computes_where_it_is():
    x, sigma = torch.ones(5, 2), torch.tensor(1.0)
    smooth = Continuous(Dropping("meta").eval(), batch_size=2)
    assert torch.equal(smooth(x, sigma, {"labels": torch.zeros(5, dtype=torch.int64)}), torch.zeros(5, 2))
    assert smooth(x, torch.ones(5)).device.type == "cpu"


def test_errors_that_do_not_fall_are_not_taken_to_be_small():
    one = EndPointError(1.0, 1.0)
    assert richardson(EndPointError(16.0, 1e3), one, 4) == (1 / 15, 1 / 15)
    assert richardson(EndPointError(5.0, 1.1), one, 4) == (1 / 4, 1.0)
    assert richardson(EndPointError(16.0, 3.0), one, 1) == (1.0, 1.0)
    assert richardson(one, EndPointError(0.0, 0.0), 4) == (0.0, 0.0)


@pytest.mark.parametrize("sigma", [80.0, 61.3, 3.0, 0.1, 0.0021])
def test_states_between_the_levels_are_on_the_exact_path(truth, sigma):
    exact = GAUSSIAN.flow(LATENTS * 80, 80.0, sigma)
    assert float((truth.at(sigma) - exact).abs().max()) < 2e-6 * float(exact.abs().max())


def test_below_the_last_level_are_the_end_points(truth):
    assert torch.equal(truth.at(0.0), truth.x)
    assert torch.equal(truth.at(0.001), truth.x)
    least = float(truth.sigmas[-2])
    assert torch.equal(truth.at(least * (1 - 1e-15)), truth.at(least))  # a rounding below the lowest level is at it


def test_the_error_is_taken_over_elements_and_samples():
    exact = torch.zeros(3, 2)
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 1.0]])
    error = end_point_error(x, exact)
    assert error.rms == pytest.approx(math.sqrt((9 + 16 + 2) / 6))
    assert error.median == pytest.approx(1.0)


def test_error_of_a_solver_is_its_distance_from_the_flow(truth):
    x = sample(GAUSSIAN, latents=LATENTS, steps=EDMSteps(18)).x
    exact = end_point_error(x, GAUSSIAN.flow(LATENTS * 80, 80.0, 0.0))
    assert truth.error_of(x).rms == pytest.approx(exact.rms, rel=1e-3)


def test_seeds_give_the_latents_of_sample():
    truth = reference(GAUSSIAN, seeds=range(3), sampler=REFERENCE_SAMPLER.with_num_steps(20))
    assert torch.equal(truth.latents, initial_latents(range(3), (2,)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": REFERENCE_SAMPLER.with_num_steps(9), "seeds": [1]}, "got 9"),
        ({"sampler": REFERENCE_SAMPLER.with_num_steps(6), "seeds": [1]}, "got 6"),
        ({}, "seeds, shape"),
    ],
)
def test_bad_requests_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        reference(GAUSSIAN, **arguments)


def test_a_reference_without_trajectory_has_no_path():
    with pytest.raises(ValueError, match="trajectory=True"):
        reference(GAUSSIAN, seeds=[0], sampler=REFERENCE_SAMPLER.with_num_steps(8)).at(1.0)
