"""The columns of Table 1: that the parts of each belong together, and that they sample."""

from __future__ import annotations

import math

import pytest
import torch

from diffspace import oracles, presets, sample
from diffspace.preconditioning import Preconditioned
from diffspace.process import IDDPMLevels
from diffspace.sampling import Euler, Heun

ALL = [presets.VP, presets.VE, presets.IDDPM, presets.EDM]
each = pytest.mark.parametrize("preset", ALL, ids=lambda preset: preset.name)


def vp_sigma(t):
    return math.sqrt(math.expm1(9.95 * t**2 + 0.1 * t))


def edm_sigma(fraction):
    return (80 ** (1 / 7) + fraction * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7


U = IDDPMLevels().table().flip(0).tolist()
# solver, N, and the levels i < N as Table 1 has them
SAMPLING = {
    "vp": (Euler(), 1000, lambda i, n: vp_sigma(1 + i / (n - 1) * (1e-3 - 1))),
    "ve": (Euler(), 1000, lambda i, n: math.sqrt(100**2 * (0.02**2 / 100**2) ** (i / (n - 1)))),
    "iddpm": (Euler(), 250, lambda i, n: U[math.floor(8 + (1000 - 1 - 8) / (n - 1) * i + 0.5)]),
    "edm": (Heun(), 18, lambda i, n: edm_sigma(i / (n - 1))),
}
# σ(t) and s(t)
PROCESSES = {
    "vp": (vp_sigma, lambda t: 1 / math.sqrt(math.exp(9.95 * t**2 + 0.1 * t))),
    "ve": (math.sqrt, lambda t: 1.0),
    "iddpm": (lambda t: t, lambda t: 1.0),
    "edm": (lambda t: t, lambda t: 1.0),
}

# of the end points below; they fall with N in the order of the solver
ERRORS = {"vp": 1e-3, "ve": 3e-2, "iddpm": 1e-2, "edm": 8e-2}


@each
def test_solver_and_steps_are_those_of_the_column(preset):
    solver, n, level = SAMPLING[preset.name]
    assert preset.sampler.solver == solver
    assert preset.sampler.steps.num_steps == n
    sigmas = preset.sampler.steps.sigmas(preset.preconditioning.sigma_range)
    expected = torch.tensor([*(level(i, n) for i in range(n)), 0.0], dtype=torch.float64)
    torch.testing.assert_close(sigmas, expected, rtol=1e-13, atol=0)


@each
@pytest.mark.parametrize("t", [1e-3, 0.3, 1.0])
def test_the_process_is_that_of_the_column(preset, t):
    sigma, s = PROCESSES[preset.name]
    assert preset.sampler.process.sigma(t) == pytest.approx(sigma(t), rel=1e-14)
    assert preset.sampler.process.s(t) == pytest.approx(s(t), rel=1e-14)


@each
def test_the_network_knows_every_level_that_it_is_trained_on_and_sampled_at(preset):
    low, high = preset.preconditioning.sigma_range
    generator = torch.Generator().manual_seed(0)
    for sigma in (
        preset.noise.sample(10_000, generator=generator),
        preset.sampler.steps.sigmas(preset.preconditioning.sigma_range)[:-1],
    ):
        assert ((sigma >= low) & (sigma <= high)).all()
        torch.testing.assert_close(
            preset.sampler.process.sigma(preset.sampler.process.sigma_inv(sigma)), sigma, rtol=1e-12, atol=0
        )


@each
def test_every_choice_samples_a_gaussian(preset):
    """With the exact network in the column's own preconditioning, beside the exact solution of the ODE."""
    covariance = torch.tensor([[0.3, 0.1], [0.1, 0.2]], dtype=torch.float64)
    oracle = oracles.Gaussian(torch.tensor([0.5, -0.3], dtype=torch.float64), covariance)

    class Exact(torch.nn.Module):
        def forward(self, x, c_noise, cond=None):
            """F by Eq. 7 from D, at the σ of the call."""
            c_skip, c_out, c_in = preset.preconditioning.coefficients(self.sigma)
            x = x / c_in
            return (oracle(x, self.sigma) - c_skip * x) / c_out

    class Denoiser(Preconditioned):
        def forward(self, x, sigma, cond=None):
            self.network.sigma = sigma
            return super().forward(x, sigma, cond)

    latents = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    denoiser = Denoiser(Exact(), preset.preconditioning)
    samples = sample(denoiser, latents=latents, sampler=preset.sampler)
    n = preset.sampler.steps.num_steps
    assert samples.nfe == (n if preset.sampler.solver == Euler() else 2 * n - 1)
    start = preset.sampler.steps.sigmas(preset.preconditioning.sigma_range)[0].item()
    exact = oracle.flow(latents * start, start, 0.0)
    torch.testing.assert_close(samples.x, exact, rtol=0, atol=ERRORS[preset.name])
