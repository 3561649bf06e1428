"""A run that is killed, again and again, ends where an uninterrupted one does, to the last bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffspace.averages import Snapshots
from diffspace.train import Checkpoints

SCRIPT = Path(__file__).parents[1] / "support" / "kill_training.py"
pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks and kills")


def run(folder, kills, seed, *overrides):
    command = [sys.executable, str(SCRIPT), str(folder), str(kills), str(seed), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def losses(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [(r["step"], r["loss"], r.get("held_out")) for r in map(json.loads, lines)]


@pytest.mark.parametrize(
    ("kills", "images"), [(6, 480), pytest.param(50, 6400, marks=pytest.mark.slow)], ids=["few", "fifty"]
)
def test_killed_and_taken_up_is_the_same_as_uninterrupted(tmp_path, kills, images):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = [f"images={images}", f"decay_images={images // 2}", f"held_out_images={images // 4}"]
    options += [f"snapshot_images={images // 2}"]
    run(whole, 0, 0, *options)
    told = run(killed, kills, 1, *options)
    print(told)
    assert told["kills"] == kills
    one, other = (Checkpoints(folder).newest().read() for folder in (whole, killed))
    assert one["trainer"]["step"] == images // 8
    assert same(one, other)
    assert losses(whole) == losses(killed)
    assert (whole / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()
    for a, b in zip(Snapshots(whole).all(), Snapshots(killed).all(), strict=True):
        assert (a.images, a.width) == (b.images, b.width)
        for (name, value, _), (other, same_value, _) in zip(a.tensors(), b.tensors(), strict=True):
            assert name == other
            assert torch.equal(value, same_value)
