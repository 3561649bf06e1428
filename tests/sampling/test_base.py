"""A solver with `order` and `step` alone, and the coroutine of a run that answers it."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import diffspace as ds
from diffspace.protocols import Request
from diffspace.sampling import UnscaledSolver, sample_from
from diffspace.sampling.driver import make_grid, run_steps
from diffspace.sampling.sampler import State

GAUSSIAN = ds.oracles.Gaussian(torch.tensor([0.3, -0.2]).double(), torch.tensor([[0.5, 0.2], [0.2, 0.3]]).double())
GAUSSIAN.sigma_data = 0.5  # the range of the paper's data
LATENTS = ds.initial_latents(range(4), (2,)).double()


@dataclass(frozen=True)
class Ralston3(ds.Solver):
    order = 3

    def step(self, x, start, end, memory):
        h = end.t - start.t
        k1 = start.slope(x, (yield start.request(x)))
        second, y = start.toward(end, 1 / 2), x + h / 2 * k1
        k2 = second.slope(y, (yield second.request(y)))
        third, y = start.toward(end, 3 / 4), x + 3 * h / 4 * k2
        k3 = third.slope(y, (yield third.request(y)))
        return x + h / 9 * (2 * k1 + 3 * k2 + 4 * k3), None


@dataclass(frozen=True)
class UnscaledEuler(UnscaledSolver):
    order = 1

    def unscaled_step(self, x, start, end, memory):
        denoised = yield Request(x, start.sigma)
        return x + (end.sigma - start.sigma) / start.sigma * (x - denoised), None


@pytest.mark.parametrize("process", [ds.Process(), ds.Process(ds.VPSchedule()), ds.Process(ds.FlowSchedule())])
def test_order_and_step_are_enough(process):
    exact = GAUSSIAN.flow(LATENTS * 10, 10.0, 0.1)
    errors, counts = [], (64, 128)
    for n in counts:
        steps = ds.EDMSteps(n, 0.1, 10.0, terminal="sigma_min")
        result = ds.sample(GAUSSIAN, latents=LATENTS, steps=steps, solver=Ralston3(), process=process)
        assert result.nfe == ds.count_evaluations(Ralston3(), n, to_zero=False) == 3 * n
        errors.append(float((result.x - exact).abs().max()))
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(3, abs=0.2)


def test_the_step_to_zero_churn_and_an_analytical_first_step_come_from_the_base_class():
    options = {"seeds": range(3), "shape": (2,), "steps": ds.EDMSteps(5), "process": ds.Process(ds.VPSchedule())}
    result = ds.sample(GAUSSIAN, solver=Ralston3(), churn=ds.Churn(2.0), **options)
    assert torch.isfinite(result.x).all()
    assert result.nfe == ds.count_evaluations(Ralston3(), 5) == 13
    assert ds.sample(GAUSSIAN, solver=ds.AnalyticalFirstStep(Ralston3()), **options).nfe == 12


def test_an_unscaled_solver_is_the_same_under_every_process():
    options = {"latents": LATENTS, "steps": ds.EDMSteps(6)}
    expected = ds.sample(GAUSSIAN, solver=ds.Euler(), **options).x  # which works in σ where σ = t, s = 1
    for process in (ds.Process(), ds.Process(ds.VPSchedule())):
        x = ds.sample(GAUSSIAN, solver=UnscaledEuler(), process=process, **options).x
        torch.testing.assert_close(x, expected, rtol=1e-12, atol=1e-12)


def test_a_run_goes_on_from_the_state_that_it_is_sent():
    grid = make_grid(GAUSSIAN, ds.Sampler(ds.GivenSteps((4.0, 2.0, 1.0, 0.0)), process=ds.Process(ds.VPSchedule())))
    x, replacement = LATENTS * 4, torch.ones_like(LATENTS)

    def run(change_after):
        steps = run_steps(ds.Heun(), grid, x, lambda step, like: like, lambda of, like: like)
        answer, states = None, []
        while len(states) < 3:
            asked = steps.send(answer)
            if isinstance(asked, State):
                states.append(asked)
                answer = replacement if len(states) == change_after else None
            else:
                answer = GAUSSIAN(asked.x, torch.tensor(asked.sigma))
        return states

    plain, changed = run(None), run(1)
    assert torch.equal(plain[0].x, changed[0].x)
    assert [state.nfe for state in changed] == [2, 4, 5]
    rest = ds.Sampler(ds.GivenSteps((2.0, 1.0, 0.0)), process=ds.Process(ds.VPSchedule()))
    ours = sample_from(GAUSSIAN, replacement, 2.0, sampler=rest).x
    torch.testing.assert_close(changed[-1].x, ours, rtol=1e-12, atol=1e-12)


class YieldsTensors(ds.Solver):
    order = 1

    def step(self, x, start, end, memory):
        denoised = yield x
        return denoised, None


class ReturnsTheStateAlone(ds.Solver):
    order = 1

    def step(self, x, start, end, memory):
        return start.euler(x, (yield start.request(x)), end.t - start.t)


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (YieldsTensors(), "solver: YieldsTensors.step must yield a Request or an Increment, got a Tensor"),
        (ReturnsTheStateAlone(), "solver: ReturnsTheStateAlone.step must return a new state and a memory"),
    ],
)
def test_mistakes_in_a_solver_are_named(solver, message):
    with pytest.raises(ValueError, match=message):
        ds.sample(GAUSSIAN, seeds=range(2), shape=(2,), solver=solver)
