"""N = 1 … 100 with every solver, steps class and process: finite, and as many evaluations as declared."""

import pytest
import torch
from processes import PROCESSES

import diffspace as ds
from diffspace.parts import find, kinds
from diffspace.sampling import Execution

LATENTS = torch.tensor([[0.5, -1.2], [1.4, 0.3], [-3.0, 2.5]], dtype=torch.float64)
SOLVERS = {
    "Euler": ds.Euler(),
    "Heun": ds.Heun(),
    "midpoint": ds.Heun(1 / 2),
    "Ralston": ds.Heun(2 / 3),
    "a tenth": ds.Heun(0.1),
}
STEPS = {
    "EDM": ds.EDMSteps,
    "log-linear": ds.LogLinearSteps,
    "VE": ds.VESteps,
    "VP": ds.VPSteps,
    "iDDPM": ds.IDDPMSteps,
    "given levels": lambda n, terminal: ds.GivenSteps(tuple(ds.EDMSteps(n, terminal=terminal).sigmas().tolist())),
}
MIXED = {
    "VP unscaled": ds.Process(ds.VPSchedule(), ds.NoScaling()),
    "VP of the paper's range": ds.Process(ds.VPSchedule.spanning(0.002, 80)),
    "VE scaled": ds.Process(ds.VESchedule(), ds.VariancePreserving()),
    "EDM interpolating": ds.Process(scaling=ds.Interpolating()),
}


class Counting:
    """D of N(0, 1/4), which counts its calls and remembers the σ it was asked for."""

    sigma_data = 0.5

    def __init__(self):
        self.levels, self.calls = [], []

    def __call__(self, x, sigma, cond=None):
        self.calls.append(x.dtype)
        self.levels += sigma.reshape(-1).tolist()
        return x / (1 + 4 * sigma[..., None] ** 2)


def check(steps, solver, process, terminal, dtype=torch.float64):
    denoiser = Counting()
    options = {"seeds": range(3)} if solver.stochastic else {}
    result = ds.sample(
        denoiser,
        latents=LATENTS,
        steps=steps,
        solver=solver,
        process=process,
        execution=Execution(dtype=dtype),
        **options,
    )
    n = steps.num_steps
    nfe = ds.count_evaluations(solver, n, terminal == "zero")
    assert result.nfe == len(denoiser.calls)
    assert nfe is None or result.nfe == nfe
    assert set(denoiser.calls) <= {dtype}
    assert result.num_steps == n
    assert result.sigmas.shape == (n + 1,)
    rounding = 1e-12 if dtype == torch.float64 else 1e-6
    if denoiser.levels:
        assert min(denoiser.levels) >= float(result.sigmas[result.sigmas > 0].min()) * (1 - rounding)
        assert max(denoiser.levels) <= float(result.sigmas[0]) * (1 + rounding)
    assert bool(torch.isfinite(result.x).all())
    return result


NAMED = {kind: find("solver", kind)() for kind in kinds("solver") if kind != "fitted"}
NAMED = {kind: solver for kind, solver in NAMED.items() if not solver.stochastic}
PLACED = [kind for kind in kinds("steps") if kind not in ("given", "optimized", "levels")]  # those of any range


@pytest.mark.parametrize("solver", NAMED.values(), ids=NAMED)
def test_every_solver_of_the_registry_takes_the_evaluations_it_declares(solver):
    """With every steps class of the registry, to zero and to σ_min, in either precision."""
    for k, kind in enumerate(PLACED):
        for n in (1, 2, 3, 4 + k) if solver.evaluations(False) else (1, 3):
            for terminal in ("zero", "sigma_min"):
                dtype = (torch.float64, torch.float32)[(n + k) % 2]
                check(find("steps", kind)(n, terminal=terminal), solver, ds.Process(), terminal, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("solver", NAMED.values(), ids=NAMED)
@pytest.mark.parametrize("kind", PLACED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_solver_at_every_count(solver, kind, dtype):
    for n in range(1, 31):
        for terminal in ("zero", "sigma_min"):
            check(find("steps", kind)(n, terminal=terminal), solver, ds.Process(), terminal, dtype)


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
            levels = ds.EDMSteps(n, terminal=terminal).sigmas()
            times = torch.where(levels > 0, process.sigma_inv(levels), 0.0)
            check(ds.GivenTimes(tuple(times.tolist())), ds.Heun(), process, terminal)


@pytest.mark.slow
@pytest.mark.parametrize("process", (PROCESSES | MIXED).values(), ids=PROCESSES | MIXED)
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_the_whole_product(solver, process):
    for make in STEPS.values():
        for terminal in ("zero", "sigma_min"):
            for n in (*range(1, 21), 50, 100):
                check(make(n, terminal=terminal), solver, process, terminal)


def test_the_declared_evaluations_are_those_of_algorithm_1():
    assert [ds.Euler().evaluations(to_zero) for to_zero in (False, True)] == [1, 1]
    assert [ds.Heun().evaluations(to_zero) for to_zero in (False, True)] == [2, 1]
    assert ds.count_evaluations(ds.Heun(), 18) == 35
    assert ds.count_evaluations(ds.Heun(), 18, to_zero=False) == 36
    assert ds.sample(Counting(), latents=LATENTS).nfe == 2 * 18 - 1
