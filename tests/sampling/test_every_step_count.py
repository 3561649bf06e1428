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
    "given times": lambda n, terminal: GivenTimes(tuple(EDMSteps(n, terminal=terminal).sigmas().tolist())),
}
PROCESSES = {
    "EDM": Process(),
    "VP": Process(VPSchedule()),
    "VP unscaled": Process(VPSchedule(), NoScaling()),
    "VP of the paper's range": Process(VPSchedule.spanning(0.002, 80)),
    "VE": Process(VESchedule()),
    "VE scaled": Process(VESchedule(), VariancePreserving()),
    "cosine": Process(CosineSchedule()),
    "flow": Process(FlowSchedule()),
    "EDM interpolating": Process(scaling=Interpolating()),
    "strange": Process(sigma=lambda t: 80 * t**3 * (0.6 + 0.4 * t), s=lambda t: 1 + 0.4 * torch.sin(5 * t)),
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


EVERY_N = range(1, 101)
SOME_N = (1, 2, 3, 4, 5, 10, 18, 51, 100)
CORE = ("EDM", "VP", "VE", "cosine", "flow")


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_every_solver(solver):
    for n in EVERY_N:
        check(EDMSteps(n), solver, Process(), "zero")
    for n in SOME_N:
        check(EDMSteps(n, terminal="sigma_min"), solver, Process(), "sigma_min")


@pytest.mark.parametrize("make", STEPS.values(), ids=STEPS)
def test_every_steps_class(make):
    for n in EVERY_N:
        check(make(n, terminal="zero"), Heun(), Process(), "zero")
    for n in SOME_N:
        check(make(n, terminal="sigma_min"), Heun(), Process(), "sigma_min")


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process(name):
    for n in EVERY_N if name in CORE else SOME_N:
        check(EDMSteps(n), Heun(), PROCESSES[name], "zero")
    for n in SOME_N:
        check(EDMSteps(n, terminal="sigma_min"), Heun(), PROCESSES[name], "sigma_min")


@pytest.mark.slow
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_all_together(solver, process):
    """The whole product."""
    for name, make in STEPS.items():
        if name != "given times":  # times of σ = t
            for terminal in ("zero", "sigma_min"):
                for n in EVERY_N:
                    check(make(n, terminal=terminal), solver, process, terminal)


def test_the_declared_evaluations_are_those_of_algorithm_1():
    assert [Euler().evaluations(to_zero) for to_zero in (False, True)] == [1, 1]
    assert [Heun().evaluations(to_zero) for to_zero in (False, True)] == [2, 1]
    assert sample(Counting(), latents=LATENTS).nfe == 2 * 18 - 1
