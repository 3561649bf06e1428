"""f, g, the velocity and the perturbation of processes, against autograd, their definitions and draws."""

from __future__ import annotations

import math

import pytest
import torch

from diffspace.process import (
    CallableScaling,
    CosineSchedule,
    EDMSchedule,
    FlowSchedule,
    Interpolating,
    NoScaling,
    Process,
    VariancePreserving,
    VESchedule,
    VPSchedule,
)

SCHEDULES = [EDMSchedule(), VPSchedule(), VESchedule(), CosineSchedule(), FlowSchedule()]
SCALINGS = [NoScaling(), VariancePreserving(), Interpolating(), CallableScaling(lambda t: 1 + 0.4 * (5 * t).sin())]
PROCESSES = [Process(schedule, scaling) for schedule in SCHEDULES for scaling in SCALINGS]
LEVELS = [1e-3, 0.1, 1.0, 30.0]
each = pytest.mark.parametrize("process", PROCESSES, ids=range(len(PROCESSES)))


def slope_of(function, t):
    at = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    value = function(at)
    return torch.autograd.grad(value, at)[0].item() if value.requires_grad else 0.0


def close(value):
    return pytest.approx(value, rel=1e-11, abs=1e-13 * abs(value))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("sigma", LEVELS)
def test_scalings_and_their_derivatives(schedule, sigma):
    t = schedule.sigma_inv(sigma)
    level = schedule.sigma(t)
    for scaling, s in [
        (NoScaling(), 1.0),
        (VariancePreserving(), 1 / math.sqrt(1 + level**2)),
        (Interpolating(), 1 / (1 + level)),
    ]:
        process = Process(schedule, scaling)
        assert process.s(t) == pytest.approx(s, rel=1e-15)
        assert process.s_dot(t) == close(slope_of(lambda t, process=process: process.s(t), t))


@each
@pytest.mark.parametrize("sigma", LEVELS)
def test_f_and_g_are_equations_28_and_34(process, sigma):
    t = process.sigma_inv(sigma)
    assert process.f(t) == close(process.s_dot(t) / process.s(t))
    assert process.g(t) == close(process.s(t) * math.sqrt(2 * process.sigma_dot(t) * process.sigma(t)))


@each
@pytest.mark.parametrize("sigma", LEVELS)
def test_f_and_g_give_the_noise_its_variance(process, sigma):
    """The variance v of the solution of dx = f·x dt + g dω obeys v̇ = 2f·v + g², and it is (s·σ)²."""
    t = process.sigma_inv(sigma)
    variance = (process.s(t) * process.sigma(t)) ** 2
    slope = slope_of(lambda t: (process.s(t) * process.sigma(t)) ** 2, t)
    scale = abs(2 * process.f(t) * variance) + process.g(t) ** 2
    assert abs(2 * process.f(t) * variance + process.g(t) ** 2 - slope) <= 1e-11 * scale


@pytest.mark.parametrize("t", [1e-5, 1e-3, 0.1, 0.5, 1.0])
def test_f_and_g_of_song(t):
    beta = 19.9 * t + 0.1
    vp, ve = Process(VPSchedule()), Process(VESchedule())
    assert vp.f(t) == pytest.approx(-beta / 2, rel=1e-12)
    assert vp.g(t) == pytest.approx(math.sqrt(beta), rel=1e-12)
    assert (ve.f(t), ve.g(t)) == (0, pytest.approx(1, rel=1e-15))


@pytest.mark.parametrize("t", [1e-5, 0.1, 0.5, 0.99])
def test_f_and_g_of_rectified_flow(t):
    flow = Process(FlowSchedule())
    assert flow.s(t) == pytest.approx(1 - t, rel=1e-13)
    assert flow.f(t) == pytest.approx(-1 / (1 - t), rel=1e-12)
    assert flow.g(t) == pytest.approx(math.sqrt(2 * t / (1 - t)), rel=1e-12)


@each
@pytest.mark.parametrize("sigma", LEVELS)
def test_a_single_data_point_pulls_along_the_exact_path(process, sigma):
    """Where the data are one point y, D = y, and the ODE is solved by x_t = s(t)·(y + σ(t)·ε)."""
    y, noise = 0.7, -1.3
    t = process.sigma_inv(sigma)
    slope = slope_of(lambda t: process.s(t) * (y + process.sigma(t) * noise), t)
    x = torch.tensor([[process.s(t) * (y + process.sigma(t) * noise)]], dtype=torch.float64)
    a, b = process.ode(t)
    velocity = process.velocity(x, t, torch.full_like(x, y)).item()
    scale = abs(a * x.item()) + abs(b * y)
    assert abs(velocity - slope) <= 1e-11 * scale


@each
def test_velocity_is_line_4_of_algorithm_1(process):
    generator = torch.Generator().manual_seed(0)
    x, denoised = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    t = process.sigma_inv(0.8)
    sigma, sigma_dot, s, s_dot = (f(t) for f in (process.sigma, process.sigma_dot, process.s, process.s_dot))
    expected = (sigma_dot / sigma + s_dot / s) * x - sigma_dot * s / sigma * denoised
    torch.testing.assert_close(process.velocity(x, t, denoised), expected, rtol=1e-13, atol=1e-13)


def test_a_euler_step_to_zero_lands_on_the_denoised():
    x, denoised = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = 2.5
    torch.testing.assert_close(x - t * Process().velocity(x, t, denoised), denoised, rtol=0, atol=1e-15)


@each
def test_perturb_with_one_time_and_with_one_for_each_sample(process):
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 4, 3, 2, dtype=torch.float64, generator=generator)
    times = process.sigma_inv(torch.tensor(LEVELS, dtype=torch.float64))
    together = process.perturb(x0, times, noise)
    for i, t in enumerate(times.tolist()):
        expected = process.s(t) * (x0[i] + process.sigma(t) * noise[i])
        torch.testing.assert_close(together[i], expected, rtol=1e-14, atol=1e-14)
        for same in (t, times[i]):
            torch.testing.assert_close(process.perturb(x0, same, noise)[i], expected, rtol=1e-14, atol=1e-14)


def test_perturbed_data_have_the_moments_of_the_kernel():
    process = Process(VPSchedule())
    generator = torch.Generator().manual_seed(0)
    n, t = 200_000, 0.3
    noise = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    x = process.perturb(torch.full_like(noise, 2.0), t, noise)
    std = process.s(t) * process.sigma(t)
    assert abs(x.mean().item() - 2 * process.s(t)) < 4 * std / math.sqrt(n)
    assert abs(x.var().item() / std**2 - 1) < 4 * math.sqrt(2 / n)
    # and unit-variance data keep unit variance
    x0 = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    assert abs(process.perturb(x0, t, noise).var().item() - 1) < 4 * math.sqrt(2 / n)


def test_the_parts_a_process_takes():
    assert Process() == Process(EDMSchedule(), NoScaling())
    assert Process(VPSchedule()).scaling == Process(CosineSchedule()).scaling == VariancePreserving()
    assert Process(VESchedule()).scaling == NoScaling()
    assert Process(FlowSchedule()).scaling == Interpolating()
    assert Process(VPSchedule(), NoScaling()) != Process(VPSchedule())
    assert hash(Process(VPSchedule())) == hash(Process(VPSchedule()))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"schedule": EDMSchedule(), "sigma": lambda t: t}, "sigma"),
        ({"scaling": NoScaling(), "s": lambda t: 1.0}, "s"),
        ({"t_max": 1.0}, "t_max"),
        ({"schedule": EDMSchedule(), "t_max": 1.0}, "t_max"),
        ({"sigma": lambda t: t, "t_max": -1.0}, "t_max"),
        ({"sigma": lambda t: t, "t_max": math.inf}, "t_max"),
    ],
)
def test_options_that_exclude_each_other(arguments, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        Process(**arguments)
