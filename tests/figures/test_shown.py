"""What notebooks show: the pixels and numbers of the results themselves."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import diffspace as ds
from diffspace.data import named_oracle
from diffspace.figures.article import Picture
from diffspace.solverlab import compare_solvers, default_samplers


def png_of(page):
    code = re.search(r"base64,([^\"]+)", page)[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(code))).convert("L"), dtype=float)


def test_images_are_shown_as_ink_on_paper():
    """Where the mean of the samples is bright, the picture is dark, at the pixels of the grid."""
    samples = ds.sample(named_oracle("digits"), seeds=range(4), steps=ds.EDMSteps(6))
    page = samples._repr_html_()
    assert "4 samples of 1×8×8, 6 steps, NFE 11" in page
    shown = png_of(page)
    cell = shown.shape[0] / 2
    blocks = [
        [shown[int(r * cell) : int((r + 1) * cell), int(c * cell) : int((c + 1) * cell)].mean() for c in (0, 1)]
        for r in (0, 1)
    ]
    ink = samples.x.mean((1, 2, 3))
    assert np.argsort(np.ravel(blocks)).tolist() == ink.argsort(descending=True).tolist()
    assert isinstance(samples.show(), Figure)


def test_points_are_a_plot_and_a_comparison_its_front():
    ring = named_oracle("ring")
    samples = ds.sample(ring, seeds=range(50))
    assert samples.show().axes
    truth = ds.reference(ring, seeds=range(8), sampler=ds.Sampler(ds.EDMSteps(60)))
    found = compare_solvers(ring, truth, default_samplers(0.7, 0.0, ["heun", "euler"], ["edm"]), [9, 19])
    assert "8 samples; the end points are known to" in found._repr_html_()
    lines = found.show().axes[0].get_lines()
    best = min(row.error.rms for row in found.rows)
    assert any(np.isclose(line.get_ydata().min(), best) for line in lines if len(line.get_ydata()))


def test_a_model_is_a_table_of_facts(digits_model):
    page = digits_model._repr_html_()
    assert "<td>classes</td><td>0, 1, 2" in page
    assert "1×8×8" in digits_model.show()
    drawn = ds.sample(digits_model, seeds=[0, 1], cond={"labels": torch.tensor([3, 4])}, steps=ds.EDMSteps(2))
    assert drawn.transform == digits_model.transform
    assert png_of(drawn._repr_html_()).std() > 10


def test_a_picture_of_the_article_is_shown_with_its_caption():
    picture = Picture(lambda figure: figure.subplots().plot([0, 1]), {}, 2.0, "A line & more.")
    assert "A line &amp; more." in picture._repr_html_()


def test_without_matplotlib_a_result_is_plain():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import torch, diffspace as ds\n"
        "s = ds.sample(lambda x, sigma, cond=None: 0 * x, seeds=[0], shape=(2,))\n"
        "print(s._repr_html_())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


@pytest.fixture(scope="module")
def digits_model():
    torch.manual_seed(0)
    network = ds.networks.MLP((1, 8, 8), width=8, label_dim=10)
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning())
    return ds.Model(denoiser, ds.Transform((8.0,), (8.0,), 0.0, 16.0), tuple(map(str, range(10))))
