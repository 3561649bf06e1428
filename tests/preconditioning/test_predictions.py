"""What each kind of network predicts: given exactly that, `Preconditioned` returns the exact denoiser.

The networks here know the data, N(μ, Σ). They undo c_in and c_noise by the formulas of Table 1, written
down again, so that a slip in any of the four functions shows.
"""

from __future__ import annotations

import math

import pytest
import torch

import diffspace as ds
from diffspace.oracles import Gaussian
from diffspace.process import CosineSchedule, DiscreteLevels, IDDPMLevels

MEAN = torch.tensor([[0.3, -0.1, 0.2]], dtype=torch.float64)
ROOT = torch.tensor([[0.5, 0, 0], [0.2, 0.3, 0], [-0.4, 0.1, 0.6]], dtype=torch.float64)
DATA = Gaussian(MEAN, ROOT @ ROOT.T)
DDPM = DiscreteLevels.from_alphas_cumprod(torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0))


class ExactNetwork(torch.nn.Module):
    """`predict(D, x, σ)` at the σ that c_noise stands for and the x that was scaled by c_in."""

    def __init__(self, sigma_of, c_in, predict):
        super().__init__()
        self.sigma_of, self.c_in, self.predict = sigma_of, c_in, predict

    def forward(self, x, c_noise, cond=None):
        sigma = self.sigma_of(c_noise.double())
        column = sigma[:, None, None]
        x = x.double() / self.c_in(column)
        return self.predict(DATA(x, sigma), x, column)


def unit(sigma):
    return (1 + sigma**2).rsqrt()


def noise(denoised, x, sigma):
    return (x - denoised) / sigma


def velocity(denoised, x, sigma):
    return (noise(denoised, x, sigma) - sigma * denoised) / (1 + sigma**2).sqrt()


def vp_sigma(c_noise):
    t = c_noise / 999
    return torch.expm1(9.95 * t**2 + 0.1 * t).sqrt()


def cosine_sigma(c_noise):
    theta = 0.5 * math.pi * (c_noise + 0.008) / 1.008
    return ((math.cos(0.5 * math.pi * 0.008 / 1.008) / theta.cos()) ** 2 - 1).sqrt()


def edm_target(denoised, x, sigma):
    total = sigma**2 + 0.25
    return (denoised - 0.25 / total * x) * total.sqrt() / (0.5 * sigma)


def table_of(levels):
    table = levels.table()
    return lambda c_noise: table[c_noise.long()]


SIGMAS = torch.tensor([0.02, 0.1, 0.5, 1.0, 3.0, 40.0], dtype=torch.float64)
CASES = {
    "edm": (ds.EDMPreconditioning(), lambda c: (4 * c).exp(), lambda s: (s**2 + 0.25).rsqrt(), edm_target),
    "vp": (ds.VPPreconditioning(), vp_sigma, unit, noise),
    "ve": (ds.VEPreconditioning(), lambda c: 2 * c.exp(), torch.ones_like, lambda d, x, s: -noise(d, x, s)),
    "iddpm": (ds.IDDPMPreconditioning(), table_of(IDDPMLevels()), unit, noise),
    "epsilon": (ds.EpsilonPrediction(), vp_sigma, unit, noise),
    "epsilon-ddpm": (ds.EpsilonPrediction(ds.LevelIndex(DDPM)), table_of(DDPM), unit, noise),
    "v": (ds.VPrediction(), vp_sigma, unit, velocity),
    "v-cosine": (ds.VPrediction(ds.ContinuousTime(CosineSchedule(), 1.0)), cosine_sigma, unit, velocity),
    "v-ddpm": (ds.VPrediction(ds.LevelIndex(DDPM)), table_of(DDPM), unit, velocity),
    "x0": (ds.X0Prediction(), vp_sigma, unit, lambda d, x, s: d),
    "flow": (ds.FlowPrediction(), lambda c: c / (1 - c), lambda s: 1 / (1 + s), lambda d, x, s: noise(d, x, s) - d),
}


@pytest.mark.parametrize(("preconditioning", "sigma_of", "c_in", "predict"), CASES.values(), ids=CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-6)])
def test_the_exact_network_gives_the_exact_denoiser(preconditioning, sigma_of, c_in, predict, dtype, tolerance):
    denoiser = ds.Preconditioned(ExactNetwork(sigma_of, c_in, predict), preconditioning)
    sigma = denoiser.round_sigma(SIGMAS)  # where the network knows only some
    generator = torch.Generator().manual_seed(0)
    x0 = DATA.sample(len(sigma), generator=generator)
    x = (x0 + sigma[:, None, None] * torch.randn(x0.shape, dtype=torch.float64, generator=generator)).to(dtype)
    exact = DATA(x.double(), sigma)
    denoised = denoiser(x, sigma)
    assert denoised.dtype == dtype
    # c_noise in float32 blurs the network's σ, and D is a difference of numbers as large as x
    scale = 1 + x.double().abs().flatten(1).amax(1)
    error = (denoised.double() - exact).flatten(1).abs().amax(1)
    assert (error <= tolerance * scale).all(), error / scale
    # one σ for all, of shape ()
    for i in (0, 5):
        torch.testing.assert_close(denoiser(x, sigma[i])[i], denoised[i], rtol=1e-6, atol=1e-6)


def test_between_its_levels_the_network_of_iddpm_is_told_the_nearest():
    levels = IDDPMLevels().table()
    sigma = (0.7 * levels[500] + 0.3 * levels[501])[None]
    denoiser = ds.Preconditioned(ExactNetwork(table_of(IDDPMLevels()), unit, noise), ds.IDDPMPreconditioning())
    x = torch.tensor([[[0.4, 0.2, -0.9]]], dtype=torch.float64)
    # the network takes x/√(σ² + 1) for a state at the level that it is told
    scaled = x * unit(sigma) / unit(levels[500])
    expected = x - sigma * noise(DATA(scaled, levels[500]), scaled, levels[500])
    torch.testing.assert_close(denoiser(x, sigma), expected, rtol=1e-12, atol=1e-12)
    assert denoiser.round_sigma(sigma).item() == levels[500]
