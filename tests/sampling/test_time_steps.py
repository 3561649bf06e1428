"""Time steps against Table 1, written out one level at a time."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from diffspace import (
    BetaSteps,
    CosineSchedule,
    EDMSchedule,
    EDMSteps,
    FlowSchedule,
    GivenSteps,
    GivenTimes,
    IDDPMLevels,
    IDDPMSteps,
    LogLinearSteps,
    ScheduleSteps,
    VESteps,
    VPSchedule,
    VPSteps,
)
from diffspace.sampling.beta_distribution import beta_quantile

RANGED = [EDMSteps, LogLinearSteps, VESteps, VPSteps, IDDPMSteps, ScheduleSteps, BetaSteps]
U = IDDPMLevels().table().flip(0).tolist()  # u_0, u_1, …, u_999, falling


def vp_sigma(t, beta_d=19.9, beta_min=0.1):
    return math.sqrt(math.expm1(0.5 * beta_d * t**2 + beta_min * t))


def edm(i, last, rho=7.0, high=80.0, low=0.002):
    return (high ** (1 / rho) + i / last * (low ** (1 / rho) - high ** (1 / rho))) ** rho


FORMULAS = {
    "edm": (EDMSteps, edm),
    "edm, rho = 3": (lambda n, **k: EDMSteps(n, rho=3.0, **k), lambda i, last: edm(i, last, rho=3.0)),
    "log-linear": (LogLinearSteps, lambda i, last: 80 * (0.002 / 80) ** (i / last)),
    "ve": (VESteps, lambda i, last: math.sqrt(100**2 * (0.02**2 / 100**2) ** (i / last))),
    "vp": (VPSteps, lambda i, last: vp_sigma(1 + i / last * (1e-3 - 1))),
    "even in σ": (lambda n, **k: ScheduleSteps(n, schedule=EDMSchedule(), **k), lambda i, last: edm(i, last, rho=1.0)),
    "even in flow time": (
        lambda n, **k: ScheduleSteps(n, schedule=FlowSchedule(), **k),
        lambda i, last: (t := 80 / 81 + i / last * (0.002 / 1.002 - 80 / 81)) / (1 - t),
    ),
    "iddpm": (IDDPMSteps, lambda i, last: U[math.floor(8 + (999 - 8) / last * i + 0.5)]),
}


@pytest.mark.parametrize("n", [2, 3, 18, 101])
@pytest.mark.parametrize(("make", "formula"), FORMULAS.values(), ids=FORMULAS)
def test_levels_are_those_of_table_1(make, formula, n):
    to_zero = make(n).sigmas().tolist()
    assert to_zero[:-1] == pytest.approx([formula(i, n - 1) for i in range(n)], rel=1e-12)
    assert to_zero[-1] == 0
    to_sigma_min = make(n, terminal="sigma_min").sigmas().tolist()
    assert to_sigma_min == pytest.approx([formula(i, n) for i in range(n + 1)], rel=1e-12)


@pytest.mark.parametrize("cls", RANGED)
@pytest.mark.parametrize("terminal", ["zero", "sigma_min"])
def test_levels_fall_inside_the_range(cls, terminal):
    for n in (1, 2, 3, 4, 18, 51, 100):
        steps = cls(n, terminal=terminal)
        low, high = steps.resolve()
        levels = steps.sigmas()
        assert levels.dtype == torch.float64
        assert levels.shape == (n + 1,)
        assert bool((levels.diff() < 0).all())
        assert float(levels[0]) == pytest.approx(high, rel=1e-12)
        assert levels[0] <= high
        assert float(levels[-1]) == (0 if terminal == "zero" else pytest.approx(low, rel=1e-12))
        assert bool((levels[levels > 0] >= low).all())


def test_the_paper_s_ranges_are_the_defaults():
    assert EDMSteps().resolve() == LogLinearSteps().resolve() == (0.002, 80.0)
    assert VESteps().resolve() == (0.02, 100.0)
    assert VPSteps().resolve() == pytest.approx((vp_sigma(1e-3), vp_sigma(1)))
    assert IDDPMSteps().resolve() == (U[999], U[8])
    assert IDDPMSteps().resolve()[1] == pytest.approx(80.2, abs=0.05)


@pytest.mark.parametrize("cls", RANGED)
def test_the_default_range_gives_way_to_the_model_s(cls):
    low, high = cls(5).resolve((0.05, 10.0))
    assert (low, high) == (0.05, 10.0)
    levels = cls(5).sigmas((0.05, 10.0))
    assert bool((levels[:-1] >= 0.05).all())
    assert bool((levels <= 10.0).all())


@pytest.mark.parametrize("cls", RANGED)
@pytest.mark.parametrize(("name", "value"), [("sigma_min", 0.03), ("sigma_max", 70.0)])
def test_an_explicit_value_outside_the_model_s_range_is_an_error_unless_clipped(cls, name, value):
    steps = cls(5, **{name: value})
    with pytest.raises(ValueError, match=rf"{name}: {value:g} is outside the model's range \[0.05, 10\]"):
        steps.sigmas((0.05, 10.0))
    clipped = cls(5, clip=True, **{name: value})
    assert clipped.resolve((0.05, 10.0)) == (0.05, 10.0)
    levels = clipped.sigmas((0.05, 10.0))
    assert bool((levels[:-1] >= 0.05).all())
    assert bool((levels <= 10.0).all())


def test_vp_steps_over_another_range_recompute_both_betas():
    levels = VPSteps(7, sigma_min=0.01, sigma_max=50.0).sigmas().tolist()
    start, end = math.log1p(0.01**2), math.log1p(50.0**2)
    beta_d = 2 * (end - start / 1e-3) / (1 - 1e-3)
    beta_min = end - 0.5 * beta_d
    times = [1 + i / 6 * (1e-3 - 1) for i in range(7)]
    assert levels[:-1] == pytest.approx([vp_sigma(t, beta_d, beta_min) for t in times], rel=1e-12)
    assert (levels[0], levels[-2]) == pytest.approx((50.0, 0.01), rel=1e-12)


def test_iddpm_steps_over_a_range_run_over_the_levels_inside_it():
    inside = [u for u in U if 0.002 <= u <= 81]
    levels = IDDPMSteps(9, sigma_min=0.002, sigma_max=81).sigmas().tolist()
    assert levels[:-1] == [inside[math.floor((len(inside) - 1) / 8 * i + 0.5)] for i in range(9)]


def test_iddpm_steps_cannot_be_more_than_the_levels():
    assert len(IDDPMSteps(992).sigmas()) == 993
    with pytest.raises(ValueError, match="num_steps: 993, but only 992 levels are in"):
        IDDPMSteps(993).sigmas()


@pytest.mark.parametrize("cls", RANGED)
@pytest.mark.parametrize("terminal", ["zero", "sigma_min"])
@pytest.mark.parametrize("start", [3.0, 37.5, 79.9])
def test_a_start_spaces_the_steps_anew(cls, terminal, start):
    steps = cls(9, terminal=terminal)
    levels = steps.sigmas(start=start)
    assert float(levels[0]) == start
    assert bool((levels.diff() < 0).all())
    assert levels[-1] == (0 if terminal == "zero" else steps.sigmas()[-1])


def test_a_start_takes_the_place_of_sigma_max():
    for cls in (EDMSteps, LogLinearSteps, VESteps):
        from_start = cls(9, sigma_min=0.02).sigmas(start=3.0)
        assert from_start.tolist() == pytest.approx(cls(9, sigma_min=0.02, sigma_max=3.0).sigmas().tolist(), rel=1e-12)
    # VP keeps its schedule, and the times run from σ⁻¹(start)
    t = VPSchedule().sigma_inv(3.0)
    expected = [vp_sigma(t + i / 8 * (1e-3 - t)) for i in range(9)]
    assert VPSteps(9).sigmas(start=3.0)[:-1].tolist() == pytest.approx(expected, rel=1e-12)


def test_a_start_at_an_explicit_sigma_max_is_met_exactly_by_a_table_of_levels():
    assert float(IDDPMSteps(9, sigma_max=50.0).sigmas(start=50.0)[0]) == 50.0


@pytest.mark.parametrize("start", [0.001, 0.002, 81.0, -1.0, 0.0, math.nan, math.inf])
def test_a_start_outside_the_range_is_an_error(start):
    with pytest.raises(ValueError, match=r"sigma_start: expected a level above sigma_min = 0.002, at most 80"):
        EDMSteps(9).sigmas((0.0, 80.0), start=start)


def test_given_levels_are_used_unchanged():
    steps = GivenSteps((5.0, 1.0, 0.0))
    assert steps.num_steps == 2
    assert steps.sigmas().tolist() == [5.0, 1.0, 0.0]
    assert steps.sigmas((0.05, 10.0), start=5.0).tolist() == [5.0, 1.0, 0.0]
    assert GivenSteps((5.0, 1.0, 0.0), clip=True).sigmas((2.0, 4.0)).tolist() == [4.0, 2.0, 0.0]
    with pytest.raises(ValueError, match=r"levels: from 5 to 1 are outside the model's range \[2, 10\]"):
        steps.sigmas((2.0, 10.0))
    with pytest.raises(ValueError, match="sigma_start: 4, but the given levels begin at 5"):
        steps.sigmas(start=4.0)


@pytest.mark.parametrize("cls", RANGED)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, "num_steps: expected an integer from 1 to 100000, got 0"),
        ({"num_steps": -3}, "num_steps: .* got -3"),
        ({"sigma_min": 0.0}, r"sigma_min: expected a number in \(0, inf\), got 0.0"),
        ({"sigma_max": math.inf}, "sigma_max: .* got inf"),
        ({"sigma_max": math.nan}, "sigma_max: .* got nan"),
        ({"sigma_min": 2.0, "sigma_max": 2.0}, "sigma_min: 2.0 is not below sigma_max = 2.0"),
        ({"terminal": "none"}, "terminal: expected 'zero' or 'sigma_min', got 'none'"),
    ],
)
def test_wrong_arguments_are_named(cls, arguments, message):
    # `terminal` is a Literal, which the checker of types in tests would refuse first
    arguments = {"num_steps": 5, **arguments}
    with pytest.raises(Exception, match=message if "terminal" not in arguments else "terminal|none"):
        cls(**arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EDMSteps(rho=0.0), "rho: .* got 0.0"),
        (lambda: EDMSteps(rho=math.inf), "rho: .* got inf"),
        (lambda: VPSteps(epsilon_s=1.0), "epsilon_s: .* got 1.0"),
        (lambda: VPSteps(beta_d=-1.0), "beta_d: .* got -1.0"),
        (lambda: IDDPMSteps(j0=999), "j0: expected an integer from 0 to 998, got 999"),
        (lambda: IDDPMSteps(j0=-1), "j0: .* got -1"),
        (lambda: IDDPMSteps(M=0), "M: .* got 0"),
        (lambda: GivenSteps((1.0,)), "levels"),
        (lambda: GivenSteps((1.0, 1.0)), "levels"),
        (lambda: GivenSteps((1.0, 2.0)), "levels"),
        (lambda: GivenSteps((1.0, -1.0)), "levels"),
        (lambda: GivenSteps((math.inf, 1.0)), "levels"),
        (lambda: GivenSteps((math.nan, 1.0)), "levels"),
        (lambda: GivenTimes((1.0,)), "times"),
        (lambda: GivenTimes((1.0, math.nan)), "times"),
    ],
)
def test_wrong_arguments_of_one_class_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("schedule", [VPSchedule(), CosineSchedule(), FlowSchedule()])
def test_steps_of_a_schedule_are_even_in_its_time(schedule):
    steps = ScheduleSteps(20, schedule=schedule, terminal="sigma_min")
    times = schedule.sigma_inv(steps.sigmas())
    torch.testing.assert_close(times.diff(), times.diff().mean().expand(20), rtol=1e-9, atol=0)
    assert steps.resolve() == (0.002, 80.0)


def test_vp_steps_are_those_of_the_schedule_over_its_range():
    low, high = VPSteps(7).resolve()
    torch.testing.assert_close(VPSteps(7).sigmas(), ScheduleSteps(7, low, high).sigmas(), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (1.0, 1.0), (0.3, 2.5), (5.0, 0.5), (40.0, 60.0), (300.0, 2.0)])
def test_quantiles_of_beta_distributions(a, b):
    shares = [0.0, 1e-6, 0.01, 0.1, 0.3, 0.5, 0.77, 0.9, 0.99, 1.0]
    expected = stats.beta.ppf(shares, a, b)
    assert [beta_quantile(p, a, b) for p in shares] == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("schedule", [VPSchedule(), FlowSchedule()])
@pytest.mark.parametrize(("alpha", "beta"), [(0.6, 0.6), (0.5, 1.5)])
@pytest.mark.parametrize("terminal", ["zero", "sigma_min"])
def test_beta_steps_are_quantiles_over_the_times(schedule, alpha, beta, terminal):
    steps = BetaSteps(12, terminal=terminal, schedule=schedule, alpha=alpha, beta=beta)
    levels = steps.sigmas()
    times = schedule.sigma_inv(levels[levels > 0])
    least, greatest = (schedule.sigma_inv(end) for end in (0.002, 80.0))
    shares = stats.beta.ppf(1 - np.linspace(0, 1, len(times)), alpha, beta)
    np.testing.assert_allclose(times.numpy(), least + (greatest - least) * shares, rtol=1e-9)


def test_even_beta_steps_are_those_of_the_schedule():
    torch.testing.assert_close(
        BetaSteps(9, alpha=1.0, beta=1.0).sigmas(), ScheduleSteps(9).sigmas(), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BetaSteps(5, alpha=0.0), "alpha: .* got 0.0"),
        (lambda: BetaSteps(5, beta=math.inf), "beta: .* got inf"),
        (
            lambda: BetaSteps(50, alpha=1e-3).sigmas(),
            "steps: BetaSteps.*alpha=0.001, beta=0.6\\) puts two levels in one place",
        ),
    ],
)
def test_wrong_arguments_of_beta_steps_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
