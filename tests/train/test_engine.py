import itertools
import math

import pytest
import torch

import edmkit as ek
from edmkit.networks import MLP
from edmkit.train import Schedule, Trainer


def make_trainer(total=4_000, seed=0, ramp=400, decay=0, width=32):
    torch.manual_seed(0)
    network = MLP((2,), width=width)
    denoiser = ek.Preconditioned(network, ek.EDMPreconditioning(0.5))
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    schedule = Schedule(total, 2e-3, ramp_images=ramp, decay_images=decay, ema_halflife_images=200)
    return Trainer(denoiser, ek.DenoisingLoss(ek.LogNormal()), optimizer, schedule, seed=seed)


def blobs(batch=100, start=0):
    for k in itertools.count(start):
        generator = torch.Generator().manual_seed(k)
        yield 0.5 * torch.randn(batch, 2, generator=generator), None


def test_learning_rate_ramps_up_and_decays_to_zero():
    schedule = Schedule(1000, 2e-3, ramp_images=100, decay_images=400)
    assert schedule.rate(0) == 0
    assert schedule.rate(50) == pytest.approx(1e-3)
    assert schedule.rate(100) == schedule.rate(600) == 2e-3
    assert schedule.rate(800) == pytest.approx(1e-3)
    assert schedule.rate(1000) == pytest.approx(0, abs=1e-12)
    assert Schedule(1000, 2e-3, ramp_images=0).rate(0) == 2e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total_images": 0}, "total_images"),
        ({"total_images": 10, "learning_rate": -1.0}, "learning_rate"),
        ({"total_images": 10, "decay_images": 11}, "decay_images"),
    ],
)
def test_bad_schedules_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**options)


def test_loop_yields_steps_and_stops_at_the_end():
    trainer = make_trainer(total=350)
    progress = list(trainer.run(blobs()))
    assert [p.step for p in progress] == [1, 2, 3, 4]
    assert [p.images for p in progress] == [100, 200, 300, 400]
    assert progress[0].learning_rate == 0
    assert progress[1].learning_rate == pytest.approx(2e-3 * 100 / 400)


def test_training_on_a_gaussian_approaches_the_exact_denoiser():
    """For data N(0, σ_d²) the ideal F is 0 at every σ, and its loss is d = 2, which nothing beats."""
    trainer = make_trainer(total=60_000, ramp=4_000, decay=30_000)
    losses = [float(p.loss) for p in trainer.run(blobs())]
    oracle = ek.oracles.Gaussian(torch.zeros(2), 0.25 * torch.eye(2))
    x, sigma = torch.randn(500, 2, generator=torch.Generator().manual_seed(1)), torch.tensor(0.5)
    learnt = trainer.ema.module(x, sigma)
    assert math.isclose(sum(losses[-200:]) / 200, 2.0, abs_tol=0.06)
    assert float((learnt - oracle(x, sigma)).square().mean().sqrt()) < 0.03


def test_a_run_taken_up_again_goes_on_exactly():
    whole = make_trainer(total=1_000)
    list(whole.run(blobs()))

    first = make_trainer(total=1_000)
    list(itertools.islice(first.run(blobs()), 4))
    state = first.state_dict()
    second = make_trainer(total=1_000)
    second.load_state_dict(state)
    list(second.run(blobs(start=second.step)))

    assert second.step == whole.step == 10
    for name, value in whole.state_dict()["ema"].items():
        assert torch.equal(value, second.state_dict()["ema"][name]), name


def test_noise_depends_on_the_seed():
    losses = [[float(p.loss) for p in make_trainer(total=200, seed=seed).run(blobs())] for seed in (0, 0, 1)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
