"""Training with conditions: what is learnt, exact resumption, augmentation."""

import numpy as np
import pytest
import torch
from small_runs import begin_and_stop, begin_and_train, make_run, resume_and_train, same_weights

import diffspace as ds
from diffspace.data import Augmentation, batches, load_data
from diffspace.train import LearningRate, Trainer


@pytest.fixture
def scaled(tmp_path):
    """Points that are a linear map of their condition v, with noise of standard deviation 0.05."""
    rng = np.random.default_rng(0)
    v = rng.normal(size=(1000, 2)) * [1.0, 100.0]
    x = v @ np.array([[0.4, 0.1], [0.001, -0.004]]) + 0.05 * rng.normal(size=(1000, 2))
    np.savez(tmp_path / "points.npz", x=x, v=v)
    return tmp_path / "points.npz"


def test_a_trainer_learns_the_mean_given_the_condition(scaled):
    data = load_data(scaled, normalize="none")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ds.networks.MLP((2,), width=32, label_dropout=0.1, conditioning=data.conditioning)
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(sigma_data=0.5))
    optimizer = torch.optim.Adam(denoiser.parameters())
    trainer = Trainer(denoiser, ds.DenoisingLoss(ds.LogNormal(0.5, 1.0)), optimizer, LearningRate(75_000, 3e-3, 0))
    for _ in trainer.run(batches(data, 250, seed=0)):
        pass
    denoiser.eval()
    v = data.cond(torch.arange(200))["v"]
    mean = v @ torch.tensor([[0.4, 0.1], [0.001, -0.004]])
    x, sigma = 20 * torch.randn(200, 2), torch.tensor(20.0)
    assert (denoiser(x, sigma, {"v": v}) - mean).square().mean().sqrt() < 0.1  # x says next to nothing
    free = denoiser(x, sigma)
    assert (free - data.batch().mean(0)).square().mean().sqrt() < 0.15
    assert mean.std() > 0.3


def test_a_run_with_conditions_resumes_exactly(scaled, tmp_path):
    config = {
        "data": {"source": str(scaled)},
        "network": {"kind": "mlp", "width": 16, "label_dropout": 0.3},
        "preconditioning": {"kind": "edm", "sigma_data": 0.5},
        "noise": {"kind": "lognormal"},
        "images": 1000,
        "batch_size": 100,
        "ramp_images": 0,
        "ema_halflife_images": 100,
        "held_out_images": 500,
    }
    whole = make_run(tmp_path / "whole", config=config)
    begin_and_train(whole)
    begin_and_stop(make_run(tmp_path / "parts", config=config), 4)
    resumed = make_run(tmp_path / "parts", config=config)
    resume_and_train(resumed)
    assert same_weights(whole, resumed)
    assert whole.model().conditioning["v"].shape == (2,)


def test_augmentation_does_not_move_samples_alone():
    image = ds.Condition.of(torch.randn(8, 1, 8, 8))
    network = ds.networks.DDPMpp(
        (1, 8, 8),
        model_channels=8,
        channel_mult=(1,),
        num_blocks=1,
        attn_resolutions=(),
        augment_dim=9,
        conditioning={"low": image},
    )
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning())
    optimizer = torch.optim.Adam(denoiser.parameters())
    augment = Augmentation(xflip=1.0)
    trainer = Trainer(denoiser, ds.DenoisingLoss(), optimizer, LearningRate(100, 1e-3, 0), augment=augment)
    with pytest.raises(ValueError, match="augment: would move the samples but not the condition 'low'"):
        next(trainer.run([(torch.zeros(4, 1, 8, 8), {"low": torch.zeros(4, 1, 8, 8)})]))
