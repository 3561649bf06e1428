"""Latents of an encoder: what is written, what a kill leaves, what a training sees, and the way back to pixels."""

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import as_the_reference, pixels, write_zip

from diffspace.data import ImageZip, Latents, encode_dataset, image_source, latents, load_data, verify
from diffspace.files import manifest_text
from diffspace.inspection import inspect

IMAGES = pixels(35, 8, 8, 3)
LABELS = [i % 3 for i in range(35)]
X = torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 127.5 - 1
TURN = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0)))[0]
SCALE = torch.tensor([1.0, 2.0, 4.0] * 4).reshape(-1, 1, 1)


class Orthogonal:
    """Four pixels become a latent pixel of 12 channels, turned and stretched: it can be undone."""

    def __init__(self) -> None:
        self.seen = 0

    def encode(self, x: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        self.seen += len(x)
        return torch.einsum("ij,bjhw->bihw", TURN, torch.nn.functional.pixel_unshuffle(x, 2)) * SCALE + 3

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pixel_shuffle(torch.einsum("ji,bjhw->bihw", TURN, (z - 3) / SCALE), 2)


@pytest.fixture
def source(tmp_path: Path) -> ImageZip:
    return ImageZip(write_zip(tmp_path / "in.zip", as_the_reference(IMAGES, LABELS)))


def write(source: ImageZip, target: Path, **options):
    return encode_dataset(source, options.pop("encoder", Orthogonal()), target, name="orthogonal", **options)


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_latents_are_those_of_the_encoder_standardised(source, tmp_path: Path, precision: str) -> None:
    done = write(source, tmp_path / "out", precision=precision, batch_size=8)
    z = Orthogonal().encode(X)
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if precision == "float16" else {"rtol": 1e-6, "atol": 1e-6}
    data = load_data(tmp_path / "out")
    torch.testing.assert_close(data.raw(), z, **tolerance)
    assert data.labels.tolist() == LABELS
    assert (done.images, done.shape, data.sample_shape) == (35, (12, 4, 4), (12, 4, 4))
    channels = data.batch().double().movedim(1, 0).flatten(1)
    torch.testing.assert_close(channels.mean(1), torch.zeros(12, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(channels.std(1, correction=0), torch.full((12,), 0.5).double(), rtol=1e-6, atol=0)
    assert abs(inspect(data).proposals.sigma_data.value - 0.5) < 1e-3
    # what a model draws is decoded to latents by its transform, and to pixels by the encoder
    torch.testing.assert_close(Orthogonal().decode(data.transform.inverse(data.batch())), X, rtol=0, atol=3e-3)
    plain = load_data(tmp_path / "out", normalize="none", classes="none")
    torch.testing.assert_close(plain.batch(), z, **tolerance)
    assert plain.labels is None
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    kept = data.raw().double().movedim(1, 0).flatten(1)
    np.testing.assert_allclose(manifest["mean"], kept.mean(1), rtol=1e-9)
    np.testing.assert_allclose(manifest["std"], kept.std(1, correction=0), rtol=1e-9)
    assert done.sha256 == manifest["sha256"]
    assert verify(tmp_path / "out") == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.zip", "out"]


def test_mirror_images_have_latents_of_their_own(source, tmp_path: Path) -> None:
    write(source, tmp_path / "out", mirror=True, precision="float32")
    data = load_data(tmp_path / "out")
    assert len(data) == 35
    both = data.mirrored()
    assert len(both) == 70
    assert both.labels.tolist() == LABELS * 2
    torch.testing.assert_close(both.raw()[35:], Orthogonal().encode(X.flip(-1)))
    training, held_out = data.split(7)
    numbers = torch.tensor([3, len(training) + 3])
    one, other = training.mirrored().raw(numbers)
    torch.testing.assert_close(Orthogonal().decode(one[None]).flip(-1), Orthogonal().decode(other[None]))
    assert len(held_out) == 7
    copy = pickle.loads(pickle.dumps(both))
    assert len(pickle.dumps(both.rows)) < 2000
    assert torch.equal(copy.raw(), both.raw())
    write(source, tmp_path / "plain")
    with pytest.raises(ValueError, match=r"mirror: .*plain holds no latents of mirror images"):
        load_data(tmp_path / "plain").mirrored()


def test_the_size_of_batches_and_of_parts_does_not_matter(source, tmp_path: Path, monkeypatch) -> None:
    write(source, tmp_path / "a", mirror=True, batch_size=8)
    monkeypatch.setattr(latents, "_PART", 10)
    write(source, tmp_path / "b", mirror=True, batch_size=8)
    assert (tmp_path / "a" / "latents.npy").read_bytes() == (tmp_path / "b" / "latents.npy").read_bytes()
    one, other = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in "ab")
    np.testing.assert_allclose(one.pop("std"), other.pop("std"), rtol=1e-12)
    assert one["files"] == other["files"]


KILLED = """
import os, signal, sys
from test_latents import Orthogonal, latents, image_source
latents._PART = 10
moment, source, target = sys.argv[1:4]
class Dying(Orthogonal):
    def encode(self, x, noise=None):
        if moment == "encoding" and self.seen >= 24:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(x, noise)
if moment == "joining":
    latents.manifest_text = lambda _: os.kill(os.getpid(), signal.SIGKILL)
latents.encode_dataset(image_source(source), Dying(), target, name="orthogonal", batch_size=4)
"""


@pytest.mark.parametrize(("moment", "left"), [("encoding", 15), ("joining", 0)])
def test_a_kill_loses_no_more_than_a_part(source, tmp_path: Path, monkeypatch, moment: str, left: int) -> None:
    here = [Path(__file__).parent, Path(__file__).parents[1] / "support", *sys.path]
    command = [sys.executable, "-c", KILLED, moment, source.path, tmp_path / "out"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, here))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(latents, "_PART", 10)
    with pytest.raises(ValueError, match=r"batch_size: 5, but .*out\.partial was begun with 4; continue with that"):
        write(source, tmp_path / "out", batch_size=5)
    encoder = Orthogonal()
    write(source, tmp_path / "out", batch_size=4, encoder=encoder)
    assert encoder.seen == left
    write(source, tmp_path / "whole", batch_size=4)
    for name in ("latents.npy", "labels.npy", "manifest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["labels.npy", "latents.npy", "manifest.json"]
    assert not (tmp_path / "out.partial").exists()


def test_destinations(source, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"destination: expected a folder, got .*out\.zip"):
        write(source, tmp_path / "out.zip")
    write(source, tmp_path / "out")
    with pytest.raises(ValueError, match=r"out exists already"):
        write(source, tmp_path / "out")
    write(source, tmp_path / "out", overwrite=True, mirror=True)
    assert len(load_data(tmp_path / "out").mirrored()) == 70
    with pytest.raises(ValueError, match="batch_size: expected"):
        write(source, tmp_path / "other", batch_size=0)
    with pytest.raises(ValueError, match="is not a source of images, but of Latents"):
        image_source(tmp_path / "out")


def test_latents_that_are_too_large(source, tmp_path: Path) -> None:
    class Large(Orthogonal):
        def encode(self, x: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
            return super().encode(x, noise) * 1e5

    with pytest.raises(ValueError, match=r"precision: float16 does not hold latents in \[-"):
        write(source, tmp_path / "out", encoder=Large())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.zip"]
    write(source, tmp_path / "out", encoder=Large(), precision="float32")


def test_another_encoder_does_not_go_on(source, tmp_path: Path, monkeypatch) -> None:
    class Scaled(torch.nn.Module):
        def __init__(self, factor: float, fails: bool) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor([factor]))
            self.fails = fails

        def encode(self, x: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
            if self.fails and not torch.equal(x[0], X[0]):
                raise RuntimeError("a power cut")
            return self.factor * x

        def decode(self, z: torch.Tensor) -> torch.Tensor:
            return z / self.factor

    monkeypatch.setattr(latents, "_PART", 10)
    with pytest.raises(RuntimeError):
        write(source, tmp_path / "out", encoder=Scaled(2.0, fails=True))
    with pytest.raises(ValueError, match=r"encoder_sha256: .* was begun with"):
        write(source, tmp_path / "out", encoder=Scaled(3.0, fails=False))
    write(source, tmp_path / "out", encoder=Scaled(2.0, fails=False), precision="float16")
    assert not load_data(tmp_path / "out").raw().requires_grad


def test_folders_that_are_not_what_was_written(source, tmp_path: Path) -> None:
    write(source, tmp_path / "out")
    manifest_file, array_file = tmp_path / "out" / "manifest.json", tmp_path / "out" / "latents.npy"
    manifest, array = manifest_file.read_bytes(), array_file.read_bytes()
    entries = {k: v for k, v in json.loads(manifest).items() if k != "sha256"}
    forged = [manifest_text({k: v for k, v in entries.items() if k != "shape"}), manifest_text(entries | {"shape": 3})]
    torn = manifest.replace(b'"count": 35', b'"count": 36')
    for content in (b"{", b"[]", b"{}", torn, manifest_text({"count": 1}), *forged):
        manifest_file.write_bytes(content)
        with pytest.raises(ValueError, match=r"manifest\.json: is not what `diffspace data encode` wrote"):
            load_data(tmp_path / "out")
    changed = {k: v for k, v in json.loads(manifest).items() if k != "sha256"} | {"count": 36}
    manifest_file.write_bytes(manifest_text(changed))
    with pytest.raises(
        ValueError, match=r"latents\.npy: expected float16 of shape \(36, 12, 4, 4\) as manifest\.json says, got"
    ):
        load_data(tmp_path / "out")
    manifest_file.write_bytes(manifest)
    for content in (b"", array[:100], array[:-2]):
        array_file.write_bytes(content)
        with pytest.raises(ValueError, match=r"latents\.npy: cannot be read"):
            load_data(tmp_path / "out")
    flipped = bytearray(array)
    flipped[-1] ^= 1
    array_file.write_bytes(bytes(flipped))
    assert verify(tmp_path / "out") == [f"{array_file}: is not what was written"]
    np.save(array_file, np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"latents\.npy: cannot be read: .*Python objects"):
        Latents(tmp_path / "out").load()
