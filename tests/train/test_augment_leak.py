"""What the labels are for: a model trained on flipped images makes none, and one that is not told of the flips does."""

import itertools
import math

import pytest
import torch

import diffspace as ds
from diffspace.averages import EMA, HalfLife
from diffspace.data.augmentation import Augmentation
from diffspace.networks import MLP
from diffspace.train import LearningRate, Trainer

IMAGES, BATCH = 60_000, 64


def shaded(n, generator):
    """Images that are always brighter on the left and at the top, by different amounts."""
    ramp = torch.linspace(1, -1, 4)
    across, down = 0.3 + 0.5 * torch.rand(2, n, 1, 1, 1, generator=generator)
    return across * ramp + down * ramp[:, None] + 0.05 * torch.randn(n, 1, 4, 4, generator=generator)


def batches():
    for k in itertools.count():
        yield shaded(BATCH, torch.Generator().manual_seed(k)), None


class Untold(ds.DenoisingLoss):
    def terms(self, denoiser, x0, sigma, cond=None, *, noise):
        return super().terms(denoiser, x0, sigma, noise=noise)


def trained(*, told):
    """The averaged model after training with each flip on half of the images; `told`, whether it sees the labels."""
    augmentation = Augmentation(xflip=math.inf, yflip=math.inf)
    torch.manual_seed(0)
    network = MLP((1, 4, 4), width=64, depth=2, augment_dim=augmentation.label_dim)
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(0.5))
    objective = (ds.DenoisingLoss if told else Untold)(ds.LogNormal())
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    schedule = LearningRate(IMAGES, 4e-3, ramp_images=2_000, decay_images=IMAGES // 2)
    averages = [EMA(denoiser, HalfLife(5_000))]
    trainer = Trainer(denoiser, objective, optimizer, schedule, averages, augment=augmentation)
    for _ in trainer.run(batches()):
        pass
    return averages[0].module


def orientations(x):
    """The shares of images that are brighter on the left, and at the top."""
    left = x[..., :2].mean((1, 2, 3)) > x[..., 2:].mean((1, 2, 3))
    top = x[..., :2, :].mean((1, 2, 3)) > x[..., 2:, :].mean((1, 2, 3))
    return float(left.double().mean()), float(top.double().mean())


@pytest.mark.slow
def test_flips_leak_only_into_a_model_that_is_not_told_of_them():
    n = 400
    assert orientations(shaded(n, torch.Generator().manual_seed(9))) == (1.0, 1.0)

    def made(model, **cond):
        return orientations(ds.sample(model, shape=(1, 4, 4), seeds=range(n), steps=ds.EDMSteps(12), **cond).x)

    told = trained(told=True)
    left, top = made(told)
    assert min(left, top) > 0.985
    left, top = made(told, cond={"augment": torch.tensor([[1.0, 0.0]]).expand(n, 2)})
    assert left < 0.015
    assert top > 0.985
    for share in made(trained(told=False)):
        assert abs(share - 0.5) < 0.15
