"""A full disk under `convert`, `data encode` and `solvers --fit`; the other commands are in tests/hostile.

A limit on the size of files stands for the disk: writing fails in the same place, with EFBIG in the place of ENOSPC.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import pytest
import torch

import diffspace as ds
from diffspace.cli.app import main

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")


@contextlib.contextmanager
def room_for(size):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def content(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_refused(capsys, words, size, name):
    capsys.readouterr()
    with room_for(size):
        assert main([str(word) for word in words]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("diffspace: ")]
    assert len(lines) == 1
    assert "File too large" in lines[0]
    assert name in lines[0]


@pytest.mark.parametrize("size", [200, 20_000])
def test_convert_leaves_the_former_model(tmp_path, capsys, size):
    """With room for neither file, and for the config alone."""
    from reference_pickle import write_snapshot
    from small_networks import make_denoiser

    write_snapshot(tmp_path / "x.pkl", make_denoiser())
    assert main(["convert", str(tmp_path / "x.pkl"), str(tmp_path / "m")]) == 0
    before = content(tmp_path)
    check_refused(capsys, ["convert", tmp_path / "x.pkl", tmp_path / "m", "--overwrite"], size, f"{tmp_path}/m/")
    assert content(tmp_path) == before
    ds.load(tmp_path / "m")


@pytest.mark.filterwarnings("ignore:8 samples are few to fit")
def test_solvers_fit_leaves_the_former_sampler(tmp_path, capsys):
    torch.manual_seed(0)
    denoiser = ds.Preconditioned(ds.networks.MLP((2,), width=8), ds.EDMPreconditioning())
    ds.Model(denoiser, ds.Transform()).save(tmp_path / "m")
    words = ["solvers", tmp_path / "m", "--nfe", "5", "--fit", "--fit-seeds", "100-107", "--seeds", "0-3"]
    words += ["--solvers", "euler", "--steps", "edm", "--reference-steps", "40"]
    assert main([str(word) for word in words]) == 0
    before = content(tmp_path)
    assert "m/samplers/fitted-5.json" in before
    check_refused(capsys, [*words, "--overwrite"], 100, "fitted-5.json")
    assert content(tmp_path) == before


def test_data_encode_leaves_the_former_latents(tmp_path, capsys):
    pytest.importorskip("diffusers")
    from diffusers_models import autoencoder
    from image_files import as_the_reference, pixels, write_zip

    autoencoder(torch.float32).save_pretrained(tmp_path / "vae")
    write_zip(tmp_path / "in.zip", as_the_reference(pixels(6, 16, 16, 3), None))
    words = ["data", "encode", tmp_path / "in.zip", tmp_path / "out", "--encoder", tmp_path / "vae", "--device", "cpu"]
    assert main([str(word) for word in words]) == 0
    before = content(tmp_path / "out")
    check_refused(capsys, [*words, "--overwrite"], 1000, "out")
    assert content(tmp_path / "out") == before
    assert main(["data", "verify", str(tmp_path / "out")]) == 0
