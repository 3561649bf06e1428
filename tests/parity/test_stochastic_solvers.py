"""The stochastic solvers of k-diffusion, on its own noise levels with the same noise, through `sample()`."""

import math

import pytest
import torch

from diffspace import EDMSteps, sample
from diffspace.sampling import DPMSolverPP2MSDE, DPMSolverPP3MSDE, EulerAncestral
from golden import read_golden

GOLDEN, MIXTURE, LATENTS = read_golden("solvers")
SOLVERS = {
    "euler_ancestral eta=1": EulerAncestral(),
    "dpmpp_2m_sde eta=1 midpoint": DPMSolverPP2MSDE(),
    "dpmpp_3m_sde eta=1": DPMSolverPP3MSDE(),
}
CASES = {case["solver"]: case for case in GOLDEN["cases"]}


def noise(draw, like):
    flat = torch.arange(like.numel(), dtype=torch.float64).reshape(like.shape)
    return math.sqrt(2) * torch.sin(1.7 * (draw + 1) + 2.3 * flat)


@pytest.mark.parametrize("name", SOLVERS)
def test_end_points_are_the_reference_s(name):
    steps = EDMSteps(CASES[name]["num_sigmas"], GOLDEN["sigma_min"], GOLDEN["sigma_max"], rho=GOLDEN["rho"])
    result = sample(MIXTURE, latents=LATENTS, steps=steps, solver=SOLVERS[name], noise=noise)
    expected = torch.tensor(CASES[name]["x"], dtype=torch.float64)
    assert ((result.x - expected).abs() / expected.abs()).max() < 1e-8


@pytest.mark.parametrize("name", SOLVERS)
def test_the_figures_tell_solvers_apart(name):
    """Another rate of the noise, or the other weights of 2M, is far from them."""
    others = {
        "euler_ancestral eta=1": EulerAncestral(0.9),
        "dpmpp_2m_sde eta=1 midpoint": DPMSolverPP2MSDE(variant="heun"),
        "dpmpp_3m_sde eta=1": DPMSolverPP2MSDE(variant="heun"),
    }
    result = sample(MIXTURE, latents=LATENTS, steps=EDMSteps(6, 0.002, 80.0), solver=others[name], noise=noise)
    assert (result.x - torch.tensor(CASES[name]["x"], dtype=torch.float64)).abs().max() > 1e-3
