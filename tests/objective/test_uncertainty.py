"""The learned uncertainty against the closed form of its minimum, and what it does to a denoiser's gradient."""

import math

import pytest
import torch

from diffspace.objective import DenoisingLoss, EDMWeight, LogNormal, LogUniform, Uncertainty

DIMS = 6
WEIGHT = EDMWeight(0.5)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def shrinking(x, sigma, cond=None):
    """A denoiser of the point 0 that answers x·σ/(1 + σ²): its error is d·σ⁴/(1 + σ²)² in the mean."""
    return x * (sigma / (1 + sigma.square()))[:, None]


def best(sigma):
    """ln(λ·e²/d)."""
    return (WEIGHT(sigma) * sigma**4 / (1 + sigma.square()).square()).log()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_it_becomes_the_logarithm_of_the_weighted_error_per_dimension(reduction):
    noise = LogUniform(0.05, 20.0)
    uncertainty = Uncertainty()
    loss = DenoisingLoss(noise, WEIGHT, reduction, uncertainty=uncertainty)
    optimizer = torch.optim.Adam(uncertainty.parameters())
    generator, x0, steps = seeded(), torch.zeros(256, DIMS), 1500
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - step / steps)
        optimizer.zero_grad()
        loss(shrinking, x0, generator=generator).mean().backward()
        optimizer.step()
    sigma = torch.logspace(-1, 1, 41, dtype=torch.float64)
    assert best(sigma).max() - best(sigma).min() > 2  # so that the next line says something
    assert (uncertainty(sigma).detach() - best(sigma)).abs().max() < 0.06


def gradient_of_gain(loss, sigma):
    gain = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(1, DIMS, dtype=torch.float64, generator=seeded(1))
    value = loss.terms(lambda x, s, c: gain * x, torch.ones_like(noise), sigma, noise=noise).objective
    value.backward()
    return value.item(), gain.grad.item()


@pytest.mark.parametrize(("reduction", "count"), [("sum", DIMS), ("mean", 1)])
def test_the_gradient_of_the_denoiser_is_scaled(reduction, count):
    uncertainty = Uncertainty().double()
    plain = DenoisingLoss(LogNormal(), WEIGHT, reduction)
    learned = DenoisingLoss(LogNormal(), WEIGHT, reduction, uncertainty=uncertainty)
    sigma = torch.tensor([0.7], dtype=torch.float64)
    value, gradient = gradient_of_gain(plain, sigma)
    assert gradient_of_gain(learned, sigma) == (value, gradient)  # at first, u is 0
    with torch.no_grad():
        uncertainty.weight.copy_(torch.randn(128, generator=seeded(2)))
    u = uncertainty(sigma).item()
    assert abs(u) > 0.1
    expected = value * math.exp(-u) + count * u, gradient * math.exp(-u)
    assert gradient_of_gain(learned, sigma) == pytest.approx(expected, rel=1e-12)


def test_what_is_logged_is_the_plain_loss():
    uncertainty = Uncertainty().double()
    with torch.no_grad():
        uncertainty.weight.copy_(torch.randn(128, generator=seeded(2)))
    x0, noise = torch.ones(4, DIMS).double(), torch.randn(4, DIMS, generator=seeded()).double()
    sigma = torch.tensor([0.1, 0.5, 1.0, 4.0], dtype=torch.float64)
    plain = DenoisingLoss(LogNormal(), WEIGHT).terms(shrinking, x0, sigma, noise=noise)
    learned = DenoisingLoss(LogNormal(), WEIGHT, uncertainty=uncertainty).terms(shrinking, x0, sigma, noise=noise)
    assert torch.equal(learned.loss, plain.loss)
    torch.testing.assert_close(plain.error, plain.loss / WEIGHT(sigma), rtol=1e-12, atol=0)
    # g = 2·√λ·(D − y)/e^u in the network's output
    torch.testing.assert_close(
        learned.gradient, plain.loss * (-2 * uncertainty(sigma).detach()).exp(), rtol=1e-12, atol=0
    )


def test_every_process_has_the_same_features():
    torch.manual_seed(0)
    first = Uncertainty(32)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    second = Uncertainty(32)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, second.state_dict()[name]) for name, a in first.state_dict().items())
    # unit variance over the inputs, as the paper's features have
    sigma = LogUniform(1e-8, 1e8).sample(20_000, generator=seeded())
    values = (sigma.log()[:, None] / 4 * first.frequencies + first.phases).cos() * math.sqrt(2)
    assert values.square().mean().item() == pytest.approx(1, abs=0.02)


def test_autocast_does_not_round_it():
    uncertainty = Uncertainty()
    with torch.no_grad():
        uncertainty.weight.normal_(generator=seeded())
    sigma = LogNormal().sample(64, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = uncertainty(sigma)
    assert torch.equal(rounded, uncertainty(sigma))


def test_no_features():
    with pytest.raises(ValueError, match=r"^features: expected an integer of at least 1, got 0"):
        Uncertainty(0)
