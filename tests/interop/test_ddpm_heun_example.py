"""The example is run as it stands."""

import runpy
from pathlib import Path

import pytest

pytest.importorskip("diffusers")


def test_it_agrees_with_diffusers(capsys):
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "ddpm_heun.py"))
    difference = example["main"](["--steps", "9", "--seeds", "2"])
    printed = capsys.readouterr().out
    assert "9 steps, 17 evaluations" in printed
    assert difference < 1e-3  # of elements of some hundreds: the random network does not remove the noise
