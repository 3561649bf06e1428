"""Solvers in σ or ln σ of the unscaled state: the same under any process, upward, in any batch; and differentiable."""

import math

import numpy as np
import pytest
import torch

import diffspace as ds
from diffspace.sampling import Execution, Sampler, sample_from

IN_SIGMA = {
    "AB v": ds.AdamsBashforth(3, "v", "angle", 0.5),
    "LMS": ds.LMS(4),
    "DEIS": ds.DEIS(3),
    "iPNDM": ds.IPNDM(4),
    "DPM-2": ds.DPMSolver2(),
    "DPM-3": ds.DPMSolver3(),
    "2S": ds.DPMSolverPP2S(),
    "3S": ds.DPMSolverPP3S(),
    "2M": ds.DPMSolverPP2M(),
    "3M": ds.DPMSolverPP3M(),
    "UniPC": ds.UniPC(3),
    "UniPC ε": ds.UniPC(2, "bh1", "epsilon"),
    "exp. Heun": ds.ExponentialHeun(),
    "Dormand-Prince": ds.DormandPrince(),
    "AFS": ds.AnalyticalFirstStep(ds.IPNDM(3), 1.0),
}
LATENTS = ds.initial_latents(range(4), (2,)).double()


@pytest.mark.parametrize("solver", IN_SIGMA.values(), ids=IN_SIGMA)
@pytest.mark.parametrize("terminal", ["zero", "sigma_min"])
def test_the_result_does_not_depend_on_the_process(mixture, solver, terminal):
    steps = ds.EDMSteps(7, terminal=terminal)
    expected = ds.sample(mixture, latents=LATENTS, steps=steps, solver=solver).x
    for process in (ds.Process(ds.VPSchedule()), ds.Process(ds.FlowSchedule()), ds.Process(ds.VESchedule())):
        x = ds.sample(mixture, latents=LATENTS, steps=steps, solver=solver, process=process).x
        torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-9)


GAUSSIAN_VARIANCES = torch.tensor([0.6, 0.05], dtype=torch.float64)


def gaussian(x, sigma, cond=None):
    return GAUSSIAN_VARIANCES / (GAUSSIAN_VARIANCES + sigma[..., None] ** 2) * x


@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (ds.AdamsBashforth(3, "x0"), 3),
        (ds.AdamsBashforth(3, "epsilon"), 3),
        (ds.AdamsBashforth(3, "v", "angle"), 3),
        (ds.IPNDM(3), 2),
        (ds.DPMSolver2(), 2),
        (ds.DPMSolverPP3S(), 3),
        (ds.UniPC(2, lower_final=False), 3),
    ],
)
def test_encoding_goes_upward_and_comes_back(solver, order):
    down = ((GAUSSIAN_VARIANCES + 0.01**2) / (GAUSSIAN_VARIANCES + 80.0**2)).sqrt()
    x = LATENTS * 80 * down
    errors, returns, counts = [], [], (128, 256)
    for n in counts:
        steps = ds.EDMSteps(n, 0.01, 80.0, terminal="sigma_min")
        encoded = ds.encode(gaussian, x, sampler=Sampler(steps, solver))
        decoded = sample_from(gaussian, encoded.x, 80.0, sampler=Sampler(steps, solver))
        errors.append(float((encoded.x / 80 - LATENTS).abs().max()))
        returns.append(float((decoded.x - x).abs().max()))
    for name, values in (("encode", errors), ("and back", returns)):
        slope = -np.polyfit(np.log(counts), np.log(values), 1)[0]
        print(f"\n  {solver} {name}: {slope:.2f} {values[-1]:.1e}")
        assert slope > order - 0.2
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("solver", IN_SIGMA.values(), ids=IN_SIGMA)
def test_a_sample_is_the_same_alone_and_in_a_batch(mixture, solver):
    options = {"shape": (2,), "steps": ds.EDMSteps(5), "solver": solver}
    together = ds.sample(mixture, seeds=range(9), **options).x
    for rows in (slice(0, 1), slice(4, 7)):
        assert torch.equal(ds.sample(mixture, seeds=range(9)[rows], **options).x, together[rows])
    assert torch.equal(ds.sample(mixture, seeds=range(9), execution=Execution(batch_size=4), **options).x, together)


def smooth(x, sigma, cond=None):
    return torch.tanh(0.7 * x / (1 + sigma[..., None] ** 2)) + 0.1 * x.flip(1)


FIXED = IN_SIGMA | {"Dormand-Prince": ds.DormandPrince(atol=math.inf), "Heun": ds.AnalyticalFirstStep(ds.Heun(), 1.0)}


@pytest.mark.parametrize("solver", FIXED.values(), ids=FIXED)
def test_gradients_are_those_of_finite_differences(solver):
    def end(latents):
        return ds.sample(
            smooth, latents=latents, steps=ds.EDMSteps(4, 0.1, 3.0), solver=solver, execution=Execution(grad=True)
        ).x

    assert torch.autograd.gradcheck(end, LATENTS[:2].clone().requires_grad_(), eps=1e-6, atol=1e-7, rtol=1e-6)


def test_gradients_go_through_steps_of_the_pair_s_own_lengths():
    solver = ds.DormandPrince(1e-9, 1e-9)

    def end(latents):
        return ds.sample(
            smooth, latents=latents, steps=ds.EDMSteps(2, 0.1, 3.0), solver=solver, execution=Execution(grad=True)
        ).x

    latents = LATENTS[:1].clone().requires_grad_()
    gradient = torch.autograd.functional.jacobian(end, latents).reshape(2, 2)
    differences = torch.stack(
        [
            ((end(LATENTS[:1] + 1e-4 * e) - end(LATENTS[:1] - 1e-4 * e)) / 2e-4).reshape(-1)
            for e in torch.eye(2, dtype=torch.float64)
        ],
        1,
    )
    assert torch.allclose(gradient, differences, rtol=1e-5, atol=1e-7)
