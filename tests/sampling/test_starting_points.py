"""Where samples start: seeds, latents, a state in the middle; and what partial sampling and clipping do."""

import pytest
import torch

from diffspace import (
    DiscreteLevels,
    EDMPreconditioning,
    EDMSteps,
    Euler,
    GivenSteps,
    GivenTimes,
    Heun,
    LevelIndex,
    Preconditioned,
    Process,
    VPSchedule,
    encode,
    initial_latents,
    sample,
)
from diffspace.oracles import Gaussian
from diffspace.sampling import Execution, Sampler, sample_from

PROCESSES = {"EDM": Process(), "VP": Process(VPSchedule())}
EVERY_PROCESS = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


@EVERY_PROCESS
def test_seeds_their_latents_and_their_state_lead_to_one_end(mixture, process):
    options = {"sampler": Sampler(EDMSteps(9), process=process)}
    by_seed = sample(mixture, seeds=range(4), **options)
    latents = initial_latents(range(4), (2,))
    by_latents = sample(mixture, latents=latents, **options)
    by_state = sample_from(mixture, latents.double() * 80, 80.0, **options)
    assert torch.equal(by_latents.x, by_seed.x)
    assert torch.equal(by_state.x, by_seed.x)
    assert (by_seed.seeds, by_latents.seeds) == ((0, 1, 2, 3), None)


@EVERY_PROCESS
def test_a_state_at_any_level_is_led_to_the_exact_end(process):
    gaussian = Gaussian(torch.tensor([0.3, -0.5]), torch.tensor([[0.5, 0.2], [0.2, 0.3]]))
    gaussian.sigma_data = 0.5
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 4
    for start in (0.7, 4.0, 37.5):
        steps = EDMSteps(400, terminal="sigma_min")
        result = sample_from(gaussian, x, start, sampler=Sampler(steps, process=process))
        assert float(result.sigmas[0]) == start
        assert float(result.sigmas[-1]) == pytest.approx(0.002)
        torch.testing.assert_close(result.x, gaussian.flow(x, start, 0.002), rtol=1e-4, atol=1e-4)


def test_the_steps_of_a_partial_run_are_spaced_anew(mixture):
    x = torch.ones(2, 2, dtype=torch.float64)
    result = sample_from(mixture, x, 1.5, sampler=Sampler(EDMSteps(7)))
    assert result.sigmas.tolist() == pytest.approx(EDMSteps(7, sigma_max=1.5).sigmas().tolist(), rel=1e-12)
    assert result.num_steps == 7


def test_stopping_and_going_on_is_the_whole_run(mixture):
    levels = EDMSteps(8).sigmas().tolist()
    whole = sample(mixture, seeds=range(3), steps=GivenSteps(tuple(levels)), execution=Execution(trajectory=True))
    rest = sample_from(mixture, whole.trajectory.x[3], levels[3], sampler=Sampler(GivenSteps(tuple(levels[3:]))))
    assert torch.equal(rest.x, whole.x)


def test_the_model_s_shape_is_the_default(mixture):
    assert sample(mixture, seeds=[0], steps=EDMSteps(2)).x.shape == (1, 2)


class Bounded:
    sigma_min, sigma_max = 0.05, 10.0

    def __call__(self, x, sigma, cond=None):
        assert 0.05 <= float(sigma) <= 10.0
        return x / (1 + sigma**2)


@pytest.mark.parametrize(
    "steps", [EDMSteps(5), EDMSteps(5, sigma_min=0.1), EDMSteps(5, 0.05, 10.0), EDMSteps(5, terminal="sigma_min")]
)
def test_steps_stay_within_the_model_s_range(steps):
    result = sample(Bounded(), shape=(2,), seeds=[0], steps=steps)
    assert float(result.sigmas[0]) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (EDMSteps(5, sigma_max=80.0), r"sigma_max: 80 is outside the model's range \[0.05, 10\]"),
        (EDMSteps(5, sigma_min=0.002), r"sigma_min: 0.002 is outside the model's range \[0.05, 10\]"),
        (GivenSteps((20.0, 1.0, 0.0)), "levels: from 20 to 1 are outside the model's range"),
        (GivenSteps((2.0, 0.01)), "levels: from 2 to 0.01 are outside the model's range"),
        (GivenTimes((20.0, 1.0, 0.0)), r"times: σ\(t\) from 1 to 20 leaves the model's range"),
    ],
)
def test_a_range_outside_the_model_s_is_an_error(steps, message):
    with pytest.raises(ValueError, match=message):
        sample(Bounded(), shape=(2,), seeds=[0], steps=steps)
    with pytest.raises(ValueError, match=message):
        encode(Bounded(), torch.zeros(1, 2), sampler=Sampler(steps))


def test_a_range_outside_the_model_s_is_clipped_on_demand():
    for steps in (EDMSteps(5, 0.002, 80.0, clip=True), GivenSteps((80.0, 1.0, 0.002), clip=True)):
        result = sample(Bounded(), shape=(2,), seeds=[0], steps=steps)
        assert float(result.sigmas[0]) == pytest.approx(10.0)
        assert float(result.sigmas[result.sigmas > 0].min()) == pytest.approx(0.05)


def test_a_start_outside_the_model_s_range_is_an_error():
    for start in (0.01, 11.0):
        with pytest.raises(
            ValueError, match=f"sigma_start: expected a level above sigma_min = 0.05, at most 10, got {start:g}"
        ):
            sample_from(Bounded(), torch.zeros(1, 2), start)


class Discrete:
    """A model that knows fifty levels."""

    times = LevelIndex(DiscreteLevels(tuple(0.01 * 1.2**k for k in range(50))))
    sigma_min, sigma_max = times.sigma_range
    round_sigma = staticmethod(times.round_sigma)

    def __call__(self, x, sigma, cond=None):
        return x / (1 + sigma**2)


@pytest.mark.parametrize("steps", [EDMSteps(20), EDMSteps(20, terminal="sigma_min"), GivenSteps((3.0, 0.5, 0.0))])
def test_levels_are_rounded_to_those_of_a_discrete_model(steps):
    sigmas = sample(Discrete(), shape=(2,), seeds=[0], steps=steps).sigmas
    assert bool(torch.isin(sigmas[sigmas > 0], Discrete.times.levels.table()).all())


def test_encoding_starts_at_sigma_min_and_ends_at_sigma_max(mixture):
    x = torch.zeros(3, 2, dtype=torch.float64)
    result = encode(
        mixture, x, sampler=Sampler(EDMSteps(terminal="sigma_min"), Euler()), execution=Execution(trajectory=True)
    )
    assert result.sigmas.tolist() == EDMSteps(18, terminal="sigma_min").sigmas().flip(0).tolist()
    assert torch.equal(result.trajectory.x[0], x)
    assert result.nfe == 18
    assert torch.equal(
        encode(
            mixture, x, sampler=Sampler(EDMSteps(terminal="sigma_min"), Euler()), execution=Execution(batch_size=2)
        ).x,
        result.x,
    )


def test_encoding_cannot_start_at_zero(mixture):
    for steps in (EDMSteps(18), GivenSteps((1.0, 0.0)), GivenTimes((1.0, 0.0))):
        with pytest.raises(ValueError, match="steps: a run upward cannot start at σ = 0"):
            encode(mixture, torch.zeros(3, 2), sampler=Sampler(steps))


def test_encoding_checks_its_input(mixture):
    with pytest.raises(ValueError, match="x: expected at least one"):
        encode(mixture, torch.zeros(0, 2))
    with pytest.raises(ValueError, match=r"shape: \(3,\), but the model was made for samples like \(2,\)"):
        encode(mixture, torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"x: not finite in samples \[1\]"):
        encode(mixture, torch.tensor([[0.0, 0.0], [torch.nan, 0.0]]))
    with pytest.raises(ValueError, match="batch_size: expected"):
        encode(mixture, torch.zeros(4, 2), execution=Execution(batch_size=0))


class Blur(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, c_noise, cond=None):
        return self.layer(x)


def test_a_network_is_encoded_and_decoded_over_its_own_range():
    torch.manual_seed(0)
    model = Preconditioned(Blur(), EDMPreconditioning(0.5, sigma_min=0.01, sigma_max=20.0))
    steps = EDMSteps(60, terminal="sigma_min")
    x = torch.rand(2, 1, 4, 4)
    encoded = encode(model, x, sampler=Sampler(steps, Heun()))
    assert (float(encoded.sigmas[0]), float(encoded.sigmas[-1])) == pytest.approx((0.01, 20.0))
    decoded = sample_from(model, encoded.x, 20.0, sampler=Sampler(steps))
    torch.testing.assert_close(decoded.x, x.double(), rtol=0, atol=1e-3)
