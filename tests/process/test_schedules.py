"""Schedules against the formulas of Table 1 in 40 digits, autograd, differences and their own inverses."""

from __future__ import annotations

import math
import sys

import mpmath
import pytest
import torch
from hypothesis import given, settings, strategies as st

from diffspace.process import CosineSchedule, EDMSchedule, FlowSchedule, VESchedule, VPSchedule

EPS = sys.float_info.epsilon


def vp(t, beta_d, beta_min):
    return mpmath.sqrt(mpmath.exp(mpmath.mpf(beta_d) * t**2 / 2 + mpmath.mpf(beta_min) * t) - 1)


def cosine(t, C_2):
    def angle(t):
        return (t + mpmath.mpf(C_2)) / (1 + mpmath.mpf(C_2)) * mpmath.pi / 2

    return mpmath.sqrt((mpmath.cos(angle(0)) / mpmath.cos(angle(t))) ** 2 - 1)


SPANNING = VPSchedule.spanning(0.002, 80.0)  # β_min is slightly negative
CASES = {
    "edm": (EDMSchedule(), lambda t: t),
    "vp": (VPSchedule(), lambda t: vp(t, 19.9, 0.1)),
    "vp-0": (VPSchedule(3.0, 0.0), lambda t: vp(t, 3.0, 0.0)),
    "vp-spanning": (SPANNING, lambda t: vp(t, SPANNING.beta_d, SPANNING.beta_min)),
    "ve": (VESchedule(), mpmath.sqrt),
    "cosine": (CosineSchedule(), lambda t: cosine(t, 0.008)),
    "flow": (FlowSchedule(), lambda t: t / (1 - t)),
}
each = pytest.mark.parametrize(("schedule", "formula"), CASES.values(), ids=CASES)
several = settings(max_examples=50, deadline=None)
levels = st.floats(-6, 6).map(lambda e: 10.0**e)


def condition(schedule, t):
    """d ln σ/d ln t: how much a rounding of t is magnified in σ; 1 + σ for schedules that end at t = 1."""
    return t * schedule.sigma_dot(t) / schedule.sigma(t)


@each
@several
@given(sigma=levels)
def test_sigma_is_the_formula_to_the_last_digits(schedule, formula, sigma):
    t = schedule.sigma_inv(sigma)
    with mpmath.workdps(40):
        exact = formula(mpmath.mpf(t))
        error = abs(schedule.sigma(t) / exact - 1)
    assert error <= 4 * EPS * (1 + condition(schedule, t))


@each
@several
@given(sigma=levels)
def test_inverse_in_both_directions(schedule, formula, sigma):
    t = schedule.sigma_inv(sigma)
    kappa = condition(schedule, t)
    assert schedule.sigma(t) == pytest.approx(sigma, rel=4 * EPS * (1 + kappa), abs=0)
    assert schedule.sigma_inv(schedule.sigma(t)) == pytest.approx(t, rel=4 * EPS * (1 + 1 / kappa), abs=0)


@each
@several
@given(sigma=levels)
def test_derivative_is_that_of_autograd(schedule, formula, sigma):
    t = torch.tensor(schedule.sigma_inv(sigma), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(schedule.sigma(t), t)
    kappa = condition(schedule, t.item())
    torch.testing.assert_close(schedule.sigma_dot(t.detach()), slope, rtol=16 * EPS * (1 + kappa), atol=0)


@each
@pytest.mark.parametrize("sigma", [1e-6, 1e-3, 0.5, 80.0, 1e3])
def test_derivative_is_that_of_finite_differences(schedule, formula, sigma):
    t = schedule.sigma_inv(sigma)
    h = 1e-4 * t / (1 + condition(schedule, t))
    above, below = t + h, t - h
    slope = (schedule.sigma(above) - schedule.sigma(below)) / (above - below)
    assert schedule.sigma_dot(t) == pytest.approx(slope, rel=1e-6, abs=0)


@each
@several
@given(sigma=levels)
def test_floats_and_tensors_agree(schedule, formula, sigma):
    level = torch.tensor([sigma], dtype=torch.float64)
    t = schedule.sigma_inv(sigma)
    at = torch.tensor([t], dtype=torch.float64)
    for as_tensor, as_float in [
        (schedule.sigma_inv(level), t),
        (schedule.sigma(at), schedule.sigma(t)),
        (schedule.sigma_dot(at), schedule.sigma_dot(t)),
    ]:
        assert isinstance(as_float, float)
        assert as_tensor.dtype == torch.float64
        assert as_tensor.item() == pytest.approx(as_float, rel=4 * EPS, abs=0)


@each
def test_float32_tensors_keep_their_type_and_precision(schedule, formula):
    sigma = torch.logspace(-3, 2, 50)
    t = schedule.sigma_inv(sigma.double())
    rounded = schedule.sigma_inv(sigma)
    assert rounded.dtype == schedule.sigma(rounded).dtype == schedule.sigma_dot(rounded).dtype == torch.float32
    torch.testing.assert_close(rounded.double(), t, rtol=1e-6, atol=0)


@each
def test_sigma_vanishes_at_time_zero(schedule, formula):
    assert schedule.sigma(0.0) == 0
    if schedule is SPANNING:  # σ is real again, and 0, from t = −2β_min/β_d on
        assert schedule.sigma_inv(0.0) == pytest.approx(-2 * SPANNING.beta_min / SPANNING.beta_d, rel=4 * EPS)
    else:
        assert schedule.sigma_inv(0.0) == 0


@pytest.mark.parametrize(
    ("sigma_min", "sigma_max", "epsilon_s"),
    [(0.002, 80.0, 1e-3), (0.02, 100.0, 1e-3), (0.1, 1.0, 0.1), (1e-6, 1e6, 1e-5)],
)
def test_spanning_has_the_levels_asked_for(sigma_min, sigma_max, epsilon_s):
    schedule = VPSchedule.spanning(sigma_min, sigma_max, epsilon_s)
    # β_min·ε_s and ½β_d·ε_s² nearly cancel in ln(1 + σ_min²) where β_min is negative
    kappa = condition(schedule, epsilon_s)
    assert schedule.sigma(epsilon_s) == pytest.approx(sigma_min, rel=1e-15 * (4 + kappa / epsilon_s))
    assert schedule.sigma(1.0) == pytest.approx(sigma_max, rel=1e-13)


def test_spanning_of_the_paper_gives_its_own_parameters():
    own = VPSchedule()
    schedule = VPSchedule.spanning(own.sigma(1e-3), own.sigma(1.0), 1e-3)
    assert schedule.beta_d == pytest.approx(19.9, rel=1e-10)
    assert schedule.beta_min == pytest.approx(0.1, rel=1e-9)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: VPSchedule(beta_d=0.0), "beta_d"),
        (lambda: VPSchedule(beta_d=math.nan), "beta_d"),
        (lambda: VPSchedule(beta_min=-10.0), "beta_min"),
        (lambda: VPSchedule(beta_min=math.inf), "beta_min"),
        (lambda: VPSchedule(beta_min=math.nan), "beta_min"),
        (lambda: VPSchedule.spanning(0.0, 80.0), "sigma_min"),
        (lambda: VPSchedule.spanning(0.5, 1.0, 1e-3), "sigma_min, sigma_max"),
        (lambda: CosineSchedule(C_2=0.0), "C_2"),
    ],
)
def test_bad_parameters_are_named(make, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        make()
