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
from diffspace.cli.sampler_options import build_sampler
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


@pytest.mark.parametrize("case", [case for case in GOLDEN["cases"] if "sampler" not in case], ids=name)
def test_the_command_line_means_by_these_words_what_the_reference_means(case):
    given = {"steps": str(case["num_steps"]), "disc": case["discretization"], "schedule": case["schedule"]}
    given |= {"S_churn": None, "S_tmin": None} if "S_churn" not in case else {"S_churn": str(case["S_churn"])}
    given |= {"solver": case["solver"], "scaling": None if case["scaling"] == "none" else case["scaling"]}
    if case["discretization"] == "iddpm":
        given |= {"sigma_min": "0.002", "sigma_max": "81"}
    sampler, expected = build_sampler(given, denoiser=MIXTURE), options(case)
    assert (sampler.steps, sampler.process) == (expected["steps"], expected["process"])


def test_a_vp_schedule_spans_what_the_model_knows():
    def narrow(x, sigma, cond=None):
        return x

    narrow.sigma_min, narrow.sigma_max = 0.01, 50.0
    process = build_sampler({"schedule": "vp"}, denoiser=narrow).process
    assert process == Process(VPSchedule.spanning(0.01, 50.0), NoScaling())
    assert math.isclose(process.sigma(1e-3), 0.01)
    assert math.isclose(process.sigma(1.0), 50.0)
    levels = build_sampler({"schedule": "vp", "steps": "given:levels=[9,3,0.01,0]"}, denoiser=narrow).process
    assert levels == Process(VPSchedule.spanning(0.01, 9.0), NoScaling())
    with pytest.raises(ValueError, match="--process, --schedule: expected one of the two"):
        build_sampler({"process": "vp", "schedule": "vp"})
    with pytest.raises(ValueError, match="--beta-d: has no effect"):
        build_sampler({"schedule": "vp", "beta_d": "19"})
