"""Held-out loss against the closed form for a Gaussian, and that it is the same every time."""

import pytest
import torch

from diffspace.data import DataSet, InMemory
from diffspace.objective import EDMWeight, LogNormal
from diffspace.train import Validation
from diffspace.transform import Transform

STD = 0.4


class Ideal(torch.nn.Module):
    """The exact denoiser of N(0, STD²), which says whether it is in evaluation."""

    def __init__(self):
        super().__init__()
        self.weight = EDMWeight(STD)
        self.modes = set()

    def forward(self, x, sigma, cond=None):
        self.modes.add(self.training)
        sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
        return x * STD**2 / (sigma**2 + STD**2)


def gaussian(n=4000, dims=5, labels=None):
    values = STD * torch.randn(n, dims, generator=torch.Generator().manual_seed(0))
    names = () if labels is None else ("a", "b")
    return DataSet("gaussian", InMemory(values), Transform(), labels=labels, class_names=names)


@pytest.mark.parametrize(("reduction", "dims"), [("sum", 5), ("mean", 1)])
def test_the_ideal_denoiser_of_a_gaussian(reduction, dims):
    """Its error is σ²·s²/(σ² + s²) per dimension, so that with λ = 1/σ² + 1/s² the loss is 1 for each at every σ."""
    measured = Validation(gaussian(), LogNormal(), count=4000, reduction=reduction).measure(Ideal())
    sigma = measured.by_sigma.sigma
    expected = sigma**2 * STD**2 / (sigma**2 + STD**2)
    torch.testing.assert_close(measured.by_sigma.mse, expected, rtol=0.03, atol=0)
    assert measured.loss == pytest.approx(dims, rel=0.02)
    torch.testing.assert_close(measured.by_sigma.trivial, torch.full_like(sigma, STD**2), rtol=0.03, atol=0)
    probability = torch.special.ndtr((sigma.log() + 1.2) / 1.2)
    torch.testing.assert_close(probability, (torch.arange(16).double() + 0.5) / 16, rtol=1e-9, atol=0)
    assert measured.record() == {
        "loss": measured.loss,
        "sigma": sigma.tolist(),
        "mse": measured.by_sigma.mse.tolist(),
        "trivial": measured.by_sigma.trivial.tolist(),
    }


def test_the_same_every_time_whatever_the_batch():
    data, denoiser = gaussian(300), Ideal()
    first = Validation(data, LogNormal(), count=100, batch_size=100)
    torch.manual_seed(5)
    losses = {first.measure(denoiser).loss, first.measure(denoiser).loss}
    again = Validation(data, LogNormal(), count=100, batch_size=100).measure(denoiser)
    assert losses == {again.loss}
    parts = Validation(data, LogNormal(), count=100, batch_size=7).measure(denoiser)
    assert parts.loss == pytest.approx(again.loss, rel=1e-6)
    assert Validation(data, LogNormal(), count=100, seed=1).measure(denoiser).loss != again.loss


def test_a_module_is_in_evaluation_meanwhile():
    denoiser = Ideal().train()
    Validation(gaussian(20), LogNormal(), count=8).measure(denoiser)
    assert (denoiser.modes, denoiser.training) == ({False}, True)


def test_samples_come_from_the_whole_set_with_their_labels():
    labels = (torch.arange(100) >= 50).long()
    data = gaussian(100, labels=labels)
    held_out = Validation(data, LogNormal(), count=10)
    seen = []

    def denoiser(x, sigma, cond):
        seen.append(cond and cond["labels"])
        return x

    denoiser.weight = EDMWeight(STD)
    held_out.measure(denoiser)
    assert torch.equal(seen[0], labels[data.sample_numbers(10)])
    assert torch.equal(held_out.x0, data.batch(data.sample_numbers(10)))
    assert set(seen[0].tolist()) == {0, 1}
    Validation(data, LogNormal(), count=10, conditional=False).measure(denoiser)
    assert seen[-1] is None


def test_bad_arguments_are_named():
    for name, value in (("count", 1), ("levels", 0)):
        with pytest.raises(ValueError, match=rf"^{name}: expected an integer of at least .*, got {value}"):
            Validation(gaussian(20), LogNormal(), **{name: value})
    with pytest.raises(ValueError, match=r"^data: expected at least 2 held-out samples, got 1"):
        Validation(gaussian(1), LogNormal())
    with pytest.raises(ValueError, match=r"^denoiser: has no weight"):
        Validation(gaussian(20), LogNormal()).measure(lambda x, sigma, cond: x)
