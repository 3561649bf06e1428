"""Single steps against exact lines: their orders, where EDM puts them, and the truncation error of a Gaussian."""

import math

import pytest
import torch

from diffspace.oracles import GaussianMixture
from diffspace.sampling import EDMSteps, Euler, GivenSteps, Heun, Sampler, sample_from
from diffspace.studies import (
    SOLVERS,
    even_levels,
    local_errors,
    one_step,
    quantiles,
    step_sizes,
    stepped_lines,
    three_modes,
    truncation_errors,
)

_STD = 0.5


def _gaussian(std: float = _STD) -> GaussianMixture:
    means = torch.zeros(1, 1, dtype=torch.float64, device="cpu")
    return GaussianMixture(means, torch.tensor([std], dtype=torch.float64, device="cpu"))


def _gaussian_ends(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
    """Where a step from (a, x) to b ends for N(0, σ_d²), for which dx/dσ = x·σ/(σ² + σ_d²): both methods, the line."""
    slope = x * a / (a**2 + _STD**2)
    euler = x + (b - a) * slope
    heun = x + (b - a) / 2 * (slope + euler * b / (b**2 + _STD**2))
    return {"Euler": euler, "Heun": heun, "exact": x * ((b**2 + _STD**2) / (a**2 + _STD**2)).sqrt()}


def test_a_step_on_a_gaussian_is_that_of_its_closed_form() -> None:
    sigma, h, share = 1.3, 0.8, 0.9
    step = one_step(_gaussian(), sigma=sigma, h=h, share=share)
    a, b = (torch.tensor(level, dtype=torch.float64, device="cpu") for level in (sigma, sigma - h))
    start = torch.special.ndtri(torch.tensor(share, dtype=torch.float64, device="cpu")) * (a**2 + _STD**2).sqrt()
    ends = _gaussian_ends(start, a, b)
    found = {"Euler": step.euler, "Heun": step.heun, "exact": step.end}
    assert found == pytest.approx({name: float(end) for name, end in ends.items()}, abs=1e-12)
    assert step.start == pytest.approx(float(start), abs=1e-12)
    assert step.slope == pytest.approx(step.start * sigma / (sigma**2 + _STD**2), abs=1e-12)
    assert step.trial_slope == pytest.approx(step.euler * float(b) / float(b**2 + _STD**2), abs=1e-12)


def test_heuns_slope_is_the_mean_of_the_two_and_its_end_is_nearer() -> None:
    step = one_step(three_modes())
    assert (step.start - step.heun) / step.h == pytest.approx((step.slope + step.trial_slope) / 2, abs=1e-13)
    assert step.euler == pytest.approx(step.start - step.h * step.slope, abs=1e-13)
    assert 5 * abs(step.heun - step.end) < abs(step.euler - step.end)


@pytest.mark.parametrize(("sigma", "share"), [(1.0, 0.35), (1.5, 0.2), (0.6, 0.08)])
def test_local_errors_have_slopes_2_and_3(sigma: float, share: float) -> None:
    errors = local_errors(three_modes(), sigma=sigma, share=share, largest=0.7 * sigma)
    assert errors.slopes == pytest.approx({"Euler": 2.0, "Heun": 3.0}, abs=0.05)


def test_other_methods_of_second_order_have_the_slope_of_heuns() -> None:
    slopes = local_errors(three_modes(), solvers={"midpoint": Heun(0.5), "Ralston": Heun(2 / 3)}).slopes
    assert slopes == pytest.approx({"midpoint": 3.0, "Ralston": 3.0}, abs=0.05)


def test_levels_are_those_of_equation_5() -> None:
    steps = step_sizes(num_steps=18)
    for rho, sigma, sizes in zip(steps.rhos, steps.sigma, steps.sizes, strict=True):
        for i in range(18):
            root = 80 ** (1 / rho) + i / 17 * (0.002 ** (1 / rho) - 80 ** (1 / rho))
            assert float(sigma[i]) == pytest.approx(root**rho, rel=1e-12)
        assert float(sigma[18]) == 0
        assert float(sizes.sum()) == pytest.approx(80, rel=1e-14)


def test_sizes_are_equal_for_rho_1_and_in_proportion_for_a_large_rho() -> None:
    steps = step_sizes((1.0, 3.0, 7.0, 1e6))
    even, *falling, proportional = steps.sizes[:, :-1]
    assert float((even / even[0] - 1).abs().max()) < 1e-12
    for sizes in falling:
        assert bool((sizes.diff() < 0).all())
    ratio = proportional / steps.sigma[-1, :-2]
    assert float((ratio / (1 - (0.002 / 80) ** (1 / 17)) - 1).abs().max()) < 1e-4


@pytest.mark.parametrize(("solver", "num_steps", "factor"), [(Euler(), 35, 10), (Heun(), 18, 30)])
def test_uniform_steps_end_many_times_farther_from_the_exact_ends(
    solver: Euler | Heun, num_steps: int, factor: float
) -> None:
    data = three_modes()
    uniform = stepped_lines(data, even_levels(num_steps, 80.0), solver=solver)
    edm = stepped_lines(data, EDMSteps(num_steps, 0.002, 80.0).sigmas().tolist(), solver=solver)
    assert uniform.error > factor * edm.error
    assert uniform.sigma.diff() == pytest.approx(torch.full((num_steps,), -80 / num_steps, dtype=torch.float64))


def test_truncation_errors_of_a_gaussian_are_those_of_its_closed_form() -> None:
    latents = torch.tensor([[-1.2], [0.3], [2.0]], dtype=torch.float64, device="cpu")
    found = truncation_errors(_gaussian(), latents, sigma_min=0.002, sigma_max=80.0)
    levels = step_sizes(found.rhos).sigma[:, :-1]
    a, b = levels[:, :-1], levels[:, 1:]
    assert torch.allclose(found.sigma, a, rtol=1e-14, atol=0)
    rms = float(latents.square().mean().sqrt())
    ends = _gaussian_ends(80 * rms * ((a**2 + _STD**2) / (80**2 + _STD**2)).sqrt(), a, b)
    for name in SOLVERS:
        exact = (ends[name] - ends["exact"]).abs()
        assert float((found.errors[name] / exact - 1).abs().max()) < 5e-4, name


def test_truncation_errors_are_those_against_200_smaller_steps() -> None:
    data = three_modes()
    latents = (
        quantiles(
            data,
            torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64, device="cpu"),
            torch.tensor([80.0], dtype=torch.float64, device="cpu"),
        ).T
        / 80
    )
    found = truncation_errors(data, latents, rhos=(7.0,), num_steps=8, sigma_min=0.002, sigma_max=80.0)
    x, levels = 80 * latents, EDMSteps(8, 0.002, 80.0).sigmas().tolist()
    for i in range(7):
        start, end = levels[i], levels[i + 1]
        inner = tuple(start * (end / start) ** (k / 200) for k in range(200))
        fine = sample_from(data, x, start, sampler=Sampler(GivenSteps((*inner, end)), Heun())).x
        for name, solver in SOLVERS.items():
            one = sample_from(data, x, start, sampler=Sampler(GivenSteps((start, end)), solver)).x
            rms = float((one - fine).square().mean().sqrt())
            assert float(found.errors[name][0, i]) == pytest.approx(rms, rel=2e-3), (name, i)
        x = fine


@pytest.mark.parametrize("h", [0.0, -0.1, 1.0, math.nan])
def test_a_step_that_does_not_end_above_0_is_explained(h: float) -> None:
    with pytest.raises(ValueError, match="h: expected"):
        one_step(three_modes(), sigma=1.0, h=h)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_that_is_no_line_is_explained(share: float) -> None:
    with pytest.raises(ValueError, match="share: expected"):
        local_errors(three_modes(), share=share)
