"""Flow lines against the quantiles of p(x; σ), which they follow exactly in one dimension."""

from __future__ import annotations

import math

import pytest
import torch

from diffspace.oracles import GaussianMixture
from diffspace.process import Formula, Process
from diffspace.sampling import EDMSteps, Euler, Heun
from diffspace.studies import (
    between,
    flow_lines,
    lines_under,
    octave_errors,
    processes,
    quantiles,
    stepped_lines,
    strange_process,
    tangents,
    three_modes,
)
from diffspace.studies.problems import cumulative, even, log_space

F64 = torch.float64


def single(mean, std):
    return GaussianMixture(torch.tensor([[mean]], dtype=F64), torch.tensor([std], dtype=F64))


def test_quantiles_and_shares_are_inverse_to_each_other():
    data, u, sigma = three_modes(), even(40), log_space(1e-3, 80.0, 15)
    x = quantiles(data, u, sigma)
    assert cumulative(data, x, sigma[:, None]).sub(u).abs().max() < 1e-12
    slope = torch.autograd.functional.jacobian(lambda x: cumulative(data, x, sigma[3]).sum(), x[3])
    torch.testing.assert_close(slope, data.log_prob(x[3][:, None], sigma[3]).exp())


@pytest.mark.parametrize("name", ["strange", *processes()])
def test_the_lines_of_every_process_end_at_the_data(name):
    """Where EDM's lines from the same unscaled points end, of which the quantiles are the limit of small steps."""
    process, t_max = (strange_process(), 1.0) if name == "strange" else processes()[name]
    exact = quantiles(three_modes(), even(25), torch.zeros(1, dtype=F64))[0]
    coarse, fine = (
        (flow_lines(three_modes(), process, t_max, num_steps=n).x[-1] / process.s(0.0) - exact).abs().max()
        for n in (48, 384)
    )
    assert fine < 1e-3
    assert fine < coarse / 15


def test_densities_are_those_of_the_scaled_state():
    lines = flow_lines(three_modes(), strange_process(), 1.0, columns=40, rows=3000)
    mass = lines.density.sum(1) * 2 * lines.reach / 2999
    assert mass[1:].sub(1).abs().max() < 0.05  # the outermost 2 % of the noise are outside
    torch.testing.assert_close(lines.f, strange_process().f(lines.at))
    falling = strange_process().sigma_dot(lines.at) < 0
    assert torch.equal(lines.g.isnan(), falling)


def test_straight_lines_have_no_curvature():
    """For a single point, x = x₀ + σ·z: straight in σ, which is EDM's clock, and in rectified flow's."""
    point, sigma = single(0.0, 0.0), log_space(0.01, 80.0, 9)
    for name in ("EDM", "rectified flow"):
        process, _ = processes()[name]
        assert octave_errors(point, process, sigma).max() < 1e-11
        assert lines_under(single(0.0, 1e-6), process, process.sigma_inv(25.0)).deviation < 2e-6
    for name in ("VP", "VE"):
        process, _ = processes()[name]
        assert octave_errors(point, process, sigma).max() > 0.05
        assert lines_under(single(0.0, 1e-6), process, process.sigma_inv(25.0)).deviation > 0.1


def test_curvature_of_a_gaussian():
    """Lines of N(0, v) are x = √(v + σ²)·z, and an Euler step in σ from σ to σ/2 has the slope σ/√(v + σ²)·z."""
    v, sigma = 0.25, log_space(0.01, 80.0, 9)
    error = (v + sigma**2).sqrt() - 0.5 * sigma**2 / (v + sigma**2).sqrt() - (v + sigma**2 / 4).sqrt()
    z = quantiles(single(0.0, 1.0), even(32), torch.zeros(1, dtype=F64))[0]
    measured = octave_errors(single(0.0, math.sqrt(v)), Process(), sigma)
    torch.testing.assert_close(measured, error.abs() * z.square().mean().sqrt(), rtol=1e-6, atol=1e-13)


def test_a_process_between_two_is_at_both_ends_one_of_them():
    (vp, end), edm = processes()["VP"], processes()["EDM"]
    for share, (process, t_max) in zip((0.0, 1e-9, 1 - 1e-9, 1.0), [(vp, end), (vp, end), edm, edm], strict=True):
        found = lines_under(three_modes(), *between(vp, end, *edm, share))
        alone = lines_under(three_modes(), process, t_max)
        torch.testing.assert_close(found.x, alone.x, rtol=1e-6, atol=1e-6)
        assert found.deviation == pytest.approx(alone.deviation, rel=1e-6)


def test_a_process_between_two_has_the_geometric_means_of_their_levels():
    (vp, end), (edm, edm_end) = processes()["VP"], processes()["EDM"]
    process, t_max = between(vp, end, edm, edm_end, 0.25)
    assert t_max == pytest.approx(end**0.75 * edm_end**0.25)
    for u in (0.1, 0.5, 1.0):
        assert process.sigma(u * t_max) == pytest.approx(vp.sigma(u * end) ** 0.75 * edm.sigma(u * edm_end) ** 0.25)
        slope = (process.s(u * t_max + 1e-6) - process.s(u * t_max - 1e-6)) / 2e-6
        assert process.s_dot(u * t_max) == pytest.approx(slope, rel=1e-4, abs=1e-9)


def test_tangents_meet_zero_at_the_denoiser():
    """(x(σ + h) − x(σ − h))/2h is the slope of the exact line, and x − σ·slope is D."""
    found, h = tangents(three_modes(), lines=4), 1e-4
    ahead, behind = (quantiles(three_modes(), even(4), found.at + step) for step in (h, -h))
    slope = (ahead - behind) / (2 * h)
    torch.testing.assert_close(found.x_at - found.at[:, None] * slope, found.denoised, rtol=0, atol=1e-6)


def test_steps_end_near_the_exact_lines_when_they_are_small():
    levels = EDMSteps(40, sigma_min=0.01, sigma_max=3.0).sigmas().tolist()
    euler, heun = (stepped_lines(three_modes(), levels, solver=solver) for solver in (Euler(), Heun()))
    assert heun.error < 0.1 * euler.error < 0.01
    torch.testing.assert_close(euler.x[0], quantiles(three_modes(), even(12), torch.tensor([3.0], dtype=F64))[0])


@pytest.mark.parametrize(
    ("sigma", "s", "message"),
    [
        ("t - 0.5", "1", "sigma: expected a positive number at every t up to 1, got -0.5 at t = 0.0"),
        ("1 + t", "1", "sigma: expected 0 at t = 0"),
        ("t", "1 - 2t", "s: expected a positive number .* got -0.0.* at t = 0.5"),
        ("t / (1 - t)", "1", "sigma: expected a positive number .* got inf at t = 1"),
    ],
)
def test_a_process_that_is_none_is_refused(sigma, s, message):
    with pytest.raises(ValueError, match=message):
        flow_lines(three_modes(), Process(sigma=Formula(sigma), s=Formula(s)), 1.0)


def test_data_of_more_dimensions_are_refused():
    with pytest.raises(ValueError, match=r"data: expected single numbers, of shape \(1,\), got \(2,\)"):
        flow_lines(GaussianMixture(torch.zeros(1, 2), torch.ones(1)), Process(), 1.0)
