"""Measured against declared order: the slope of log error over log N, against the exact solution at σ_min.

The steps end at σ_min, where the probability-flow ODE still has a smooth right-hand side; a last Euler step to 0 would
add an error that does not depend on N. `pytest -s` prints the table.
"""

import math

import numpy as np
import pytest
import torch
from processes import PROCESSES
from scipy.integrate import solve_ivp

from diffspace import (
    DEIS,
    IPNDM,
    LMS,
    AdamsBashforth,
    DormandPrince,
    DPMSolver2,
    DPMSolver3,
    DPMSolverPP2M,
    DPMSolverPP2S,
    DPMSolverPP3M,
    DPMSolverPP3S,
    EDMSteps,
    Euler,
    ExponentialHeun,
    Heun,
    RungeKutta4,
    UniPC,
    initial_latents,
    sample,
)

SIGMA_MAX, SIGMA_MIN = 80.0, 0.002
COUNTS = (512, 1024, 2048)
LATENTS = initial_latents(range(4), (2,)).double()
SOLVERS = {"Euler": Euler(), "Heun": Heun(), "midpoint": Heun(1 / 2), "Ralston": Heun(2 / 3)}
# in σ or ln σ, whatever the process (tests/sampling/test_processes.py); the rest of each family is slow
FAMILIES = {
    "iPNDM-4": IPNDM(4),
    "LMS-4": LMS(4),
    "DEIS-3": DEIS(3),
    "AB-3 x0": AdamsBashforth(3, "x0", "log_sigma"),
    "DPM-2": DPMSolver2(),
    "DPM-3": DPMSolver3(),
    "DPM++ 2S": DPMSolverPP2S(),
    "DPM++ 2M": DPMSolverPP2M(),
    "DPM++ 3M": DPMSolverPP3M(),
    "UniPC-3": UniPC(3, lower_final=False),
    "exp. Heun": ExponentialHeun(),
}
OTHERS = {
    "iPNDM-1": IPNDM(1),
    "iPNDM-2": IPNDM(2),
    "iPNDM-3": IPNDM(3),
    "LMS-2": LMS(2),
    "DEIS-2": DEIS(2),
    "AB-2 x0": AdamsBashforth(2, "x0", "log_sigma"),
    "AB-3 ε": AdamsBashforth(3, "epsilon", "log_sigma"),
    "AB-3 v": AdamsBashforth(3, "v", "angle", 0.5),
    "DPM++ 3S": DPMSolverPP3S(),
    "DPM++ 2M even": DPMSolverPP2M(lower_final=False),
    "DPM++ 3M even": DPMSolverPP3M(lower_final=False),
    "UniPC-1": UniPC(1, lower_final=False),
    "UniPC-1 bh1": UniPC(1, "bh1", lower_final=False),
    "UniPC-2": UniPC(2, lower_final=False),
    "UniPC-2 bh1": UniPC(2, "bh1", lower_final=False),
    "UniPC-2 ε": UniPC(2, prediction="epsilon", lower_final=False),
    "exp. Heun ε": ExponentialHeun("epsilon"),
}
HIGH = {"RK4": RungeKutta4(), "Dormand-Prince": DormandPrince(atol=math.inf)}  # the pair with the steps as given


# plain functions, which cost a tenth of the oracles of the library under the checks of shapes in tests
MEANS = torch.tensor([[0.9, 0.1], [-0.6, 0.7], [-0.2, -0.8]], dtype=torch.float64)
VARIANCES = torch.tensor([0.1, 0.2, 0.05], dtype=torch.float64) ** 2
LOG_WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()


def mixture(x, sigma, cond=None):
    """E[x₀ | x] of three isotropic Gaussians in the plane."""
    total = VARIANCES + sigma[..., None] ** 2
    offsets = x[:, None] - MEANS
    posterior = (LOG_WEIGHTS - offsets.square().sum(2) / (2 * total) - total.log()).softmax(1)
    return (posterior[:, :, None] * (MEANS + (VARIANCES / total)[..., None] * offsets)).sum(1)


AXIS_VARIANCES = torch.tensor([0.6, 0.05], dtype=torch.float64)


def gaussian(x, sigma, cond=None):
    """E[x₀ | x] of one Gaussian with independent axes."""
    return AXIS_VARIANCES / (AXIS_VARIANCES + sigma[..., None] ** 2) * x


def exact(denoiser, x, sigma_from, sigma_to):
    """The solution of dx/d ln σ = x − D(x; σ) to twelve digits."""

    def velocity(log_sigma, flat):
        state = torch.from_numpy(flat).reshape(x.shape)
        level = torch.tensor(math.exp(log_sigma), dtype=torch.float64)
        return (state - denoiser(state, level)).reshape(-1).numpy()

    span = (math.log(sigma_from), math.log(sigma_to))
    solution = solve_ivp(velocity, span, x.reshape(-1).numpy(), method="DOP853", rtol=1e-13, atol=1e-13)
    return torch.from_numpy(solution.y[:, -1]).reshape(x.shape)


@pytest.fixture(scope="module")
def truth():
    return exact(mixture, LATENTS * SIGMA_MAX, SIGMA_MAX, SIGMA_MIN)


def distance(x, reference):
    """The root mean square over samples of their distance from the reference."""
    return float((x - reference).square().sum(1).mean().sqrt())


ALL = SOLVERS | FAMILIES | OTHERS | HIGH


def end_point(denoiser, process, solver, n, terminal="sigma_min"):
    steps = EDMSteps(n, SIGMA_MIN, SIGMA_MAX, terminal)
    return sample(denoiser, latents=LATENTS, steps=steps, solver=ALL[solver], process=PROCESSES[process]).x


def measured_order(denoiser, process, solver, reference, counts=COUNTS):
    errors = [distance(end_point(denoiser, process, solver, n), reference) for n in counts]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    print(f"\n  {denoiser.__name__:8} {process:8} {solver:14} {slope:6.3f}  {'  '.join(f'{e:.2e}' for e in errors)}")
    return slope, errors


def slow(names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("process", PROCESSES)
def test_on_a_mixture_the_order_is_the_declared_one(process, solver, truth):
    slope, errors = measured_order(mixture, process, solver, truth)
    assert slope == pytest.approx(SOLVERS[solver].order, abs=0.1)
    assert errors[-1] < (5e-3 if solver == "Euler" else 2e-5)  # all processes lead to the one end point


ON_A_GAUSSIAN = [
    pytest.param(process, solver, marks=() if process == "EDM" else pytest.mark.slow)
    for process in PROCESSES
    for solver in SOLVERS
]


@pytest.mark.parametrize(("process", "solver"), ON_A_GAUSSIAN)
def test_on_a_gaussian_the_order_is_at_least_the_declared_one(process, solver):
    """The ODE is linear there; with s = 1 the midpoint method is of third order."""
    ratio = ((AXIS_VARIANCES + SIGMA_MIN**2) / (AXIS_VARIANCES + SIGMA_MAX**2)).sqrt()
    slope, _ = measured_order(gaussian, process, solver, LATENTS * SIGMA_MAX * ratio)
    assert slope > SOLVERS[solver].order - 0.1
    if solver == "midpoint" and process in ("EDM", "VE", "flow"):
        assert slope == pytest.approx(3, abs=0.1)


def exact_on_a_gaussian():
    return LATENTS * SIGMA_MAX * ((AXIS_VARIANCES + SIGMA_MIN**2) / (AXIS_VARIANCES + SIGMA_MAX**2)).sqrt()


@pytest.mark.parametrize("solver", [*FAMILIES, *slow(OTHERS)])
def test_multistep_and_exponential_solvers_have_the_order_that_they_declare(solver, truth):
    slope, errors = measured_order(mixture, "EDM", solver, truth, (256, 512))
    assert slope == pytest.approx(ALL[solver].order, abs=0.15)
    assert errors[-1] < {1: 1e-3, 2: 2e-5, 3: 1e-6, 4: 5e-8}[ALL[solver].order]
    slope, _ = measured_order(gaussian, "EDM", solver, exact_on_a_gaussian(), (256, 512))
    assert slope > ALL[solver].order - (0.4 if solver == "DPM-3" else 0.15)  # whose error is 4e-9 there already


@pytest.mark.parametrize("process", ["EDM", "VP", *slow(["VE", "cosine", "flow", "strange"])])
def test_runge_kutta_4_is_of_fourth_order_under_every_process(process, truth):
    # in the square root of σ² the times near σ_min lie far apart
    counts = (1024, 2048) if process == "VE" else (256, 512)
    slope, errors = measured_order(mixture, process, "RK4", truth, counts)
    assert slope == pytest.approx(4, abs=0.15)
    assert errors[-1] < 1e-7
    slope, _ = measured_order(gaussian, process, "RK4", exact_on_a_gaussian(), counts)
    assert slope > 3.85


def test_the_pair_is_of_fifth_order_on_given_steps(truth):
    slope, errors = measured_order(mixture, "EDM", "Dormand-Prince", truth, (64, 128))
    assert slope == pytest.approx(5, abs=0.25)  # on its way from 5.5 to 5
    assert errors[-1] < 5e-10
    slope, _ = measured_order(gaussian, "EDM", "Dormand-Prince", exact_on_a_gaussian(), (64, 128))
    assert slope > 4.85


@pytest.mark.slow
@pytest.mark.parametrize(
    "solver", [UniPC(3), AdamsBashforth(4, "x0", lower_final=True), UniPC(3, prediction="epsilon")]
)
def test_steps_of_lower_order_at_the_end_make_the_whole_of_second_order(solver, truth):
    errors = []
    for n in (1024, 2048, 4096):
        steps = EDMSteps(n, SIGMA_MIN, SIGMA_MAX, "sigma_min")
        errors.append(distance(sample(mixture, latents=LATENTS, steps=steps, solver=solver).x, truth))
    assert solver.order == 2
    assert math.log2(errors[-2] / errors[-1]) == pytest.approx(2, abs=0.15)
    assert errors[-1] < 1e-8  # but with a small factor


def test_a_last_step_to_zero_leaves_an_error_that_no_number_of_steps_removes(truth):
    """The floor is D(x; σ_min) − x(0) on the exact solution; x(0) itself is reached to 1e-10 at σ = 1e-7."""
    at_zero = exact(mixture, truth, SIGMA_MIN, 1e-7)
    floor = distance(mixture(truth, torch.tensor(SIGMA_MIN, dtype=torch.float64)), at_zero)
    errors = [distance(end_point(mixture, "EDM", "Heun", n, "zero"), at_zero) for n in COUNTS]
    print(f"\n  a last step to 0: {'  '.join(f'{e:.2e}' for e in errors)}, floor {floor:.2e}")
    assert errors[-1] == pytest.approx(floor, rel=0.1)
    assert errors[-1] > 0.9 * errors[-2]
    assert 1e-5 < floor < 2e-5
