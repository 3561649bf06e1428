import copy
import itertools
import math

import pytest
import torch

import diffspace as ds
from diffspace.averages import EMA, HalfLife
from diffspace.networks import MLP
from diffspace.train import LearningRate, NonFinite, Trainer


def make_trainer(total=4_000, seed=0, ramp=400, decay=0, width=32, **options):
    torch.manual_seed(0)
    network = MLP((2,), width=width)
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(0.5))
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    schedule = LearningRate(total, 2e-3, ramp_images=ramp, decay_images=decay)
    averages = [EMA(denoiser, HalfLife(200))]
    return Trainer(denoiser, ds.DenoisingLoss(ds.LogNormal()), optimizer, schedule, averages, seed=seed, **options)


def blobs(batch=100, start=0):
    for k in itertools.count(start):
        generator = torch.Generator().manual_seed(k)
        yield 0.5 * torch.randn(batch, 2, generator=generator), None


def test_learning_rate_ramps_up_and_decays_to_zero():
    schedule = LearningRate(1000, 2e-3, ramp_images=100, decay_images=400)
    assert schedule.at(0) == 0
    assert schedule.at(50) == pytest.approx(1e-3)
    assert schedule.at(100) == schedule.at(600) == 2e-3
    assert schedule.at(800) == pytest.approx(1e-3)
    assert schedule.at(1000) == pytest.approx(0, abs=1e-12)
    assert LearningRate(1000, 2e-3, ramp_images=0).at(0) == 2e-3


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
        LearningRate(**options)


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
    oracle = ds.oracles.Gaussian(torch.zeros(2), 0.25 * torch.eye(2))
    x, sigma = torch.randn(500, 2, generator=torch.Generator().manual_seed(1)), torch.tensor(0.5)
    learnt = trainer.averages[0].module(x, sigma)
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
    for name, value in whole.state_dict()["averages"]["0"].items():
        assert torch.equal(value, second.state_dict()["averages"]["0"][name]), name


def test_noise_depends_on_the_seed():
    losses = [[float(p.loss) for p in make_trainer(total=200, seed=seed).run(blobs())] for seed in (0, 0, 1)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


class Small(MLP):
    """A network whose memory holds a few samples."""

    most = 10

    def forward(self, x, c_noise, cond=None):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(x, c_noise, cond)


def test_a_batch_that_does_not_fit_is_divided_until_it_does():
    notes = []
    whole, divided = make_trainer(total=1_000), make_trainer(total=1_000, warn=notes.append)
    divided.denoiser.network.__class__ = Small
    for a, b in zip(whole.run(blobs()), divided.run(blobs()), strict=True):
        assert float(b.loss) == pytest.approx(float(a.loss), rel=1e-5)
    assert divided.accumulate.micro_batch == 7
    assert notes == [
        f"{n} samples do not fit the memory of cpu; going on with {m}"
        for n, m in ((100, 50), (50, 25), (25, 13), (13, 7))
    ]
    divided.denoiser.network.most = 0
    divided.learning_rate = LearningRate(2_000, 2e-3, ramp_images=0)
    with pytest.raises(MemoryError, match="micro_batch: not even 1 sample fits the memory of cpu"):
        next(divided.run(blobs()))


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    trainer = make_trainer()
    trainer.denoiser.network.forward = lambda *_: (_ for _ in ()).throw(RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        next(trainer.run(blobs()))


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(fused):
    trainer = make_trainer(total=10_000, ramp=0)
    trainer.optimizer = torch.optim.Adam(trainer.denoiser.parameters(), fused=fused)
    trainer.__post_init__()
    list(itertools.islice(trainer.run(blobs()), 5))

    def state():
        kept = trainer.state_dict()
        return {name: kept[name] for name in ("denoiser", "optimizer")}

    before = copy.deepcopy(state())
    (progress,) = itertools.islice(trainer.run([(torch.full((100, 2), math.inf), None)]), 1)
    assert not progress.grad_norm.isfinite()
    assert trainer.skipped == 1
    assert trainer.step == 6
    after = state()
    for name, values in before["optimizer"].items():
        for key, value in values.items():
            assert torch.equal(value, after["optimizer"][name][key]), (name, key)
    for name, value in before["denoiser"].items():
        assert torch.equal(value, after["denoiser"][name]), name
    list(itertools.islice(trainer.run(blobs()), 5))
    assert trainer.skipped == 1
    assert not torch.equal(before["denoiser"]["network.output.weight"], trainer.denoiser.network.output.weight)


def test_many_in_a_row_end_the_training_with_the_last_batch():
    trainer = make_trainer(total=10_000, max_skipped=3)
    bad = [(torch.full((4, 2), math.nan), None)]
    batches = [*bad * 2, next(blobs(4)), *bad * 5]
    with pytest.raises(NonFinite, match="gradients of 3 steps in a row, up to step 6, are not finite") as caught:
        list(trainer.run(batches))
    assert trainer.skipped == 5
    assert caught.value.batch.x.isnan().all()


def test_gradients_are_scaled_down_to_a_norm():
    free, clipped = make_trainer(ramp=0), make_trainer(ramp=0)
    clipped.max_grad_norm = 1e-3
    for trainer in (free, clipped):
        trainer.optimizer = torch.optim.SGD(trainer.denoiser.parameters(), lr=1.0)
        trainer.learning_rate = LearningRate(100, 1.0, ramp_images=0)
        trainer.__post_init__()
        start = [p.detach().clone() for p in trainer.denoiser.parameters()]
        (progress,) = trainer.run(blobs())
        ends = [p.detach() for p in trainer.denoiser.parameters()]
        moved = torch.cat([(p - q).flatten() for p, q in zip(ends, start, strict=True)])
        assert float(progress.grad_norm) > 0.1
        wanted = 1e-3 if trainer is clipped else float(progress.grad_norm)
        assert float(moved.norm()) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_what_float32_does(precision):
    exact, rounded = make_trainer(total=6_000), make_trainer(total=6_000, precision=precision)
    losses = [[float(p.loss) for p in trainer.run(blobs())] for trainer in (exact, rounded)]
    assert all(p.dtype == torch.float32 for p in rounded.denoiser.parameters())
    assert sum(losses[1]) == pytest.approx(sum(losses[0]), rel=2e-2)
    assert losses[0] != losses[1]
    state = rounded.state_dict()
    assert bool(state["trainer"]["scaler"]) == (precision == "float16")
    again = make_trainer(total=7_000, precision=precision)
    again.load_state_dict(state)
    assert again.accumulate.scaler.state_dict() == rounded.accumulate.scaler.state_dict()
    assert math.isfinite(sum(float(p.loss) for p in again.run(blobs())))
