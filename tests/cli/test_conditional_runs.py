"""What conditions are worth, by commands alone: parameters recovered from signals, digits enlarged, then small again.

docs/conditions.md has the figures that this prints; each training takes two to three minutes of one core.
"""

from pathlib import Path

import numpy as np
import pytest

from diffspace.cli.app import main
from diffspace.data import load_data

pytestmark = pytest.mark.slow

_T = np.arange(64) / 64


def waves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sine waves (n, 1, 64) of any phase, and their frequencies and amplitudes (n, 2)."""
    rng = np.random.default_rng(seed)
    params, phase = np.stack([rng.uniform(1, 5, n), rng.uniform(0.5, 2, n)], 1), rng.uniform(0, 2 * np.pi, (n, 1))
    x = params[:, 1:] * np.sin(2 * np.pi * params[:, :1] * _T + phase)
    return x[:, None].astype(np.float32), params


def recovered(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequency and amplitude (n, 2) of the wave that is nearest to each signal, and what is left of it, by RMS."""
    frequencies, y = np.linspace(0.5, 6, 1101), x[:, 0].astype(float)
    angle = 2 * np.pi * frequencies[:, None] * _T
    basis, _ = np.linalg.qr(np.stack([np.sin(angle), np.cos(angle)], axis=2))
    power = np.square(np.einsum("ftk,nt->nfk", basis, y)).sum(2)
    best = power.argmax(1)
    rest = np.sqrt(np.maximum(np.square(y).sum(1) - power.max(1), 0) / len(_T))
    design = np.stack([np.sin(angle), np.cos(angle)], axis=2)[best]
    weights = np.stack([np.linalg.lstsq(a, row, rcond=None)[0] for a, row in zip(design, y, strict=True)])
    return np.stack([frequencies[best], np.hypot(*weights.T)], 1), rest


def rms(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    return np.sqrt(np.square(values).mean(axis))


def test_parameters_are_recovered_from_signals(tmp_path: Path) -> None:
    x, params = waves(5000, seed=0)
    found, rest = recovered(x[:200])
    assert rms(found - params[:200], 0).max() < 0.01  # the estimator is exact for the data
    _, wanted = waves(500, seed=1)
    np.savez(tmp_path / "waves.npz", x=x, params=params)
    np.savez(tmp_path / "wanted.npz", params=wanted)
    run, out = str(tmp_path / "run"), str(tmp_path / "samples.npz")
    words = ["images=60000", "patience_images=0"]
    assert main(["train", str(tmp_path / "waves.npz"), *words, "--out", run]) == 0
    given = ["--cond", str(tmp_path / "wanted.npz"), "--seeds", "0-499", "--out", out]
    assert main(["sample", run, *given]) == 0
    samples = np.load(out)
    assert np.array_equal(samples["params"], wanted.astype(np.float32))
    found, rest = recovered(samples["x"])
    error = found - wanted
    print(f"frequency: RMS {rms(error, 0)[0]:.3f}, median {np.median(np.abs(error[:, 0])):.3f}")
    print(f"amplitude: RMS {rms(error, 0)[1]:.3f}, median {np.median(np.abs(error[:, 1])):.3f}")
    print(f"no sine wave: {rms(rest):.3f}; spread of the data {params.std(0)}")
    assert (np.median(np.abs(error), axis=0) < 0.1 * params.std(0)).all()
    assert (rms(error, 0) < 0.15 * params.std(0)).all()


def test_digits_are_enlarged(tmp_path: Path) -> None:
    training, held_out = load_data("digits").split()
    for name, data in (("digits", training), ("test", held_out)):
        x = data.batch().numpy()
        np.savez(tmp_path / f"{name}.npz", x=x, low=small(x))
    run, out = str(tmp_path / "run"), str(tmp_path / "sharp.npz")
    assert main(["train", str(tmp_path / "digits.npz"), "images=60000", "patience_images=0", "--out", run]) == 0
    given = ["--cond", f"low={tmp_path / 'test.npz'}", "--seeds", "0-358", "--out", out]
    assert main(["sample", run, *given]) == 0
    samples, truth = np.load(out), np.load(tmp_path / "test.npz")
    again, psnr = rms(small(samples["x"]) - truth["low"]), 20 * np.log10(2 / rms(samples["x"] - truth["x"]))
    nearest = truth["low"].repeat(2, 2).repeat(2, 3)
    print(f"small again: RMS {again:.4f} of a spread of {truth['low'].std():.3f}")
    print(f"PSNR {psnr:.2f} dB, of the nearest pixels {20 * np.log10(2 / rms(nearest - truth['x'])):.2f} dB")
    assert again < 0.05
    assert psnr > 20 * np.log10(2 / rms(nearest - truth["x"])) + 3


def small(x: np.ndarray) -> np.ndarray:
    """Means of 2×2 pixels."""
    return x.reshape(-1, 1, 4, 2, 4, 2).mean((3, 5))
