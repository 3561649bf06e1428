"""Algorithm 2: what churn adds, when, and that the distribution stays the one it was."""

import itertools
import math

import numpy as np
import pytest
import torch
from processes import PROCESSES

from diffspace import (
    Churn,
    CosineSchedule,
    DiscreteLevels,
    EDMSteps,
    Euler,
    GivenSteps,
    GivenTimes,
    Heun,
    IDDPMPreconditioning,
    IDDPMSteps,
    LevelIndex,
    Preconditioned,
    Process,
    VESchedule,
    VPSchedule,
    sample,
    sample_states,
    step_noise,
)
from diffspace.sampling import Execution, Sampler

EVERY_PROCESS = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def no_noise(step, like):
    raise AssertionError(f"noise was drawn in step {step}")


def identity(x, sigma, cond=None):
    """D = x: nothing moves but by noise."""
    return x.clone()


def gaussian(x, sigma, cond=None):
    """D of N(0, 1/4)."""
    return x / (1 + 4 * sigma**2)


def test_gamma_is_that_of_algorithm_2():
    churn = Churn(S_churn=4.0, S_tmin=0.05, S_tmax=20.0)
    assert churn.gamma(1.0, 40) == 0.1
    assert churn.gamma(1.0, 2) == math.sqrt(2) - 1
    assert churn.gamma(0.05, 40) == churn.gamma(20.0, 40) == 0.1  # both ends belong to it
    assert churn.gamma(0.0499, 40) == churn.gamma(20.1, 40) == 0
    assert Churn().gamma(1.0, 10) == 0


@EVERY_PROCESS
@pytest.mark.parametrize("solver", [Euler(), Heun(), Heun(1 / 2)])
@pytest.mark.parametrize(
    "churn", [Churn(), Churn(0.0, S_noise=1.1), Churn(40.0, S_tmin=100.0), Churn(9.0, S_tmax=1e-3)]
)
def test_without_churn_the_sampler_is_the_deterministic_one_and_draws_nothing(mixture, process, solver, churn):
    options = {"seeds": range(5), "steps": EDMSteps(7), "solver": solver, "process": process}
    plain = sample(mixture, **options)
    silent = sample(mixture, churn=churn, noise=no_noise, **options)
    assert torch.equal(silent.x, plain.x)
    assert silent.nfe == plain.nfe


def test_noise_is_drawn_in_the_steps_with_churn_alone(mixture):
    drawn = []

    def noise(step, like):
        drawn.append(step)
        return torch.zeros_like(like)

    steps = EDMSteps(18)
    sample(mixture, seeds=range(2), steps=steps, churn=Churn(9.0, 0.05, 20.0), noise=noise)
    assert drawn == [i for i, sigma in enumerate(steps.sigmas()[:-1].tolist()) if 0.05 <= sigma <= 20]


def test_the_noise_has_the_variance_between_the_two_levels():
    """With D = x and σ = t the state moves by √(σ̂² − σ²)·S_noise·ε in each step, and by nothing else."""
    churn = Churn(3.0, S_tmin=0.05, S_tmax=50.0, S_noise=1.007)
    steps = EDMSteps(10)
    states = list(sample_states(identity, shape=(4,), seeds=[5, 6], sampler=Sampler(steps, churn=churn)))
    for before, after in itertools.pairwise(states):
        gamma = churn.gamma(before.sigma, 10)
        moved = math.sqrt((before.sigma * (1 + gamma)) ** 2 - before.sigma**2) * 1.007
        expected = before.x + moved * step_noise([5, 6], before.step, (4,)).double()
        torch.testing.assert_close(after.x, expected, rtol=1e-12, atol=1e-12)


def test_the_denoiser_is_first_asked_at_the_lifted_level():
    asked = []

    def denoiser(x, sigma, cond=None):
        asked.append(float(sigma))
        return gaussian(x, sigma)

    steps = GivenSteps((10.0, 2.0, 0.5, 0.0))
    result = sample(denoiser, shape=(2,), seeds=[0], steps=steps, churn=Churn(0.3, S_tmax=5.0))
    assert asked == pytest.approx([10, 2, 2 * 1.1, 0.5, 0.5 * 1.1], rel=1e-14)
    assert result.nfe == 5


def end_variance(process, n, S_churn, S_noise=1.0):
    """The exact variance of the end points for N(0, 1/4), where the sampler is linear in latents and noise.

    Row k of the batch gets a unit of noise in step k and nothing else, the last row the latent; the variances add.
    """

    def noise(step, like):
        return (torch.arange(n + 1) == step).to(like)[:, None]

    latents = torch.zeros(n + 1, 1, dtype=torch.float64)
    latents[-1] = 1
    steps, churn = EDMSteps(n, terminal="sigma_min"), Churn(S_churn, S_noise=S_noise)
    x = sample(gaussian, latents=latents, steps=steps, process=process, churn=churn, noise=noise).x
    return float(x.square().sum())


@EVERY_PROCESS
def test_churn_keeps_the_variance_as_steps_grow(process):
    exact = 0.25 + 0.002**2
    counts = (64, 128, 256)
    errors = [abs(end_variance(process, n, S_churn=10.0) / exact - 1) for n in counts]
    print(f"\n  {process.schedule}: {', '.join(f'{e:.2e}' for e in errors)}")
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert order > 1.8
    assert errors[-1] < 0.01


def test_too_much_noise_would_show():
    exact = 0.25 + 0.002**2
    assert end_variance(Process(), 128, S_churn=10.0, S_noise=1.01) / exact - 1 > 0.01


def chi_squares(x, mixture):
    """Of mean and covariance against the exact ones, with 2 and 3 degrees of freedom."""
    n, mean, covariance = len(x), mixture.mean(), mixture.covariance()
    error = x.mean(0) - mean
    of_mean = float(n * error @ torch.linalg.solve(covariance, error))
    centred = x - mean
    products = torch.stack([centred[:, 0] ** 2, centred[:, 0] * centred[:, 1], centred[:, 1] ** 2], 1)
    error = products.mean(0) - covariance[[0, 0, 1], [0, 1, 1]]
    of_covariance = float(n * error @ torch.linalg.solve(torch.cov(products.T), error))
    return of_mean, of_covariance


# at a level of 1e-4: 2 and 3 degrees of freedom
LIMITS = (18.4, 21.1)


def check_statistics(mixture, process, noise):
    result = sample(
        mixture,
        shape=(2,),
        seeds=range(50_000),
        steps=EDMSteps(128),
        process=process,
        churn=Churn(S_churn=40.0, S_noise=1.0),
        noise=noise,
        execution=Execution(batch_size=5_000),
    )
    found = chi_squares(result.x, mixture)
    print(f"\n  {process}: chi-square of the mean {found[0]:.2f} (2), of the covariance {found[1]:.2f} (3)")
    assert found[0] < LIMITS[0]
    assert found[1] < LIMITS[1]


def fast_noise():
    generator = torch.Generator().manual_seed(0)

    def noise(step, like):
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    return noise


def test_mean_and_covariance_of_50_000_samples_are_exact(mixture):
    check_statistics(mixture, Process(), fast_noise())


@pytest.mark.slow
@pytest.mark.parametrize("process", [Process(), Process(VPSchedule()), Process(VESchedule())])
def test_mean_and_covariance_with_noise_by_seed(mixture, process):
    check_statistics(mixture, process, None)


class Bounded:
    """A denoiser with a range of σ and, where `table` is given, levels to which it rounds."""

    def __init__(self, sigma_min, sigma_max, table=None):
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.asked = []
        if table is not None:
            self.round_sigma = table.round_sigma

    def __call__(self, x, sigma, cond=None):
        self.asked.append(float(sigma))
        return gaussian(x, sigma)


def test_churn_above_the_model_s_range_is_an_error_that_names_s_tmax():
    model = Bounded(0.002, 80.0)
    with pytest.raises(ValueError, match=r"S_tmax: inf lets churn lift σ = 80 to .* above the model's sigma_max = 80"):
        sample(model, shape=(2,), seeds=[0], churn=Churn(10.0))
    with pytest.raises(ValueError, match="S_tmax: 60 lets churn lift σ = 57"):
        sample(model, shape=(2,), seeds=[0], churn=Churn(10.0, S_tmax=60.0))
    assert model.asked == []
    sample(model, shape=(2,), seeds=[0], churn=Churn(10.0, S_tmax=50.0))
    assert max(model.asked) == pytest.approx(80.0)


def test_levels_and_lifted_levels_are_rounded_to_those_of_the_model():
    table = LevelIndex(DiscreteLevels((0.01, 0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0, 80.0)))
    model = Bounded(0.01, 80.0, table)
    drawn = []

    def noise(step, like):
        drawn.append(step)
        return torch.zeros_like(like)

    steps = GivenSteps((40.0, 9.0, 4.8, 2.1, 0.6, 0.0))
    result = sample(model, shape=(2,), seeds=[0], steps=steps, solver=Euler(), churn=Churn(1.5), noise=noise)
    assert result.sigmas.tolist() == [40.0, 10.0, 5.0, 2.0, 0.5, 0.0]
    # γ = 0.3: 52 → 40, 13 → 10, 6.5 → 5, 2.6 → 3, 0.65 → 0.5; where σ̂ rounds back to σ there is nothing to draw
    assert model.asked == pytest.approx([40.0, 10.0, 5.0, 3.0, 0.5], rel=1e-15)
    assert drawn == [3]


@pytest.mark.parametrize("process", [Process(), Process(VPSchedule()), Process(CosineSchedule())])
def test_an_iddpm_model_is_asked_at_its_own_levels(process):
    """Also where the way through t and back changes the last digits of σ."""

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.heard = []

        def forward(self, x, c_noise, cond=None):
            self.heard.append(float(c_noise[0]))
            return 0 * x

    network = Network()
    model = Preconditioned(network, IDDPMPreconditioning())
    levels = IDDPMPreconditioning().times.levels.table()
    churn = Churn(20.0, S_tmax=1000.0)
    result = sample(model, shape=(2,), seeds=[0], steps=IDDPMSteps(20), churn=churn, process=process)
    assert bool(torch.isin(result.sigmas[:-1], levels).all())
    assert all(index == int(index) for index in network.heard)
    # every D of the second stage is asked at a step's level, every D of the first at a level above it
    second = levels[torch.tensor(network.heard[1::2]).long()]
    assert torch.equal(second, result.sigmas[1:-1])
    first = levels[torch.tensor(network.heard[0::2]).long()]
    assert bool((first >= result.sigmas[:-1]).all())
    assert bool((first > result.sigmas[:-1]).any())


def test_a_process_without_an_inverse_cannot_be_churned(mixture):
    process = Process(sigma=lambda t: t + 0.9 * torch.sin(2 * t))
    times = GivenTimes((20.0, 10.0, 5.0, 1.0, 0.0))
    with pytest.raises(ValueError, match="not increasing"):
        sample(mixture, seeds=[0], steps=times, process=process, churn=Churn(1.0))


def test_a_solver_with_a_memory_refuses_churn_by_name(mixture):
    class Remembering(Euler):
        multistep = True

    with pytest.raises(ValueError, match="churn: Remembering remembers earlier steps"):
        sample(mixture, seeds=[0], solver=Remembering(), churn=Churn(1.0))
    sample(mixture, seeds=[0], solver=Remembering(), churn=Churn(0.0))


def test_churn_needs_seeds_or_noise(mixture):
    latents = torch.zeros(3, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="seeds: churn draws noise for each sample; give seeds or noise"):
        sample(mixture, latents=latents, churn=Churn(1.0))
    sample(mixture, latents=latents, churn=Churn(1.0), seeds=[1, 2, 3])
    sample(mixture, latents=latents, churn=Churn(1.0), noise=lambda step, like: torch.zeros_like(like))


def test_injected_noise_must_have_the_shape_of_the_state(mixture):
    with pytest.raises(ValueError, match=r"noise: expected the shape of the state, \(3, 2\), got \(2,\)"):
        sample(mixture, seeds=range(3), churn=Churn(1.0), noise=lambda step, like: torch.zeros(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_state_keeps_its_dtype_whatever_the_noise_has(mixture, dtype):
    for given in (torch.float32, torch.float64):
        result = sample(
            mixture,
            seeds=range(3),
            churn=Churn(1.0),
            noise=lambda step, like, given=given: torch.ones(like.shape, dtype=given),
            execution=Execution(dtype=dtype),
        )
        assert result.x.dtype == dtype


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"S_churn": -1.0}, "S_churn: .* got -1.0"),
        ({"S_churn": math.nan}, "S_churn: .* got nan"),
        ({"S_churn": math.inf}, "S_churn: .* got inf"),
        ({"S_tmin": -0.1}, "S_tmin: .* got -0.1"),
        ({"S_noise": -1.0}, "S_noise: .* got -1.0"),
        ({"S_tmin": 2.0, "S_tmax": 1.0}, "S_tmax: expected at least S_tmin = 2.0, got 1.0"),
        ({"S_tmax": math.nan}, "S_tmax: .* got nan"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Churn(**arguments)
