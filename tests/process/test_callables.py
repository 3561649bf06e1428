"""Processes made of plain functions, beside the same ones in closed form."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from hypothesis import given, settings, strategies as st

from diffspace.process import (
    CallableScaling,
    CallableSchedule,
    CosineSchedule,
    FlowSchedule,
    Process,
    VESchedule,
    VPSchedule,
)

EPS = sys.float_info.epsilon
several = settings(max_examples=50, deadline=None)
levels = st.floats(-6, 4).map(lambda e: 10.0**e)


def cosine(t):
    rate = 0.5 * math.pi / 1.008
    return ((rate * t).sin() * (rate * (t + 0.016)).sin()).sqrt() / (rate * (t + 0.008)).cos()


PAIRS = {
    "vp": (
        Process(VPSchedule()),
        Process(
            sigma=lambda t: torch.expm1(9.95 * t**2 + 0.1 * t).sqrt(),
            s=lambda t: torch.exp(-0.5 * (9.95 * t**2 + 0.1 * t)),
        ),
    ),
    "ve": (Process(VESchedule()), Process(sigma=torch.sqrt)),
    "cosine": (
        Process(CosineSchedule()),
        Process(sigma=cosine, s=lambda t: 1 / (1 + cosine(t) ** 2).sqrt(), t_max=1.0),
    ),
    "flow": (Process(FlowSchedule()), Process(sigma=lambda t: t / (1 - t), s=lambda t: 1 - t)),
}


@pytest.mark.parametrize(("closed", "plain"), PAIRS.values(), ids=PAIRS)
@several
@given(sigma=levels)
def test_plain_functions_equal_the_closed_form(closed, plain, sigma):
    t = closed.sigma_inv(sigma)
    kappa = t * closed.sigma_dot(t) / sigma
    assert plain.sigma_inv(sigma) == pytest.approx(t, rel=8 * EPS * (1 + 1 / kappa), abs=0)
    for name in ("sigma", "sigma_dot", "s", "s_dot", "f", "g"):
        expected = getattr(closed, name)(t)
        assert getattr(plain, name)(t) == pytest.approx(expected, rel=64 * EPS * (1 + kappa), abs=0), name


STRANGE = Process(sigma=lambda t: 80 * t**3 * (0.6 + 0.4 * t), s=lambda t: 1 + 0.4 * (5 * t).sin())


@several
@given(t=st.floats(1e-4, 2.0))
def test_a_strange_process_and_its_derivatives(t):
    assert STRANGE.sigma(t) == pytest.approx(80 * t**3 * (0.6 + 0.4 * t), rel=4 * EPS)
    assert STRANGE.sigma_dot(t) == pytest.approx(80 * t**2 * (1.8 + 1.6 * t), rel=16 * EPS)
    assert STRANGE.s_dot(t) == pytest.approx(2 * math.cos(5 * t), rel=16 * EPS, abs=16 * EPS)
    assert STRANGE.sigma_inv(STRANGE.sigma(t)) == pytest.approx(t, rel=8 * EPS)


def test_a_table_of_levels_is_inverted_as_each_one_alone():
    sigmas = torch.logspace(-6, 4, 31, dtype=torch.float64)
    together = STRANGE.sigma_inv(sigmas.reshape(31, 1))
    assert together.shape == (31, 1)
    alone = torch.tensor([STRANGE.sigma_inv(sigma) for sigma in sigmas.tolist()], dtype=torch.float64)
    torch.testing.assert_close(together[:, 0], alone, rtol=8 * EPS, atol=0)
    torch.testing.assert_close(STRANGE.sigma(together[:, 0]), sigmas, rtol=32 * EPS, atol=0)


@pytest.mark.parametrize(
    "function", [lambda t: t**9, lambda t: torch.expm1(20 * t), lambda t: torch.log1p(t), lambda t: t + t.sin()]
)
def test_steep_and_flat_functions_are_inverted(function):
    schedule = CallableSchedule(function)
    sigmas = torch.logspace(-6, 1, 15, dtype=torch.float64)
    torch.testing.assert_close(schedule.sigma(schedule.sigma_inv(sigmas)), sigmas, rtol=1e-12, atol=0)


@pytest.mark.parametrize("sigma", [0.03, 1.0, 80.0])
def test_few_evaluations_find_a_level(sigma):
    calls = []

    def function(t):
        calls.append(t)
        return torch.expm1(9.95 * t**2 + 0.1 * t).sqrt()

    assert CallableSchedule(function).sigma_inv(sigma) == pytest.approx(VPSchedule().sigma_inv(sigma), rel=1e-14)
    assert len(calls) <= 20


def test_a_constant_scaling_may_be_a_number():
    scaling = CallableScaling(lambda t: 2.0)
    assert scaling.s(0.3, 0.0) == 2.0
    assert scaling.s_dot(0.3, 0.0, 0.0) == 0.0
    torch.testing.assert_close(scaling.s(torch.ones(3), torch.ones(3)), torch.full((3,), 2.0))


@pytest.mark.parametrize("sigma", [0.0, 0.5, torch.zeros(0), torch.tensor([0.0, 0.5])])
def test_shapes_and_zero(sigma):
    t = CallableSchedule(lambda t: t**2).sigma_inv(sigma)
    expected = sigma**0.5
    assert isinstance(t, float) == isinstance(sigma, float)
    torch.testing.assert_close(torch.as_tensor(t), torch.as_tensor(expected), rtol=1e-7, atol=0)


def test_derivatives_are_taken_inside_no_grad():
    with torch.no_grad():
        assert STRANGE.sigma_dot(0.5) == pytest.approx(80 * 0.25 * 2.6)


@pytest.mark.parametrize(
    ("function", "t_max", "sigma", "message"),
    [
        (lambda t: (3 * t).sin(), 0.9, 0.1, "not increasing"),
        (lambda t: torch.where(t < 0.5, t, 0.5), 1.0, 0.4, "not increasing"),
        (lambda t: t, 1.0, 2.0, "expected at most 1, .* at t = 1, got 2"),
        (lambda t: 1 - torch.exp(-t), None, 2.0, "expected at most 1,"),
        (lambda t: t, 1.0, math.nan, "got nan"),
        (lambda t: 0.002 * 40000**t, None, 0.001, "expected at least 0.002, .* at t = 0, got 0.001"),
        (lambda t: 0.002 * 40000**t, None, 0.0, "expected at least 0.002, .* at t = 0, got 0"),
        (lambda t: torch.stack([t, t]), None, 0.5, "expected a result like the times"),
    ],
)
def test_levels_that_have_no_time(function, t_max, sigma, message):
    with pytest.raises(ValueError, match=f"^sigma: .*{message}"):
        CallableSchedule(function, t_max).sigma_inv(sigma)


def test_a_level_below_the_start_is_refused_among_others():
    schedule = CallableSchedule(lambda t: 0.002 * 40000**t)
    good = torch.tensor([0.002, 80.0], dtype=torch.float64)
    torch.testing.assert_close(schedule.sigma_inv(good), torch.tensor([0.0, 1.0]).double(), rtol=1e-14, atol=1e-12)
    with pytest.raises(ValueError, match=r"got 0\.001"):
        schedule.sigma_inv(torch.tensor([80.0, 0.001]))
