import pytest
import torch

from edmkit.train import EMA, ema_beta


def test_half_life_means_half_of_the_distance_is_left():
    torch.manual_seed(0)
    target, source = torch.nn.Linear(3, 2).double(), torch.nn.Linear(3, 2).double()
    ema = EMA(target)
    start = [p.clone() for p in ema.module.parameters()]
    for _ in range(10):
        ema.update(source, ema_beta(batch_size=50, images=10_000, halflife_images=500, ramp_ratio=None))
    for before, after, goal in zip(start, ema.module.parameters(), source.parameters(), strict=True):
        torch.testing.assert_close(after - goal, 0.5 * (before - goal), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("images", "halflife"), [(0, 0.0), (1_000, 50.0), (10_000, 500.0), (1_000_000, 500.0)])
def test_ramp_limits_the_half_life(images, halflife):
    beta = ema_beta(batch_size=10, images=images, halflife_images=500, ramp_ratio=0.05)
    assert beta == pytest.approx(0.5 ** (10 / halflife) if halflife else 0.0)


def test_buffers_are_copied_and_no_gradients_are_kept():
    source = torch.nn.BatchNorm1d(2)
    ema = EMA(source)
    source.running_mean += 3.0
    ema.update(source, 0.9)
    assert torch.equal(ema.module.running_mean, source.running_mean)
    assert not any(p.requires_grad for p in ema.module.parameters())
    assert not ema.module.training
