"""Names, paths and options."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffspace.data import ArrayFile, Digits, ImageFolder, SwissRoll, TwoMoons, load_data, make_source
from diffspace.parts import kinds


def test_names() -> None:
    assert make_source("digits") == Digits()
    assert make_source("swissroll", n=10, noise=0.5) == SwissRoll(n=10, noise=0.5)
    assert make_source("two-moons", seed=3, n=None) == TwoMoons(seed=3)
    for name in kinds("source"):
        assert load_data(name).name == name


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (2, 3)).save(tmp_path / "1.png")
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    assert make_source(tmp_path, size=8) == ImageFolder(tmp_path, size=8)
    assert make_source(str(tmp_path), size=[8, 9]) == ImageFolder(str(tmp_path), size=(8, 9))
    assert make_source(tmp_path / "x.npy", normalize="none") == ArrayFile(tmp_path / "x.npy", normalize="none")
    assert load_data(tmp_path).sample_shape == (1, 3, 2)
    assert load_data(tmp_path / "x.npy").sample_shape == (2,)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_data("~/x.npy").sample_shape == (2,)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert isinstance(make_source("digits"), Digits)
    assert isinstance(make_source("./digits"), ImageFolder)


@pytest.mark.parametrize(
    ("spec", "near"),
    [("digit", "digits"), ("swiss-roll", "swissroll"), ("moons", "two-moons"), ("eight-gausians", "eight-gaussians")],
)
def test_a_name_that_is_unknown(spec: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf"data: '{spec}' does not exist; did you mean '{near}'\? known names: ch"):
        load_data(spec)


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=r"'.*imges' does not exist; did you mean '.*images'\?"):
        load_data(tmp_path / "imges")
    with pytest.raises(ValueError, match=r"'zzzzzz' does not exist; known names"):
        load_data("zzzzzz")
    (tmp_path / "x.csv").touch()
    with pytest.raises(ValueError, match=r"x\.csv is neither a folder of images nor a file of a known kind: \.zip"):
        load_data(tmp_path / "x.csv")
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(ValueError, match=r"mine\.yaml is a recipe, not data; give it to `diffspace train` as --recipe"):
        load_data(tmp_path / "mine.yaml")


def test_options_that_do_not_apply(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data.size: digits has no such option; there are none"):
        load_data("digits", size=8)
    with pytest.raises(ValueError, match=r"^data.noisy: swissroll has no such option; did you mean 'noise'\?"):
        load_data("swissroll", noisy=1)
    with pytest.raises(ValueError, match=r"^data.sise: ImageFolder .*has no such option; did you mean 'size'\?"):
        load_data(tmp_path, sise=8)
    with pytest.raises(ValueError, match=r"^data.path: follows from the source"):
        load_data(tmp_path, path="elsewhere")


def test_importing_data_imports_no_library_of_data() -> None:
    code = "import sys, diffspace.data; print([m for m in ('PIL', 'sklearn', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
