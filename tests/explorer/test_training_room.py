"""Room 3: its curves are the paper's formulas, and its trainings those of the code that it shows."""

import math

import pytest
import torch

import diffspace as ds
from diffspace.config import build
from diffspace.explorer.jobs import Job, SupersededError
from diffspace.explorer.settings import Data
from diffspace.explorer.training_room import Exact, curves_picture, exact_picture, stages, training_picture
from diffspace.explorer.training_settings import Design, Training, data_deviation, held_out, measured_levels
from diffspace.preconditioning import Preconditioned
from diffspace.studies import small_network

RING = {"modes": [[1, 0.1, math.cos(a), math.sin(a)] for a in (0, 1, 2, 3, 4, 5)]}


def curves(**settings):
    return curves_picture(build(Design, settings), Job(60.0))


def trained(**settings):
    """The stages of a training, and its result."""
    job, events = Job(60.0), []
    job.send = events.append
    result = training_picture(build(Training, settings), job)
    return [event["stage"] for event in events if "stage" in event], result


def run(python):
    names = {}
    exec(python, names)
    return names


def test_coefficients_are_those_of_table_1():
    found = curves(sigma_data=0.5)
    sigma = found["sigma"]
    edm, ve, vp = (found["curves"][name] for name in ("EDM", "VE", "VP"))
    total = sigma**2 + 0.25
    torch.testing.assert_close(edm["c_skip"], 0.25 / total)
    torch.testing.assert_close(edm["c_out"], sigma * 0.5 / total.sqrt())
    torch.testing.assert_close(edm["c_in"], 1 / total.sqrt())
    torch.testing.assert_close(edm["c_noise"], sigma.log() / 4)
    inside = (sigma >= 0.02) & (sigma <= 100)
    torch.testing.assert_close(ve["c_noise"][inside], (sigma / 2).log()[inside])
    assert bool(ve["c_noise"][~inside].isnan().all())
    known = sigma < 100
    torch.testing.assert_close(vp["c_out"][known], -sigma[known])
    assert found["at_sigma_data"]["c_skip"] == pytest.approx(0.5)


@pytest.mark.parametrize("data", [{}, RING])
def test_edm_sees_gives_and_weighs_one(data):
    edm = curves(data=data)["curves"]["EDM"]
    for name in ("input", "target", "weight"):
        torch.testing.assert_close(edm[name], torch.ones(121, dtype=torch.float64))


def test_a_wrong_sigma_data_is_seen_in_the_variances():
    found = curves(sigma_data=5.0)
    edm, sigma, deviation = found["curves"]["EDM"], found["sigma"], found["deviation"]
    torch.testing.assert_close(edm["input"], (sigma**2 + deviation**2) / (sigma**2 + 25))
    # where noise is large F has to give y/σ_data, where it is small −ε
    assert float(edm["target"][-1]) == pytest.approx((deviation / 5) ** 2, rel=0.02)
    assert float(edm["target"][0]) == pytest.approx(1.0, rel=0.01)


def test_signal_in_the_target():
    shown = {name: curves(prediction=name)["curves"][name]["signal"] for name in ("x₀", "ε", "EDM")}
    assert bool((shown["x₀"] == 1).all())
    assert bool((shown["ε"] == 0).all())
    assert float(shown["EDM"][0]) < 1e-4 < 0.999 < float(shown["EDM"][-1])


@pytest.mark.parametrize(("mean", "std"), [(-1.2, 1.2), (0.5, 0.4), (-2.5, 2.0)])
def test_training_looks_most_where_p_mean_says(mean, std):
    found = curves(draws="lognormal", P_mean=mean, P_std=std)
    x, density = found["sigma"].log(), found["density"]
    cell = float(x[1] - x[0])
    assert abs(float(x[density.argmax()]) - mean) <= cell
    exact = torch.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    torch.testing.assert_close(density[1:-1], exact[1:-1], atol=0.01, rtol=0.0)


def test_edm_draws_are_moved_to_the_data():
    found = curves(data=RING)
    assert found["P_mean"] == pytest.approx(-1.2 + math.log(found["deviation"] / 0.5))
    assert curves(draws="VE")["P_mean"] is None


@pytest.mark.parametrize("prediction", ["EDM", "VE", "x₀", "v"])
def test_start_is_the_loss_of_an_untrained_network(prediction):
    design = build(Design, {"data": RING, "prediction": prediction})
    found = curves_picture(design, Job(60.0))
    denoiser = Preconditioned(small_network((2,)), design.build()[0]).eval()
    sigmas = found["sigma"][[30, 60, 90]]
    x = design.data.mixture.sample(8000, generator=torch.Generator().manual_seed(3)).float()
    measured = design.build()[1](sigmas) * ds.loss_by_sigma(denoiser, x, sigmas=sigmas).mse
    torch.testing.assert_close(measured, found["start"][[30, 60, 90]], rtol=0.03, atol=0.0)


def test_attainable_loss_of_one_mode_is_that_of_the_linear_denoiser():
    found = curves(data={"modes": [[1, 0.5, 0.3]]})
    sigma = found["levels"]
    torch.testing.assert_close(
        found["attainable"] / found["weight"], 0.25 * sigma**2 / (sigma**2 + 0.25), rtol=1e-6, atol=0
    )
    # EDM's network has nothing to learn there
    torch.testing.assert_close(found["attainable"], torch.ones(25, dtype=torch.float64), rtol=1e-6, atol=0)


def test_curves_are_those_of_the_code():
    found = curves(
        data=RING, prediction="v", weighting="EDM", draws="lognormal", P_mean=-0.4, P_std=0.9, sigma_data=0.6
    )
    made = run(found["python"])
    for name in ("c_skip", "c_out", "c_in", "c_noise"):
        torch.testing.assert_close(getattr(made["curves"], name), found["curves"]["v"][name], equal_nan=True)
    target = made["target"]
    for name, value in {
        "input": target.input_variance,
        "target": target.target_variance,
        "weight": target.effective_weight,
    }.items():
        torch.testing.assert_close(value, found["curves"]["v"][name])
    for name in ("density", "attainable", "start"):
        torch.testing.assert_close(made[name], found[name])


@pytest.mark.parametrize(
    "settings",
    [
        {"data": RING, "steps": 100, "width": 16, "seed": 3},
        {"prediction": "iDDPM", "draws": "iDDPM", "steps": 100, "width": 16},
        {"prediction": "x₀", "weighting": "noise", "draws": "VP", "steps": 100, "width": 16},
    ],
)
def test_trainings_are_those_of_the_code(settings):
    found, result = trained(**settings)
    threads = torch.get_num_threads()
    try:
        made = run(result["python"])
    finally:
        torch.set_num_threads(threads)
    last = found[-1]
    assert last["step"] == 100
    assert float(made["loss"]) == pytest.approx(last["loss"], rel=1e-5)
    torch.testing.assert_close(made["attainable"] + made["excess"], last["error"], rtol=1e-5, atol=0)
    torch.testing.assert_close(made["samples"].float(), last["samples"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_training_comes_near_the_exact_denoiser():
    found, _ = trained(data=RING)
    exact = exact_picture(Exact(build(Data, RING)), Job(60.0))
    first, last = found[0], found[-1]
    assert first["excess"] > 0.1
    assert last["excess"] < 0.2 * first["excess"]
    assert last["loss"] == pytest.approx(exact["attainable_loss"] + last["excess"])
    far = [(stage["denoised"] - exact["denoised"]).square().mean() for stage in (first, last)]
    assert far[1] < 0.5 * far[0]  # also where no data lie
    assert [stage["images"] for stage in found] == [128 * step for step in stages(400)]


@pytest.mark.slow
@pytest.mark.parametrize(("data", "seed"), [({}, 0), (RING, 1)])
def test_edm_learns_faster_than_ve(data, seed):
    edm, ve = (trained(data=data, prediction=name, draws=name, steps=100, seed=seed)[0] for name in ("EDM", "VE"))
    assert edm[-1]["excess"] < 0.3 * ve[-1]["excess"]


def test_error_is_that_of_the_denoiser_shown():
    """The measured loss of a stage is what `loss_by_sigma` finds, which compares with the samples instead."""
    settings = {"steps": 100, "width": 16}
    found, result = trained(**settings)
    made = run(result["python"])
    training = build(Training, settings)
    x = training.data.mixture.sample(4000, generator=torch.Generator().manual_seed(8)).float()
    levels = measured_levels(training.data)[::4]
    measured = ds.loss_by_sigma(made["trained"], x, sigmas=levels).mse
    torch.testing.assert_close(measured, found[-1]["error"][::4], rtol=0.12, atol=0)
    assert len(held_out(training.data)) == 512


def test_superseded_training_ends_within_a_step():
    job = Job(60.0)
    seen = []

    def send(event):
        seen.append(event)
        if "stage" in event and event["stage"]["step"] > 0:
            job.drop()

    job.send = send
    with pytest.raises(SupersededError):
        training_picture(Training(steps=5000), job)
    assert [event["stage"]["step"] for event in seen if "stage" in event] == list(stages(5000)[:2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 99}, "steps: expected"),
        ({"steps": 10**9}, "steps: expected"),
        ({"width": 4096}, "width: expected 16, 32, 64 or 128, got 4096"),
        ({"seed": -1}, "seed: expected"),
        ({"sigma_data": 0.0}, "sigma_data: expected"),
        ({"P_mean": 40.0}, "P_mean: expected"),
        ({"P_std": 0.0}, "P_std: expected"),
        ({"prediction": "magic"}, "prediction"),
        ({"draws": ["VP"]}, "draws"),
    ],
)
def test_limits_refuse(settings, message):
    with pytest.raises(ValueError, match=message):
        build(Training, settings)


@pytest.mark.slow
def test_the_least_and_the_most_data_are_shown():
    for data in ({"points": [[100.0, -100.0]], "width": 0.001}, {"points": [[0.01 * k, 0.0] for k in range(500)]}):
        found, exact = curves(data=data), exact_picture(Exact(build(Data, data)), Job(60.0))
        assert bool(found["attainable"].isfinite().all())
        assert bool(exact["denoised"].isfinite().all())
    one = build(Data, {"points": [[100.0, -100.0]], "width": 0.001})
    assert data_deviation(one) == pytest.approx(100.0, rel=0.01)
