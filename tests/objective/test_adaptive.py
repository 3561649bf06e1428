"""Adaptive draws: the expected loss stays, the variance falls as the theory says, and a saved state goes on exactly."""

import copy
import math

import pytest
import scipy.integrate
import scipy.stats
import torch

from diffspace.objective import AdaptiveNoise, DenoisingLoss, IDDPMUniform, LogNormal, LogUniform, UniformWeight
from diffspace.preconditioning import EDMPreconditioning, Preconditioned

BASE = LogNormal()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gradient(sigma):
    """A profile of E[‖g‖² | σ] that falls from 4 to 0.02 within the training noise."""
    return 0.02 + 4 / (1 + (sigma / 0.2) ** 3)


def expected(function):
    """E under the base distribution."""
    value, _ = scipy.integrate.quad(
        lambda z: scipy.stats.norm.pdf(z) * function(math.exp(BASE.P_mean + BASE.P_std * z)), -12, 12, epsrel=1e-10
    )
    return value


def adapted(updates=4, **options):
    noise, generator = AdaptiveNoise(BASE, **options), seeded()
    for _ in range(updates):
        sigma = noise.sample(20_000, generator=generator)
        noise.statistics.add(sigma, gradient(sigma))
        noise.update()
    return noise


def test_before_the_first_update_it_is_the_base():
    noise = AdaptiveNoise(BASE)
    noise.update()
    torch.testing.assert_close(
        noise.sample(1000, stratified=True, generator=seeded()),
        BASE.sample(1000, stratified=True, generator=seeded()),
        rtol=1e-9,
        atol=0,
    )
    assert bool((noise.importance(BASE.sample(100, generator=seeded())) == 1).all())


def test_draws_have_the_density_that_it_says():
    """The share of draws between two levels against the integral of p·h."""
    noise = adapted()
    drawn = noise.sample(100_000, stratified=True, generator=seeded(1))
    for level in (0.05, 0.1, 0.2, 0.5, 1.0, 3.0):
        below = torch.special.ndtr(torch.tensor((math.log(level) - BASE.P_mean) / BASE.P_std, dtype=torch.float64))
        filled = (below * noise.bins - torch.arange(noise.bins)).clamp(0, 1)
        share = float((noise.density * filled).mean())
        assert abs(share - float(below)) > 0.01  # it is not the base's
        assert float((drawn < level).double().mean()) == pytest.approx(share, abs=2e-5)


@pytest.mark.parametrize("stratified", [False, True])
def test_the_expected_loss_is_that_of_the_base(stratified):
    noise = adapted()
    loss = DenoisingLoss(noise, UniformWeight(), stratified=stratified)

    def denoiser(x, sigma, cond=None):
        return (sigma / (1 + sigma))[:, None].expand_as(x)

    values = loss(denoiser, torch.zeros(200_000, 1, dtype=torch.float64), generator=seeded(2))
    truth = expected(lambda sigma: (sigma / (1 + sigma)) ** 2)
    assert abs(values.mean().item() - truth) < 4 * values.std().item() / math.sqrt(len(values))
    assert values.std().item() / math.sqrt(len(values)) < 0.006 * truth


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_the_second_moment_of_the_gradient_falls_as_predicted(share):
    """E_q[(p/q)²·G] for h = share + (1 − share)·√G/E√G, by quadrature; √G is wrong in no bin by more than its width."""
    noise = adapted(bins=64, share=share)
    sigma = noise.sample(400_000, stratified=True, generator=seeded(3))
    measured = float((noise.importance(sigma).square() * gradient(sigma)).mean())
    root = expected(lambda s: math.sqrt(gradient(s)))
    predicted = expected(lambda s: gradient(s) / (share + (1 - share) * math.sqrt(gradient(s)) / root))
    plain = expected(gradient)
    assert predicted < 0.8 * plain
    assert root**2 < predicted  # nothing is below the bound of Cauchy and Schwarz
    assert measured == pytest.approx(predicted, rel=0.01)


def test_the_variance_of_a_training_gradient_falls():
    """The gradient of a bias that no batch moves in the mean, from batches of 16: its variance has the same factor."""
    noise = adapted(bins=64, share=0.1)
    root, share, generator = expected(lambda s: math.sqrt(gradient(s))), 0.1, seeded(4)
    predicted = expected(lambda s: gradient(s) / (share + (1 - share) * math.sqrt(gradient(s)) / root))

    def variance(draws):
        means = []
        for _ in range(4000):
            sigma = draws.sample(16, stratified=True, generator=generator)
            g = gradient(sigma).sqrt() * torch.randn(16, dtype=torch.float64, generator=generator)
            means.append((draws.importance(sigma) * g).mean())
        return float(torch.stack(means).var())

    # 4000 normal numbers tell their variance to 2.2 %
    assert variance(noise) / variance(BASE) == pytest.approx(predicted / expected(gradient), rel=0.1)


def test_no_level_starves():
    noise = AdaptiveNoise(BASE, share=0.2)
    sigma = BASE.sample(10_000, generator=seeded())
    noise.statistics.add(sigma, torch.where(sigma < 0.1, 1e6, 0.0))
    noise.update()
    assert float(noise.importance(sigma).max()) == pytest.approx(5)
    assert float(noise.density.mean()) == pytest.approx(1)


def test_a_saved_state_goes_on_exactly():
    def advance(noise, steps, generator):
        drawn = []
        for step in steps:
            sigma = noise.sample(32, stratified=True, generator=generator)
            noise.statistics.add(sigma, gradient(sigma))
            if step % 5 == 4:
                noise.update()
            drawn.append(sigma)
        return torch.cat(drawn)

    whole, generator = AdaptiveNoise(BASE), seeded()
    advance(whole, range(13), generator)
    state = copy.deepcopy(whole.state_dict())
    resumed = AdaptiveNoise(BASE)
    resumed.load_state_dict(state)
    mark = generator.get_state()
    further = advance(whole, range(13, 30), generator)
    assert not torch.equal(whole.density, state["_extra_state"]["density"])
    assert torch.equal(advance(resumed, range(13, 30), generator.set_state(mark)), further)
    assert torch.equal(resumed.density, whole.density)


def test_processes_whose_sums_are_reduced_agree():
    first, second, alone = (AdaptiveNoise(BASE) for _ in range(3))
    for step in range(3):
        sigma = BASE.sample(64, generator=seeded(step))
        first.statistics.add(sigma[:40], gradient(sigma[:40]))
        second.statistics.add(sigma[40:], gradient(sigma[40:]))
        alone.statistics.add(sigma, gradient(sigma))
        total = first.statistics.sums + second.statistics.sums
        for noise in (first, second):
            noise.statistics.sums.copy_(total)
            noise.update()
        alone.update()
    assert torch.equal(first.density, second.density)
    torch.testing.assert_close(first.density, alone.density, rtol=1e-12, atol=0)


def test_bins_without_draws_take_the_mean():
    noise = AdaptiveNoise(LogUniform(0.01, 1.0), bins=4, share=0.5)
    noise.statistics.add(torch.tensor([0.02, 0.05]), torch.tensor([1.0, 9.0]))
    noise.update()
    torch.testing.assert_close(noise.density, 0.5 + 0.5 * torch.tensor([1, 3, 2, 2]).double() / 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("weight", [None, UniformWeight()])
def test_the_gradient_in_the_output_of_the_network(weight):
    """A quarter of its squared norm by autograd, with the denoiser's own weight and with another."""

    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.outputs = []

        def forward(self, x, c_noise, cond=None):
            self.outputs.append(torch.ones_like(x, requires_grad=True))
            return self.outputs[-1]

    network, generator = Constant(), seeded(5)
    loss = DenoisingLoss(BASE, weight)
    x0, noise = (torch.randn(6, 3, generator=generator) for _ in range(2))
    sigma = BASE.sample(6, generator=generator)
    terms = loss.terms(Preconditioned(network, EDMPreconditioning(0.5)), x0, sigma, noise=noise)
    (g,) = torch.autograd.grad(terms.objective.sum(), network.outputs)
    torch.testing.assert_close(terms.gradient, g.square().sum(1) / 4, rtol=1e-4, atol=0)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"^bins: expected an integer of at least 2, got 1"):
        AdaptiveNoise(BASE, bins=1)
    with pytest.raises(ValueError, match=r"^share: expected a number in \(0, 1\], got 0"):
        AdaptiveNoise(BASE, share=0.0)
    with pytest.raises(ValueError, match=r"^base: IDDPMUniform.*two of the 32 bins"):
        AdaptiveNoise(IDDPMUniform())
    with pytest.raises(ValueError, match=r"^density: expected shape \(32,\), got \(8,\)"):
        AdaptiveNoise(BASE).load_state_dict(AdaptiveNoise(BASE, bins=8).state_dict())
