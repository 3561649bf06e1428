"""`diffspace data encode` with an autoencoder of diffusers, and back from latents to pixels."""

from pathlib import Path

import pytest
import torch
from diffusers_models import autoencoder
from image_files import as_the_reference, pixels, write_zip

from diffspace.cli.app import main
from diffspace.data import load_data
from diffspace.interop.diffusers import Autoencoder

pytest.importorskip("diffusers")

IMAGES = pixels(6, 16, 16, 3)


@torch.no_grad()
def test_latents_are_the_autoencoder_s_and_lead_back_to_pixels(tmp_path: Path, capsys) -> None:
    vae = autoencoder(torch.float32, scaling_factor=0.3)
    vae.save_pretrained(tmp_path / "pipeline" / "vae")
    write_zip(tmp_path / "in.zip", as_the_reference(IMAGES, [0, 1, 2, 0, 1, 2]))
    command = [
        "data",
        "encode",
        str(tmp_path / "in.zip"),
        str(tmp_path / "out"),
        "--precision",
        "float32",
        "--batch",
        "4",
    ]
    for encoder, target in ((f"{tmp_path}/pipeline:vae", "out"), (f"{tmp_path}/pipeline/vae", "again")):
        command[3] = str(tmp_path / target)
        assert main([*command, "--encoder", encoder, "--mirror", "--device", "cpu"]) == 0
        assert "latents of 4×8×8 of 6 images" in capsys.readouterr().out
        data = load_data(tmp_path / target)
        x = torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 127.5 - 1
        own = vae.encode(x).latent_dist.mean * 0.3
        torch.testing.assert_close(data.raw(), own, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            data.mirrored().raw()[6:], vae.encode(x.flip(-1)).latent_dist.mean * 0.3, rtol=1e-4, atol=1e-5
        )
        pixels_again = Autoencoder.load(encoder).decode(data.transform.inverse(data.batch()))
        torch.testing.assert_close(pixels_again, vae.decode(own / 0.3).sample, rtol=1e-3, atol=1e-4)
    assert main(["data", "verify", str(tmp_path / "out")]) == 0


def test_encoders_that_cannot_be_read(tmp_path: Path, capsys) -> None:
    write_zip(tmp_path / "in.zip", as_the_reference(IMAGES, None))
    (tmp_path / "vae").mkdir()
    command = ["data", "encode", str(tmp_path / "in.zip"), str(tmp_path / "out"), "--encoder", str(tmp_path / "vae")]
    assert main(command) == 2
    assert f"encoder: {tmp_path}/vae cannot be read" in " ".join(capsys.readouterr().err.split())
    for encoder in ("somebody/vae", "somebody/model:vae"):  # the Hub is asked for hf:somebody/vae alone
        assert main([*command[:-1], encoder]) == 2
        repository = encoder.partition(":")[0]
        assert f"no folder {repository}; a repository of the Hugging Face Hub is hf:" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zip", "vae"]
