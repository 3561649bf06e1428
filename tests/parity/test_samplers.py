"""Every case of the reference implementation's generalised sampler and of its Algorithm 2, through `sample()`."""

import math

import pytest
import torch

from diffspace import (
    Churn,
    EDMSchedule,
    EDMSteps,
    Euler,
    Heun,
    IDDPMSteps,
    NoScaling,
    Process,
    VariancePreserving,
    VESchedule,
    VESteps,
    VPSchedule,
    VPSteps,
    sample,
)
from golden import read_golden

GOLDEN, MIXTURE, LATENTS = read_golden("samplers")
STEPS = {"vp": VPSteps, "ve": VESteps, "iddpm": lambda n: IDDPMSteps(n, sigma_min=0.002, sigma_max=81), "edm": EDMSteps}
SCALINGS = {"vp": VariancePreserving(), "none": NoScaling()}


def noise(step, like):
    flat = torch.arange(like.numel(), dtype=torch.float64).reshape(like.shape)
    return math.sqrt(2) * torch.sin(1.7 * (step + 1) + 2.3 * flat)


def options(case):
    """The arguments of `sample()` for a case of the file."""
    churn = None
    if "S_churn" in case:
        churn = Churn(case["S_churn"], case.get("S_min", 0), case.get("S_max", math.inf), case.get("S_noise", 1))
    if case.get("sampler") == "edm_sampler":
        return {"steps": EDMSteps(case["num_steps"]), "solver": Heun(), "process": Process(), "churn": churn}
    steps = STEPS[case["discretization"]](case["num_steps"])
    schedule = {"vp": VPSchedule.spanning(*steps.resolve()), "ve": VESchedule(), "linear": EDMSchedule()}
    return {
        "steps": steps,
        "solver": Euler() if case["solver"] == "euler" else Heun(case.get("alpha", 1.0)),
        "process": Process(schedule[case["schedule"]], SCALINGS[case["scaling"]]),
        "churn": churn,
    }


def name(case):
    return " ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for k, value in case.items() if k != "x")


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=name)
def test_end_points_are_the_reference_s(case):
    result = sample(MIXTURE, latents=LATENTS, noise=noise, **options(case))
    expected = torch.tensor(case["x"], dtype=torch.float64)
    assert ((result.x - expected).abs() / expected.abs()).max() < 1e-9


def test_no_case_is_missing():
    assert len(GOLDEN["cases"]) == 80
