"""Measured against declared order: the slope of log error over log N, against the exact solution at σ_min.

The steps end at σ_min, where the probability-flow ODE still has a smooth right-hand side; a last Euler step to 0 would
add an error that does not depend on N. `pytest -s` prints the table.
"""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from edmkit import (
    CosineSchedule,
    EDMSteps,
    Euler,
    FlowSchedule,
    Heun,
    Process,
    VESchedule,
    VPSchedule,
    initial_latents,
    sample,
)
from edmkit.oracles import GaussianMixture

SIGMA_MAX, SIGMA_MIN = 80.0, 0.002
COUNTS = (512, 1024, 2048)
LATENTS = initial_latents(range(4), (2,)).double()
PROCESSES = {
    "EDM": Process(),
    "VP": Process(VPSchedule()),
    "VE": Process(VESchedule()),
    "cosine": Process(CosineSchedule()),
    "flow": Process(FlowSchedule()),
    "strange": Process(sigma=lambda t: 80 * t**3 * (0.6 + 0.4 * t), s=lambda t: 1 + 0.4 * torch.sin(5 * t)),
}
SOLVERS = {"Euler": Euler(), "Heun": Heun(), "midpoint": Heun(1 / 2), "Ralston": Heun(2 / 3)}
EVERY = pytest.mark.parametrize(
    ("process", "solver"),
    [pytest.param(p, s, id=f"{pn}-{sn}") for pn, p in PROCESSES.items() for sn, s in SOLVERS.items()],
)


@pytest.fixture(scope="module")
def mixture():
    means = torch.tensor([[0.9, 0.1], [-0.6, 0.7], [-0.2, -0.8]], dtype=torch.float64)
    stds = torch.tensor([0.1, 0.2, 0.05], dtype=torch.float64)
    return GaussianMixture(means, stds, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))


def exact(denoiser, x, sigma_from, sigma_to):
    """dx/d ln σ = x − D(x; σ), solved to twelve digits."""

    def velocity(log_sigma, flat):
        state = torch.from_numpy(flat).reshape(x.shape)
        return (state - denoiser(state, torch.tensor(math.exp(log_sigma)))).reshape(-1).numpy()

    span = (math.log(sigma_from), math.log(sigma_to))
    solution = solve_ivp(velocity, span, x.reshape(-1).numpy(), method="DOP853", rtol=1e-13, atol=1e-13)
    return torch.from_numpy(solution.y[:, -1]).reshape(x.shape)


@pytest.fixture(scope="module")
def truth(mixture):
    return exact(mixture, LATENTS * SIGMA_MAX, SIGMA_MAX, SIGMA_MIN)


def run(denoiser, process, solver, n, terminal="sigma_min"):
    steps = EDMSteps(n, SIGMA_MIN, SIGMA_MAX, terminal)
    return sample(denoiser, latents=LATENTS, steps=steps, solver=solver, process=process).x


def measured_order(denoiser, process, solver, reference):
    errors = [float((run(denoiser, process, solver, n) - reference).norm()) for n in COUNTS]
    slope = -np.polyfit(np.log(COUNTS), np.log(errors), 1)[0]
    print(f"\n  {process}, {solver}: order {slope:.3f}, errors {', '.join(f'{e:.2e}' for e in errors)}")
    return slope, errors


@EVERY
def test_on_a_mixture_the_order_is_the_declared_one(mixture, truth, process, solver):
    slope, errors = measured_order(mixture, process, solver, truth)
    assert slope == pytest.approx(solver.order, abs=0.1)
    assert errors[-1] < (1e-2 if solver.order == 1 else 1e-4)  # every process leads to the one end point


VARIANCES = torch.tensor([0.6, 0.05], dtype=torch.float64)


def gaussian(x, sigma, cond=None):
    return VARIANCES / (VARIANCES + sigma**2) * x


@EVERY
def test_on_a_gaussian_the_order_is_at_least_the_declared_one(process, solver):
    """The ODE is linear: the midpoint method is of third order where s = 1."""
    ratio = ((VARIANCES + SIGMA_MIN**2) / (VARIANCES + SIGMA_MAX**2)).sqrt()
    slope, _ = measured_order(gaussian, process, solver, LATENTS * SIGMA_MAX * ratio)
    assert slope > solver.order - 0.1


def test_a_last_step_to_zero_leaves_an_error_that_no_number_of_steps_removes(mixture):
    """Euler from σ_min to 0 is off by x − D to second order in σ_min/std: the floor of all solvers, here 1.5e-5."""
    at_zero = exact(mixture, LATENTS * SIGMA_MAX, SIGMA_MAX, 1e-7)
    errors = [float((run(mixture, Process(), Heun(), n, "zero") - at_zero).norm()) for n in COUNTS]
    print(f"\n  with a last step to 0: {', '.join(f'{e:.2e}' for e in errors)}")
    assert errors[1] / errors[2] < 1.5
    assert 0.5e-5 < errors[2] < 5e-5
