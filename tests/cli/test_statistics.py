"""`diffspace data statistics` against numpy, with features that are simple enough to be made again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import as_the_reference, pixels, write_zip

from diffspace.cli.app import main


class Corners(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :, 0, 0], x[:, :2, 3, 3]], 1)


def test_statistics_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    images = pixels(30, 4, 4, 3)
    write_zip(tmp_path / "in.zip", as_the_reference(images, [0] * 30))
    monkeypatch.setattr("diffspace.metrics.features._ROWS", 8)
    torch.jit.script(Corners()).save(str(tmp_path / "corners.pt"))
    command = ["data", "statistics", str(tmp_path / "in.zip"), str(tmp_path / "out.npz"), "--device", "cpu"]
    assert main([*command, "--features", str(tmp_path / "corners.pt"), "--batch", "7"]) == 0
    assert "5 features of 30 images of 3×4×4, corners.pt " in capsys.readouterr().out
    exact = np.concatenate([images[:, 0, 0], images[:, 3, 3, :2]], 1).astype(np.float64)
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_allclose(found["mu"], exact.mean(0), rtol=1e-13)
        np.testing.assert_allclose(found["sigma"], np.cov(exact, rowvar=False), rtol=1e-12)
        assert found["num_images"] == 30
    for more, message in (
        ([], "exists already"),
        (["--overwrite", "--features", "pca"], "--features: pca is made from data"),
        (["--overwrite", "--weights", str(tmp_path / "none.pth")], "weights: there is no file"),
        (["--overwrite", "--features", "incepton"], "did you mean 'inception'?"),
    ):
        assert main([*command, *more]) == 2
        assert message in capsys.readouterr().err


def test_options_of_files_have_no_effect_on_named_data(tmp_path: Path, capsys) -> None:
    command = ["data", "statistics", "digits", str(tmp_path / "x.npz"), "--features", "identity", "--device", "cpu"]
    assert main([*command, "--size", "4x4"]) == 2
    assert "--size: has no effect on digits, which has no such option" in capsys.readouterr().err
    assert main([*command, "--max-images", "100"]) == 0
    assert "64 features of 100 images of 1×8×8" in capsys.readouterr().out
