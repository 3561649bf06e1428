"""N = 1 … 100 with every solver, steps class and process: finite, and as many evaluations as declared."""

import pytest
import torch

from edmkit import (
    CosineSchedule,
    EDMSteps,
    Euler,
    FlowSchedule,
    GivenSteps,
    GivenTimes,
    Heun,
    IDDPMSteps,
    Interpolating,
    LogLinearSteps,
    NoScaling,
    Process,
    VariancePreserving,
    VESchedule,
    VESteps,
    VPSchedule,
    VPSteps,
    sample,
)

LATENTS = torch.tensor([[0.5, -1.2], [1.4, 0.3], [-3.0, 2.5]], dtype=torch.float64)
SOLVERS = {"Euler": Euler(), "Heun": Heun(), "midpoint": Heun(1 / 2), "Ralston": Heun(2 / 3), "a tenth": Heun(0.1)}
STEPS = {
    "EDM": EDMSteps,
    "log-linear": LogLinearSteps,
    "VE": VESteps,
    "VP": VPSteps,
    "iDDPM": IDDPMSteps,
    "given levels": lambda n, terminal: GivenSteps(tuple(EDMSteps(n, terminal=terminal).sigmas().tolist())),
}
PROCESSES = {
    "EDM": Process(),
    "VP": Process(VPSchedule()),
    "VE": Process(VESchedule()),
    "cosine": Process(CosineSchedule()),
    "flow": Process(FlowSchedule()),
    "strange": Process(sigma=lambda t: 80 * t**3 * (0.6 + 0.4 * t), s=lambda t: 1 + 0.4 * torch.sin(5 * t)),
}
MIXED = {
    "VP unscaled": Process(VPSchedule(), NoScaling()),
    "VP of the paper's range": Process(VPSchedule.spanning(0.002, 80)),
    "VE scaled": Process(VESchedule(), VariancePreserving()),
    "EDM interpolating": Process(scaling=Interpolating()),
}


class Counting:
    """D of N(0, 1/4), which counts its calls and remembers the σ it was asked for."""

    def __init__(self):
        self.levels = []

    def __call__(self, x, sigma, cond=None):
        self.levels.append(float(sigma))
        return x / (1 + 4 * sigma**2)


def check(steps, solver, process, terminal):
    denoiser = Counting()
    result = sample(denoiser, latents=LATENTS, steps=steps, solver=solver, process=process)
    n = steps.num_steps
    nfe = (n - 1) * solver.evaluations(to_zero=False) + solver.evaluations(to_zero=terminal == "zero")
    assert result.nfe == len(denoiser.levels) == nfe
    assert result.num_steps == n
    assert result.sigmas.shape == (n + 1,)
    assert min(denoiser.levels) > 0
    assert max(denoiser.levels) <= float(result.sigmas[0]) * (1 + 1e-12)
    assert bool(torch.isfinite(result.x).all())
    return result


@pytest.mark.parametrize("n", range(1, 101))
def test_every_solver_steps_class_and_process(n):
    """Each of them at each N; which ones meet changes with N."""
    solvers, makes = list(SOLVERS.values()), list(STEPS.values())
    for k, process in enumerate(PROCESSES.values()):
        solver, make = solvers[(k + n) % len(solvers)], makes[(k + n // 5) % len(makes)]
        terminal = ("zero", "sigma_min")[(n + k) // 2 % 2]
        check(make(n, terminal=terminal), solver, process, terminal)


@pytest.mark.parametrize("n", [1, 2, 3, 18, 100])
def test_every_process_at_given_times(n):
    for process in (*PROCESSES.values(), *MIXED.values()):
        for terminal in ("zero", "sigma_min"):
            levels = EDMSteps(n, terminal=terminal).sigmas()
            times = torch.where(levels > 0, process.sigma_inv(levels), 0.0)
            check(GivenTimes(tuple(times.tolist())), Heun(), process, terminal)


@pytest.mark.slow
@pytest.mark.parametrize("process", (PROCESSES | MIXED).values(), ids=PROCESSES | MIXED)
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_the_whole_product(solver, process):
    for make in STEPS.values():
        for terminal in ("zero", "sigma_min"):
            for n in (*range(1, 21), 50, 100):
                check(make(n, terminal=terminal), solver, process, terminal)


def test_the_declared_evaluations_are_those_of_algorithm_1():
    assert [Euler().evaluations(to_zero) for to_zero in (False, True)] == [1, 1]
    assert [Heun().evaluations(to_zero) for to_zero in (False, True)] == [2, 1]
    assert sample(Counting(), latents=LATENTS).nfe == 2 * 18 - 1
