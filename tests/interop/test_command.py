import pytest
import torch
from guided_diffusion import random_state
from reference_pickle import write_snapshot
from small_networks import make_denoiser

import diffspace as ds
from diffspace.cli.app import main


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_pickle_is_sampled_with_one_command(tmp_path):
    write_snapshot(tmp_path / "vp.pkl", make_denoiser(choice=ds.VPPreconditioning(), label_dim=3))
    assert main(["sample", "vp.pkl", "--seeds", "0-3", "--steps", "3", "--class", "1", "--out", "x.png"]) == 0
    assert (tmp_path / "x.png").stat().st_size > 100


def test_conversion_writes_a_model_and_reports(tmp_path, capsys):
    write_snapshot(tmp_path / "ve.pkl", make_denoiser(ds.networks.NCSNpp, ds.VEPreconditioning()))
    assert main(["convert", "ve.pkl", "ve"]) == 0
    said = capsys.readouterr().out
    for part in ("NVIDIA", "ncsnpp", "0.02 … 100", "tensors", "loss_fn"):
        assert part in said
    assert ds.load(tmp_path / "ve").denoiser.preconditioning == ds.VEPreconditioning()
    assert main(["convert", "ve.pkl", "ve"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["convert", "ve.pkl", "ve", "--overwrite"]) == 0


def test_a_folder_of_something_else_is_not_overwritten(tmp_path, capsys):
    write_snapshot(tmp_path / "x.pkl", make_denoiser())
    (tmp_path / "run").mkdir()
    (tmp_path / "run/log.jsonl").touch()
    assert main(["convert", "x.pkl", "run", "--overwrite"]) == 2
    assert main(["convert", "x.pkl", "x.pkl"]) == 2
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["log.jsonl"]


def test_options_reach_the_reader(tmp_path, capsys):
    torch.save(random_state(128, (1,), 1, set()), tmp_path / "x.pt")
    assert main(["convert", "x.pt", "m", "--size", "8", "--betas", "linear"]) == 0
    assert "num_steps 1000" in capsys.readouterr().out
    assert ds.load(tmp_path / "m").sample_shape == (3, 8, 8)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04" + b"x" * 50, b"\x80\x04N.", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."]
)
@pytest.mark.parametrize("suffix", [".pkl", ".pt", ".safetensors"])
def test_files_of_no_kind_are_one_line_and_leave_nothing(tmp_path, capsys, content, suffix):
    (tmp_path / f"x{suffix}").write_bytes(content)
    assert main(["convert", f"x{suffix}", "m"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"diffspace: x{suffix}: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_torch_files_with_code_are_refused(tmp_path, capsys):
    class Attack:
        def __reduce__(self):
            return open, (str(tmp_path / "executed"), "w")

    for legacy in (False, True):
        torch.save({"x": Attack()}, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
        assert main(["convert", "x.pt", "m"]) == 2
        assert "not allowed" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


def test_an_upload_follows_the_conversion(tmp_path, monkeypatch, capsys):
    pushed = []
    monkeypatch.setattr(ds.Model, "push", lambda self, name, *, private: pushed.append((name, private)) or "address")
    write_snapshot(tmp_path / "x.pkl", make_denoiser())
    assert main(["convert", "x.pkl", "m", "--push", "me/x", "--private"]) == 0
    assert pushed == [("me/x", True)]
    assert "address" in capsys.readouterr().out
    assert main(["convert", "x.pkl", "n", "--private"]) == 2
