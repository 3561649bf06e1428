"""A Gaussian, whose probability-flow ODE has a closed solution: `sample` and `encode` against `Gaussian.flow`."""

import numpy as np
import pytest
import torch

from diffspace import EDMSteps, Euler, FlowSchedule, Heun, Process, VPSchedule, encode, initial_latents, sample
from diffspace.oracles import Gaussian
from diffspace.sampling import Sampler, sample_from

SIGMA_MAX, SIGMA_MIN = 80.0, 0.002
COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
LATENTS = initial_latents(range(16), (2,)).double()


@pytest.fixture(scope="module")
def gaussian():
    mean = torch.tensor([0.3, -0.5], dtype=torch.float64)
    found = Gaussian(mean, COVARIANCE)
    found.sigma_data = 0.5  # whose range is the paper's
    return found


def distance(x, reference):
    """The root mean square over samples of their distance from the reference."""
    return float((x - reference).square().sum(1).mean().sqrt())


def order(counts, errors):
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


def test_the_default_sampler_comes_near_the_exact_end_points(gaussian):
    exact = gaussian.flow(LATENTS * SIGMA_MAX, SIGMA_MAX, 0.0)
    errors = {n: distance(sample(gaussian, latents=LATENTS, steps=EDMSteps(n)).x, exact) for n in (18, 100)}
    print(f"\n  Heun, ρ = 7: {', '.join(f'error {e:.2e} at N = {n} (NFE {2 * n - 1})' for n, e in errors.items())}")
    spread = distance(exact, gaussian.mean)
    assert errors[18] < 0.1 * spread
    assert errors[100] < 2e-3 * spread
    assert errors[18] / errors[100] == pytest.approx((100 / 18) ** 2, rel=0.35)


def test_the_end_points_are_those_of_the_data(gaussian):
    """The exact flow carries N(μ, Σ + σ²I) to N(μ, Σ): whitened latents must come out with mean μ and covariance Σ."""
    latents = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)  # mean 0, covariance I
    x = sample(gaussian, latents=latents, steps=EDMSteps(400)).x
    assert torch.cov(x.T, correction=0).numpy() == pytest.approx(COVARIANCE.numpy(), rel=2e-3)
    # the latents stand for N(0, σ_max²) and not for N(μ, Σ + σ_max²), hence not exactly μ
    start = torch.zeros(1, 2, dtype=torch.float64)
    assert x.mean(0).numpy() == pytest.approx(gaussian.flow(start, SIGMA_MAX, 0.0)[0].numpy(), abs=1e-4)


@pytest.mark.parametrize("process", [Process(), Process(VPSchedule()), Process(FlowSchedule())])
@pytest.mark.parametrize("solver", [Euler(), Heun(), Heun(1 / 2), Heun(2 / 3)])
def test_encoding_and_decoding_return_to_the_start(gaussian, process, solver):
    x = gaussian.flow(LATENTS * SIGMA_MAX, SIGMA_MAX, SIGMA_MIN)
    latents = gaussian.flow(x, SIGMA_MIN, SIGMA_MAX)
    counts = (64, 128, 256)
    forward, there_and_back = [], []
    for n in counts:
        steps = EDMSteps(n, SIGMA_MIN, SIGMA_MAX, terminal="sigma_min")
        encoded = encode(gaussian, x, sampler=Sampler(steps, solver, process))
        decoded = sample_from(gaussian, encoded.x, SIGMA_MAX, sampler=Sampler(steps, solver, process))
        assert encoded.sigmas.tolist() == decoded.sigmas.flip(0).tolist()
        assert encoded.nfe == decoded.nfe == n * solver.evaluations(to_zero=False)
        forward.append(distance(encoded.x, latents) / SIGMA_MAX)
        there_and_back.append(distance(decoded.x, x))
    print(f"\n  {solver}, {process}: encode {order(counts, forward):.2f} {forward[-1]:.1e}, "
          f"and back {order(counts, there_and_back):.2f} {there_and_back[-1]:.1e}")  # fmt: skip
    assert order(counts, forward) > solver.order - 0.1
    # the leading errors of an even order cancel between the way there and the way back
    assert order(counts, there_and_back) == pytest.approx(1 if solver.order == 1 else 3, abs=0.1)
    assert there_and_back[-1] < (0.03 if solver.order == 1 else 3e-6)


def test_decoding_and_encoding_return_to_the_latents(gaussian):
    steps = EDMSteps(300, SIGMA_MIN, SIGMA_MAX, terminal="sigma_min")
    decoded = sample(gaussian, latents=LATENTS, steps=steps)
    encoded = encode(gaussian, decoded.x, sampler=Sampler(steps))
    assert distance(encoded.x / SIGMA_MAX, LATENTS) < 1e-4
