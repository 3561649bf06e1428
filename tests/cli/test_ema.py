"""`diffspace ema` on a run with snapshots, and what it says to mistakes."""

import json

import pytest
import torch
from PIL import Image

import diffspace as ds
from diffspace.averages import EMA, PowerFunction, Snapshots, reconstruct
from diffspace.cli.app import main

LAST = 8 * 1024
SMALL = ["--n", "40", "--sets", "2", "--steps", "2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of points with eight snapshots of two widths, of weights that wander from those of training."""
    folder = tmp_path_factory.mktemp("runs") / "roll"
    assert main(["train", "swissroll", "data.n=400", "images=1000", "--out", str(folder)]) == 0
    denoiser = ds.load(folder).denoiser
    averages = [EMA(denoiser, PowerFunction(width)) for width in (0.05, 0.1)]
    torch.manual_seed(0)
    for k in range(128):
        for p in denoiser.parameters():
            p.data.add_(0.005 * torch.randn_like(p))
        for average in averages:
            average.follow(denoiser, 64 * k, 64)
            if k % 16 == 15:
                Snapshots(folder).write(average, 64 * (k + 1))
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy that a test may write into."""
    copy = tmp_path / "roll"
    copy.mkdir()
    for name in ("recipe.yaml", "config.json", "model.safetensors", "snapshots"):
        (copy / name).symlink_to(trained / name)
    return copy


def error_of(capsys, *arguments):
    """The one line that a mistaken command prints."""
    capsys.readouterr()
    assert main(["ema", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert len(captured.err.strip().splitlines()) == 1, captured.err
    assert captured.out == ""
    return captured.err


def test_width_writes_a_model_of_those_weights(run, capsys):
    assert main(["ema", str(run), "--width", "0.07"]) == 0
    folder = run / "ema" / f"{LAST:012d}-0.07"
    assert str(folder) in capsys.readouterr().out
    model = ds.load(folder)
    known = ds.load(run).notes["fingerprint"]
    assert model.notes == {"data": "swissroll", "images": LAST, "ema_width": 0.07, "fingerprint": known}
    expected = reconstruct(run, 0.07)
    state = model.denoiser.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)
    assert model.transform == ds.load(run).transform
    assert "exists already" in error_of(capsys, run, "--width", "0.07")
    assert main(["ema", str(run), "--width", "0.07", "--overwrite"]) == 0


def test_images_choose_the_time_and_out_the_place(run, tmp_path):
    assert main(["ema", str(run), "--width", "0.05", "--images", str(LAST // 2), "--out", str(tmp_path / "m")]) == 0
    model = ds.load(tmp_path / "m")
    assert model.notes["images"] == LAST // 2
    expected = reconstruct(run, 0.05, LAST // 2)
    assert all(torch.equal(value, expected[name]) for name, value in model.denoiser.state_dict().items())


def test_list_shows_what_is_there(run, capsys):
    assert main(["ema", str(run), "--list"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 10
    assert lines[-2].split()[:3] == [str(LAST), "0.05,", "0.1"]
    assert lines[-1].startswith(f"after {LAST} images, widths of 0.03")


def test_sweep_scores_each_width_as_evaluate_scores_its_model(run, tmp_path, capsys):
    assert main(["ema", str(run), "--sweep", "0.1,0.04,0.07", *SMALL]) == 0
    printed = capsys.readouterr().out
    record = json.loads((run / "ema.json").read_text())
    values = {entry["width"]: entry["frechet"][0]["value"] for entry in record["widths"]}
    assert list(values) == [0.04, 0.07, 0.1]
    assert record["best"] == min(values, key=values.get)
    assert f"best width: {record['best']:g}" in printed
    assert record["seeds"] == "0-79"
    with Image.open(run / "ema.png") as picture:
        assert min(picture.size) > 300

    assert main(["ema", str(run), "--width", "0.07", "--out", str(tmp_path / "m")]) == 0
    (tmp_path / "m" / "recipe.yaml").write_text((run / "recipe.yaml").read_text())
    assert main(["evaluate", str(tmp_path / "m"), *SMALL, "--no-report"]) == 0
    alone = json.loads((tmp_path / "m" / "scores.json").read_text())["frechet"][0]["value"]
    assert values[0.07] == pytest.approx(alone, rel=1e-9)


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ([], "--width, --sweep, --list: give one of them"),
            (["--width", "0.05", "--list"], "give one of them"),
            (["--width", "0"], "width: expected a number in (0, 1/√12 = 0.2887], got 0.0"),
            (["--width", "0.4"], "1/√12 = 0.2887], got 0.4"),
            (["--width", "0.01"], "width: 0.01 is outside of what the snapshots allow, 0.03"),
            (["--width", "wide"], "Invalid value for '--width'"),
            (["--width", "0.05", "--images", "99999"], "images: there is no snapshot after 99999"),
            (["--width", "0.05", "--images", "1500"], "images: there is no snapshot after 1500; the nearest"),
            (["--width", "0.05", "--images", "-1"], "images: there is no snapshot after -1"),
            (["--width", "0.05", "--sets", "3"], "--sets: has no effect without --sweep"),
            (["--width", "0.05", "--first-seed", "0"], "--first-seed: has no effect without --sweep"),
            (["--sweep", "0.05", "--out", "x"], "--out: has no effect without --width"),
            (["--list", "--images", "1024"], "--images: has no effect without --width or --sweep"),
            (["--sweep", "0.05,narrow"], "--sweep: expected widths such as 0.03,0.05,0.1, got '0.05,narrow'"),
            (["--sweep", "0.05,0.01"], "width: 0.01 is outside of what the snapshots allow"),
            (["--sweep", "0.05", "--n", "1"], "--n: expected an integer from 2 to 1000000, got 1"),
            (["--sweep", "0.05", "--sets", "0"], "--sets: expected an integer from 1 to 1000, got 0"),
            (["--sweep", "0.05", "--device", "abacus"], "'abacus' is not available"),
        ],
    )
    def test_options(self, trained, capsys, options, message):
        before = sorted(trained.iterdir())
        assert message in error_of(capsys, trained, *options)
        assert sorted(trained.iterdir()) == before

    def test_folders(self, trained, run, tmp_path, capsys):
        assert f"RUN: there is no folder {tmp_path / 'none'}" in error_of(capsys, tmp_path / "none", "--list")
        assert "has no snapshots" in error_of(capsys, tmp_path, "--width", "0.05")
        (run / "recipe.yaml").unlink()
        assert "has no recipe.yaml" in error_of(capsys, run, "--sweep", "0.05")
        (run / "model.safetensors").unlink()
        assert "it has no model.safetensors" in error_of(capsys, run, "--width", "0.05")

    def test_what_is_there_is_not_replaced(self, run, tmp_path, capsys):
        (run / "ema.json").write_text("mine")
        assert "ema.json exists already" in error_of(capsys, run, "--sweep", "0.05")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "notes.txt").write_text("mine")
        for more in ([], ["--overwrite"]):
            assert "full" in error_of(capsys, run, "--width", "0.05", "--out", tmp_path / "full", *more)
        assert (run / "ema.json").read_text() == "mine"

    def test_snapshots_of_another_network(self, run, capsys):
        (run / "snapshots").unlink()
        Snapshots(run).write(EMA(torch.nn.Linear(2, 2), PowerFunction(0.05)), 1000)
        assert "its snapshots are of another model" in error_of(capsys, run, "--width", "0.05")

    def test_a_damaged_snapshot_is_named(self, trained, run, capsys):
        (run / "snapshots").unlink()
        (run / "snapshots").mkdir()
        for path in (trained / "snapshots").iterdir():
            (run / "snapshots" / path.name).write_bytes(path.read_bytes())
        name = f"{LAST // 2:012d}-0.1.safetensors"
        (run / "snapshots" / name).write_bytes(b"torn")
        assert f"{name}: cannot be read as a snapshot" in error_of(capsys, run, "--width", "0.07")
