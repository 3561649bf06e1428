"""The loss by σ of known denoisers against closed forms."""

from __future__ import annotations

import pytest
import torch

import diffspace as ds
from diffspace.objective import loss_by_sigma
from diffspace.oracles import Gaussian

VARIANCES = torch.tensor([0.5, 0.02, 2.0], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
DATA = Gaussian(MEAN, VARIANCES.diag())
SIGMAS = torch.tensor([0.01, 0.1, 0.5, 2.0, 80.0], dtype=torch.float64)
N = 20_000
X0 = DATA.sample(N, generator=torch.Generator().manual_seed(100))  # not the seed of the noise


def test_the_exact_denoiser_reaches_what_is_attainable():
    report = loss_by_sigma(DATA, X0, sigmas=SIGMAS, oracle=DATA, mean=MEAN)
    square = SIGMAS[:, None] ** 2
    expected = (VARIANCES * square / (VARIANCES + square)).mean(1)
    assert ((report.mse - expected).abs() < 4 * report.standard_error).all()
    assert (report.standard_error < 0.02 * expected).all()
    assert torch.equal(report.attainable, report.mse)
    assert torch.equal(report.sigma, SIGMAS)


def test_the_standard_error_is_that_of_a_gaussian():
    """e² of an error e ~ N(0, v) has variance 2v²."""
    report = loss_by_sigma(DATA, X0, sigmas=SIGMAS)
    square = SIGMAS[:, None] ** 2
    least = VARIANCES * square / (VARIANCES + square)
    expected = (2 * least**2).sum(1).sqrt() / 3 / N**0.5
    torch.testing.assert_close(report.standard_error, expected, rtol=0.05, atol=0)
    assert report.attainable is None


def test_the_trivial_denoiser_has_the_variance_of_the_data():
    report = loss_by_sigma(lambda x, sigma, cond: MEAN.expand_as(x), X0, sigmas=SIGMAS, mean=MEAN)
    torch.testing.assert_close(report.trivial, report.mse, rtol=1e-12, atol=0)
    torch.testing.assert_close(report.trivial, VARIANCES.mean().expand(5), rtol=0.03, atol=0)
    own = loss_by_sigma(DATA, X0, sigmas=SIGMAS).trivial  # about the mean of x0 itself
    torch.testing.assert_close(own, X0.var(0, correction=0).mean().expand(5), rtol=1e-12, atol=0)


def test_a_denoiser_that_does_nothing_leaves_the_noise():
    report = loss_by_sigma(lambda x, sigma, cond: x, X0, sigmas=SIGMAS)
    assert ((report.mse / SIGMAS**2 - 1).abs() < 4 * report.standard_error / SIGMAS**2).all()
    # the same noise at every level
    torch.testing.assert_close(report.mse / SIGMAS**2, (report.mse / SIGMAS**2)[:1].expand(5), rtol=1e-9, atol=0)


def test_the_batch_size_changes_nothing():
    whole = loss_by_sigma(DATA, X0[:100], sigmas=SIGMAS, oracle=DATA, batch_size=100)
    for batch_size in (1, 7, 99, 1000):
        parts = loss_by_sigma(DATA, X0[:100], sigmas=SIGMAS, oracle=DATA, batch_size=batch_size)
        for name in ("mse", "standard_error", "trivial", "attainable"):
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-12, atol=0)


def test_conditions_are_cut_with_the_data():
    """Each sample is its own label: a denoiser that looks it up makes no error."""
    x0 = X0[:100].float()
    sizes = []

    def look_up(x, sigma, cond):
        sizes.append(len(x))
        assert sigma.shape == (len(x),)
        return x0[cond["labels"]]

    report = loss_by_sigma(look_up, x0, {"labels": torch.arange(100)}, sigmas=SIGMAS[:2], batch_size=30)
    assert report.mse.tolist() == [0, 0]
    assert sizes == [30, 30, 30, 10] * 2


def test_the_seed_decides_the_noise():
    first, again, other = (loss_by_sigma(DATA, X0[:50], sigmas=SIGMAS, seed=seed).mse for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"x0": X0[:1]}, "x0, number of samples"),
        ({"batch_size": 0}, "batch_size"),
        ({"sigmas": torch.tensor([0.5, 0.0])}, "sigmas"),
        ({"sigmas": torch.tensor([torch.nan])}, "sigmas"),
    ],
)
def test_bad_input_is_named(arguments, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        loss_by_sigma(DATA, **{"x0": X0[:4], "sigmas": SIGMAS, **arguments})


def test_a_network_in_training_is_measured_without_dropout():
    torch.manual_seed(0)
    network = ds.networks.MLP((3,), width=16, dropout=0.5)
    torch.nn.init.normal_(network.output.weight)
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(0.5)).train()
    measured = [loss_by_sigma(denoiser, X0[:100], sigmas=SIGMAS).mse for _ in range(2)]
    assert torch.equal(*measured)
    assert denoiser.training
    assert all(module.training for module in denoiser.modules())
    assert torch.equal(loss_by_sigma(denoiser.eval(), X0[:100], sigmas=SIGMAS).mse, measured[0])
