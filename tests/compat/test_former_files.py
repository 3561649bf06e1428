"""Files that version 0.1, under the name edmkit, wrote: models, samplers, averages and a checkpoint of a run.

`expected.json` holds what that version drew from them, with seeds 0 and 1 (`digits`: classes 0 and 1, the first eight
values), and from the run once it was resumed to 7,000 images.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import diffspace as ds
from diffspace.cli.app import main
from diffspace.train import read_recipe

HERE = Path(__file__).parent
EXPECTED = json.loads((HERE / "expected.json").read_text())


def first_values(model, **options):
    options = {"steps": ds.EDMSteps(4)} | options
    return ds.sample(model, seeds=[0, 1], shape=model.sample_shape, **options).x.flatten()[:8].tolist()


def test_a_model_folder():
    labels = {"labels": torch.tensor([0, 1])}
    assert first_values(ds.load(HERE / "points")) == pytest.approx(EXPECTED["points"], rel=1e-5)
    assert first_values(ds.load(HERE / "digits"), cond=labels) == pytest.approx(EXPECTED["digits"], rel=1e-3)


@pytest.mark.parametrize("name", ["afs", "fitted-4", "lms", "optimized-3"])
def test_a_sampler_file(name):
    sampler = ds.load_samplers(HERE / "points")[name]
    drawn = first_values(ds.load(HERE / "points"), steps=sampler.steps, sampler=sampler)
    assert drawn == pytest.approx(EXPECTED[name], rel=1e-5)


def test_a_checkpoint(tmp_path):
    run = shutil.copytree(HERE / "points", tmp_path / "run")
    assert main(["train", "--resume", str(run), "images=7000", "decay_images=0"]) == 0
    assert first_values(ds.load(run)) == pytest.approx(EXPECTED["resumed"], rel=1e-3)
    assert read_recipe(run / "recipe.yaml")["data"]["split"] == "position"  # its own, whatever is the default now
    assert main(["train", "--resume", str(run), "images=7500", "decay_images=0"]) == 0


def test_snapshots(tmp_path):
    run = shutil.copytree(HERE / "points", tmp_path / "run")
    assert main(["ema", str(run), "--width", "0.07", "--out", str(tmp_path / "average")]) == 0
    assert ds.load(tmp_path / "average").sample_shape == (2,)
