"""The numbers behind the rooms of exact denoisers: those of the library, and of the code that the page shows."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch

import diffspace as ds
from diffspace.config import build
from diffspace.explorer.app import PICTURES
from diffspace.explorer.jobs import Job
from diffspace.explorer.process_room import ProcessSettings, process_picture
from diffspace.explorer.sampler_room import fit_picture, front_picture, sampler_picture
from diffspace.explorer.sampler_settings import SOLVERS, FitSettings, FrontSettings, SamplerChoice, SamplerSettings
from diffspace.explorer.settings import Choice, Data
from diffspace.oracles import Gaussian
from diffspace.studies import lines_under, processes, three_modes

JOB = Job(1000.0)
RING = Data(modes=tuple((1.0, 0.1, math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)) for k in range(8)))
POINTS = Data(points=((0.0, 0.5), (1.0, -0.5), (-1.0, 0.0)), width=0.1)
WIDE = Data(modes=((1.0, 0.5, 0.25),))
FORMULA = Choice("formula", "3 t (1 + 0.55 sin(14 t))", "1/(1 + t)", 1.0)


def ran(code: str) -> dict[str, Any]:
    """The names that the code of a picture leaves."""
    names: dict[str, Any] = {}
    exec(code, names)
    return names


@pytest.mark.parametrize(
    "settings",
    [
        ProcessSettings(),
        ProcessSettings(noising=Choice("VP"), towards=Choice("rectified flow"), share=0.4, sigma_max=20.0, lines=7),
        ProcessSettings(noising=FORMULA),
        ProcessSettings(data=RING, noising=Choice("cosine"), lines=5, time=0.3),
        ProcessSettings(data=POINTS, noising=FORMULA, lines=4),
    ],
)
def test_the_code_of_a_process_makes_its_picture(settings):
    shown = process_picture(settings, JOB)
    names = ran(shown["python"])
    assert torch.equal(names["lines"].x, shown["x"])
    assert names["lines"].deviation == shown["deviation"]
    assert names["t_max"] == shown["t_max"]


def test_lines_of_the_plane_end_at_the_data_and_have_the_density_of_the_noisy_data():
    shown = process_picture(ProcessSettings(data=POINTS, time=1.0, sigma_max=4.0), JOB)
    points = torch.tensor(POINTS.points, dtype=torch.float64)
    assert torch.cdist(shown["x"][0], points).min(1).values.max() < 5 * POINTS.width
    cell = (2 * shown["reach"] / (shown["density"].shape[0] - 1)) ** 2
    assert 0.5 < float(shown["density"].sum()) * cell < 1.01  # what is beyond the edges is not shown
    torch.testing.assert_close(shown["x"][-1], 4.0 * ds.initial_latents(range(25), (2,)).double())


def test_a_gaussian_of_the_plane_has_the_lines_of_its_closed_form():
    data = Data(modes=((1.0, 0.5, 0.0, 0.0),))
    shown = process_picture(ProcessSettings(data=data, sigma_max=10.0, lines=6), JOB)
    exact = Gaussian(torch.zeros(2, dtype=torch.float64), 0.25 * torch.eye(2, dtype=torch.float64))
    start = shown["x"][-1]
    for k in (0, 40, 100):
        torch.testing.assert_close(shown["x"][k], exact.flow(start, 10.0, float(shown["sigma"][k])), rtol=0, atol=5e-5)


def test_coefficients_are_those_of_the_process():
    shown = process_picture(ProcessSettings(noising=Choice("VE"), sigma_max=2.0), JOB)
    process, _ = processes()["VE"]
    torch.testing.assert_close(shown["g"][1:], process.g(shown["t"][1:]))
    assert torch.equal(lines_under(three_modes(), process, 4.0, lines=25, columns=161).x, shown["x"])


@pytest.mark.parametrize(
    ("data", "a", "more"),
    [
        (Data(), SamplerChoice(), {}),
        (WIDE, SamplerChoice("heun", alpha=0.5, rho=3.0, num_steps=7), {"noising": Choice("VP")}),
        (RING, SamplerChoice("dpmpp2m", steps="loglinear", num_steps=9), {"sigma_max": 20.0, "sigma_min": 0.01}),
        (RING, SamplerChoice("ab:k=4", steps="time", num_steps=12), {"noising": Choice("rectified flow")}),
        (Data(), SamplerChoice("euler", steps="time", num_steps=30), {"noising": FORMULA}),
        (POINTS, SamplerChoice(S_churn=20.0, S_noise=1.003, num_steps=16), {"shift": 0.3, "shrink": 0.02}),
        (WIDE, SamplerChoice("sde:stages=2", eta=0.7, num_steps=30), {}),
        (WIDE, SamplerChoice("sde", beta="0.5/t", num_steps=40), {}),
        pytest.param(
            *(Data(), SamplerChoice("fitted", num_steps=4), {"b": SamplerChoice("euler-ancestral", num_steps=20)}),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_code_of_a_sampler_makes_its_picture(data, a, more):
    settings = SamplerSettings(data=data, a=a, count=32, lines=3, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few samples at boundaries
        if a.solver == "fitted":
            fit_picture(FitSettings(data, num_steps=a.num_steps), JOB)
        shown = sampler_picture(settings, JOB)
        names = ran(shown["python"])
    assert torch.equal(names["run_a"].x, shown["a"]["ends"])
    assert names["run_a"].nfe == shown["a"]["nfe"]
    assert names["truth"].error_of(names["run_a"].x).rms == shown["a"]["rms"]
    if settings.b is not None:
        assert torch.equal(names["run_b"].x, shown["b"]["ends"])


@pytest.mark.parametrize("word", [word for word in SOLVERS if word != "fitted"])
def test_every_solver_ends_near_the_data(word):
    choice = SamplerChoice(word, num_steps=60)
    shown = sampler_picture(SamplerSettings(data=WIDE, a=choice, count=64), JOB)["a"]
    assert shown["distance"] < 0.15
    assert shown["rms"] < 0.1 or shown["adds_noise"]
    assert shown["num_steps"] == 60


def test_steps_of_heun_begin_where_the_tangent_is_and_end_at_its_mean():
    """Euler's step from (σ, x) follows the line to D at σ = 0; the states of the picture are those of the run."""
    shown = sampler_picture(SamplerSettings(a=SamplerChoice("euler", num_steps=9)), JOB)["a"]
    share = (shown["sigma"][1:] / shown["sigma_hat"])[:, None, None]
    torch.testing.assert_close(shown["x"][1:], shown["denoised"] + share * (shown["x_hat"] - shown["denoised"]))
    assert torch.equal(shown["x_hat"], shown["x"][:-1])


def test_churn_lifts_each_step_by_gamma():
    choice = SamplerChoice("euler", num_steps=20, S_churn=4.0, S_tmin=0.05, S_tmax=10.0)
    shown = sampler_picture(SamplerSettings(a=choice), JOB)["a"]
    sigma, lifted = shown["sigma"][:-1], shown["sigma_hat"] / shown["sigma"][:-1]
    inside = (sigma >= 0.05) & (sigma <= 10.0)
    torch.testing.assert_close(lifted, torch.where(inside, 1.2, 1.0).double())


def test_distances_are_small_for_exact_samples_and_grow_with_an_error():
    shown = sampler_picture(SamplerSettings(data=WIDE, count=2000, shift=0.1), JOB)
    assert shown["distance"] < 0.03
    # the line of a Gaussian moves by s/√(σ_max² + s²) of what its start moves
    moved = 0.1 * 80 * 0.5 / math.sqrt(80**2 + 0.25)
    assert shown["a"]["distance"] == pytest.approx(moved, abs=0.03)


def test_the_front_is_that_of_the_library_and_its_code():
    settings = FrontSettings(data=WIDE)
    shown = front_picture(settings, JOB)
    rows = ran(shown["python"])["comparison"].rows
    heun = next(curve for curve in shown["curves"] if curve["solver"].startswith("Heun"))
    errors = {row.nfe: row.error.rms for row in rows if row.name == "heun"}
    assert dict(zip(heun["nfe"], heun["rms"], strict=True)) == errors
    slope = math.log(heun["rms"][-1] / heun["rms"][-2]) / math.log(heun["nfe"][-1] / heun["nfe"][-2])
    assert slope < -1.7  # order 2


@pytest.mark.slow
def test_a_fit_is_better_than_known_solvers_and_says_how_well_it_is_known():
    told: list[Any] = []
    job = Job(1000.0, told.append)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = fit_picture(FitSettings(RING, num_steps=5), job)
    known = front_picture(FrontSettings(data=RING), JOB)["curves"]
    best = min(error for curve in known for nfe, error in zip(curve["nfe"], curve["rms"], strict=True) if nfe <= 6)
    assert found["rms"] < best
    assert found["standard_error"] < found["rms"]
    assert [event["done"] for event in told] == sorted(event["done"] for event in told)
    assert found["sigma"][0] == 80


def test_an_unfitted_solver_says_what_to_do():
    with pytest.raises(ValueError, match="solver: nothing is fitted yet to these data and N"):
        sampler_picture(SamplerSettings(data=POINTS, a=SamplerChoice("fitted", num_steps=11)), JOB)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"a": {"num_steps": 10**9}}, "a.num_steps: expected an integer from 1 to 200"),
        ({"a": {"solver": "os:system"}}, "a.solver: 'os:system' is unknown"),
        ({"a": {"solver": "heun:alpha=0.5"}}, "a.solver: 'heun:alpha=0.5' is unknown; known: ab:k=2"),
        ({"a": {"steps": "given"}}, "a.steps: expected 'edm' or"),
        ({"a": {"rho": 0}}, "a.rho: expected a number in"),
        ({"b": {"alpha": 7}}, "b.alpha: expected a number in"),
        ({"count": 10**7}, "count: expected an integer from 16 to 2000"),
        ({"sigma_min": 50.0, "sigma_max": 80.0}, "sigma_min: expected a number in"),
        ({"a": {"solver": "sde", "num_steps": 4}}, "a."),
        ({"a": {"solver": "sde", "beta": "t+", "num_steps": 40}}, "a.beta: something is missing at the end"),
        ({"a": {"solver": "sde", "beta": "-1", "num_steps": 40}}, "a.beta"),
        ({"a": {"solver": "dpmpp2m", "S_churn": 5.0}}, "a.churn: DPMSolverPP2M remembers earlier steps"),
        ({"noising": {"name": "formula"}}, "a.steps: σ(t) falls on its way"),
        ({"noising": {"name": "formula", "sigma": "t", "s": "-1"}}, "s: expected a positive number"),
    ],
)
def test_a_wrong_sampler_is_named(settings, message):
    chosen = PICTURES["sampler"]
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        chosen.make(build(chosen.settings, settings), JOB)
    assert str(refused.value).startswith(message)


def test_steps_of_euler_miss_by_what_the_library_says():
    """In VP's time the lines of data of unit variance do not move at all, so that Euler's steps miss nothing."""
    unit = Data(modes=((1.0, 1.0, 0.0),))
    missed = {
        name: process_picture(ProcessSettings(data=unit, noising=Choice(name), sigma_max=80.0), JOB)["euler_error"]
        for name in ("EDM", "VP", "VE")
    }
    assert missed["VP"] < 0.01 < 0.05 < missed["EDM"] < missed["VE"]
    assert process_picture(ProcessSettings(noising=Choice("formula")), JOB)["euler_error"] is None  # σ(t) falls
