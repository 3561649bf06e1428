"""Figures of models: what is drawn are the numbers of the study, the log and the exact answers."""

import json
import math

import pytest
import torch
from small_runs import make_run

from diffspace.data import Digits
from diffspace.figures.article import ENTRIES, Subject, models
from diffspace.figures.guidance import inpainted_normals, measured_errors
from diffspace.figures.style import new_figure, theme, using
from diffspace.oracles import FiniteData
from diffspace.studies import denoiser_outputs
from diffspace.transform import Transform

_MAKE = {entry.name: entry.make for entry in ENTRIES}


def test_loss_of_a_run_is_that_of_its_log(tmp_path):
    rows = [
        {
            "images": 1000 * (k + 1),
            "step": k + 1,
            "loss": 1.0,
            "loss_by_sigma": {"sigma": [0.1, 1.0], "loss": [0.008 / (k + 1), 0.2 / (k + 1)], "count": [5, 5]},
        }
        for k in range(48)
    ]
    rows[-1]["held_out"] = {"loss": 0.1, "sigma": [0.1, 1.0], "mse": [0.004, 0.1], "trivial": [0.25, 0.25]}
    run = make_run(tmp_path / "run")
    run.begin()
    run.close()
    (run.folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = models._run_stages(run.folder, run.model(), "run")
    weights = [1 / sigma**2 + 1 / 0.7**2 for sigma in (0.1, 1.0)]
    assert found.stages[0].loss.tolist() == pytest.approx([0.008 * weights[0], 0.2 * weights[1]])
    late = (1 / 47 + 1 / 48) / 2  # the last forty-eighth has two records
    assert found.stages[-1].loss.tolist() == pytest.approx([0.008 * late * weights[0], 0.2 * late * weights[1]])
    assert found.attainable.name == "held-out data"
    assert found.attainable.loss.tolist() == pytest.approx([0.004 * weights[0], 0.1 * weights[1]])
    assert [stage.name for stage in found.stages] == ["1500 images", "5500 images", "47.5k images"]


def test_rows_of_pictures_are_the_states_and_answers():
    digits = Digits().load()
    data = digits.batch(torch.arange(40))
    found = denoiser_outputs(FiniteData(data), seed=5)
    figure = new_figure(6, 2.3)
    with using("dark"):
        models.draw_outputs(figure, found, digits.transform, 0.75)
        assert theme().name == "dark"
    axes = figure.axes
    assert len(axes) == 4 * len(found.sigma)
    # the last answer along the way is one of the digits, and the first is their mean
    ends = [axes[k].get_images()[0].get_array() for k in (3 * len(found.sigma), len(axes) - 1)]
    mean, last = digits.transform.inverse(torch.stack([data.mean(0), found.clean.float()])) / 16 * 255
    assert abs(ends[0] - mean[0].numpy()).max() < 17  # the sixteenth to which digits are rounded
    assert abs(ends[1] - last[0].numpy()).max() < 1


def test_samples_that_are_not_images_are_lines():
    found = denoiser_outputs(FiniteData(torch.tensor([[0.5, -1.0, 0.25]])), seed=1)
    figure = new_figure(6, 2.3)
    models.draw_outputs(figure, found, Transform(), 0.5)
    assert figure.axes[-1].get_lines()[0].get_ydata() == pytest.approx([0.5, -1.0, 0.25])


def test_guidance_against_the_exact_answer():
    normals, (mean, variance) = inpainted_normals()
    # of two numbers with variance ¼ and covariance 0.2, the first 0.6
    assert (mean, variance) == pytest.approx((0.48, 0.25 - 0.2**2 / 0.25))
    assert normals["MMPS"] == pytest.approx((mean, variance), abs=0.02)
    off = [abs(normals[name][0] - mean) for name in ("Replacement", *(f"repaint, {n} times" for n in (2, 5, 20)))]
    assert off == sorted(off, reverse=True)
    assert off[0] > 0.2
    errors = {e.name: e.error for e in measured_errors((16, 32))}
    # of second order: half the steps, four times the error
    assert errors["MMPS, and exact"][0] / errors["MMPS, and exact"][1] == pytest.approx(4.6, abs=0.5)
    assert errors["ΠGDM"][1] == pytest.approx(0.116, abs=0.002)


@pytest.mark.parametrize("name", ["augmentation", "ema-profiles", "solver-errors"])
def test_pictures_are_drawn(name):
    picture = _MAKE[name](Subject())
    figure = new_figure(picture.width, picture.height)
    picture.draw(figure)
    assert figure.axes
    (table,) = picture.tables.values()
    if name == "augmentation":
        labels = {key[:2]: key[2:] for key in zip(*table.values(), strict=True)}
        assert labels["rotate_frac", 1.0] == pytest.approx((math.cos(math.pi / 3) - 1, math.sin(math.pi / 3)))
        assert labels["scale", -2.0][0] == -2
        assert labels["translate_frac", 2.0] == (2, 1)
    elif name == "ema-profiles":
        step = table["images"][1] - table["images"][0]
        assert sum(table["sigma_rel 0.05"]) * step == pytest.approx(1, abs=0.02)
    else:
        rows = zip(table["solver"], table["steps"], table["nfe"], table["rms"], strict=True)
        heun = {nfe: rms for solver, steps, nfe, rms in rows if (solver, steps) == ("heun", "edm")}
        assert heun[59] < 0.5 * heun[35] < 0.5 * 0.5 * heun[19]
