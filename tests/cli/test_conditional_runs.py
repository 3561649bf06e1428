"""What conditions are worth, by commands alone: parameters of signals and volumes, digits enlarged and completed.

docs/conditions-measured.md has the figures that this prints; each training takes minutes of one core.
"""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import least_squares

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


_SIDE = 8
_CELLS = np.stack(np.meshgrid(*[np.arange(_SIDE)] * 3, indexing="ij"))


def blobs(params: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Volumes (n, 1, 8, 8, 8) of a height times a Gaussian of a width, (n, 2), around centres (n, 3)."""
    squares = np.square(_CELLS[None] - centres[:, :, None, None, None]).sum(1)
    width, height = params.T[:, :, None, None, None]
    return (height * np.exp(-squares / (2 * width**2)))[:, None]


def draw_blobs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Volumes of any place near the middle, and their widths and heights (n, 2)."""
    rng = np.random.default_rng(seed)
    params = np.stack([rng.uniform(0.8, 2, n), rng.uniform(0.5, 2, n)], 1)
    return blobs(params, rng.uniform(2.5, 4.5, (n, 3))).astype(np.float32), params


def recovered_blobs(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Width and height (n, 2) of the blob that is nearest to each volume, and what is left of it, by RMS."""
    found = []
    for volume in x.astype(float):
        middle = [float(i) for i in np.unravel_index(volume.argmax(), volume.shape)[1:]]

        def rest(p: np.ndarray, volume: np.ndarray = volume) -> np.ndarray:
            return (blobs(p[None, :2], p[None, 2:]) - volume).ravel()

        fit = least_squares(rest, [1.3, float(volume.max()), *middle], bounds=([0.2, 0, *[-1] * 3], [8, 8, *[8] * 3]))
        found.append([*fit.x[:2], np.sqrt(2 * fit.cost / volume.size)])
    return np.array(found)[:, :2], np.array(found)[:, 2]


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


def test_parameters_are_recovered_from_volumes(tmp_path: Path) -> None:
    x, params = draw_blobs(4000, seed=0)
    assert rms(recovered_blobs(x[:50])[0] - params[:50], 0).max() < 1e-4  # the estimator is exact for the data
    _, wanted = draw_blobs(200, seed=1)
    np.savez(tmp_path / "blobs.npz", x=x, params=params)
    run, out = str(tmp_path / "run"), str(tmp_path / "samples.npz")
    np.savez(tmp_path / "wanted.npz", params=wanted)
    small = ["images=20000", "patience_images=0", "network.model_channels=16", "network.num_blocks=1"]
    assert main(["train", str(tmp_path / "blobs.npz"), *small, "--out", run]) == 0
    given = ["--cond", str(tmp_path / "wanted.npz"), "--seeds", "0-199", "--out", out]
    assert main(["sample", run, *given]) == 0
    found, rest = recovered_blobs(np.load(out)["x"])
    error = found - wanted
    print(f"width: RMS {rms(error, 0)[0]:.3f}, median {np.median(np.abs(error[:, 0])):.3f}")
    print(f"height: RMS {rms(error, 0)[1]:.3f}, median {np.median(np.abs(error[:, 1])):.3f}")
    print(f"no blob: RMS {rms(rest):.4f}, median {np.median(rest):.4f}; spread of the data {params.std(0)}")
    assert (np.median(np.abs(error), axis=0) < 0.15 * params.std(0)).all()
    assert (rms(error, 0) < 0.25 * params.std(0)).all()


def test_digits_are_completed(tmp_path: Path) -> None:
    training, held_out = load_data("digits").split()
    hole = np.zeros((8, 8), bool)
    hole[2:6, 2:6] = True
    for name, data in (("digits", training), ("test", held_out)):
        x = data.batch().numpy()
        np.savez(tmp_path / f"{name}.npz", x=x, known=np.where(hole, 0, x))
    run, out = str(tmp_path / "run"), str(tmp_path / "whole.npz")
    assert main(["train", str(tmp_path / "digits.npz"), "images=30000", "patience_images=0", "--out", run]) == 0
    given = ["--cond", f"known={tmp_path / 'test.npz'}", "--seeds", "0-358", "--out", out]
    assert main(["sample", run, *given]) == 0
    samples, truth = np.load(out)["x"], np.load(tmp_path / "test.npz")["x"]
    train = np.load(tmp_path / "digits.npz")["x"]
    kept, drawn = rms((samples - truth)[..., ~hole]), rms((samples - truth)[..., hole])
    mean = rms((train.mean(0) - truth)[..., hole])
    distances = np.square(train[None, :, 0, ~hole] - truth[:, None, 0, ~hole]).sum(2)
    neighbour = rms((train[distances.argmin(1)] - truth)[..., hole])
    print(f"RMS around the hole {kept:.4f}; in it {drawn:.3f}, of the mean {mean:.3f}, of the nearest {neighbour:.3f}")
    assert kept < 0.05
    assert drawn < 1.1 * neighbour < mean


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
