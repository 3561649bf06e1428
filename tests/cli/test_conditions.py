"""Models with conditions by commands alone: vectors, images, several labels; and what is said of mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diffspace as ds
from diffspace.cli.app import main

RNG = np.random.default_rng(0)
TINY = ["network=ddpmpp", "network.model_channels=8", "network.channel_mult=[1]", "network.num_blocks=1"]
TINY += ["network.attn_resolutions=[]", "images=128", "batch_size=64", "held_out_images=0", "patience_images=0"]


def waves(n: int) -> dict[str, np.ndarray]:
    params = np.stack([RNG.uniform(1, 5, n), RNG.uniform(0.5, 2, n)], 1)
    x = params[:, 1:] * np.sin(2 * np.pi * params[:, :1] * np.arange(16) / 16)
    return {"x": x[:, None].astype(np.float32), "params": params, "coarse": x[:, None].reshape(n, 1, 4, 4).mean(3)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A moment's model of signals with two numbers and a coarser signal as conditions."""
    folder = tmp_path_factory.mktemp("waves")
    np.savez(folder / "waves.npz", **waves(60))
    more = ["network.label_dropout=0.2", "--out", str(folder / "run")]
    assert main(["train", str(folder / "waves.npz"), *TINY, *more]) == 0
    return folder / "run"


def sampled(run: Path, out: Path, *words: str) -> dict[str, np.ndarray]:
    assert main(["sample", str(run), "--steps", "3", "--out", str(out), "--overwrite", *words]) == 0
    return dict(np.load(out))


def test_words_and_files_give_what_the_library_gives(run: Path, tmp_path: Path) -> None:
    model = ds.load(run)
    assert {name: each.shape for name, each in model.conditioning.items()} == {"params": (2,), "coarse": (1, 4)}
    data = waves(3)
    np.savez(tmp_path / "values.npz", params=data["params"], coarse=data["coarse"])
    by_file = sampled(run, tmp_path / "a.npz", "--cond", str(tmp_path / "values.npz"), "--seeds", "0-3")
    rows = np.arange(4) % 3
    assert np.array_equal(by_file["params"], data["params"][rows].astype(np.float32))
    import torch

    cond = {name: torch.from_numpy(by_file[name]) for name in ("params", "coarse")}
    x = ds.sample(model, seeds=range(4), steps=ds.EDMSteps(3), cond=cond).x
    assert np.array_equal(model.decode(x).numpy(), by_file["x"])
    # samples are values for further samples
    again = sampled(run, tmp_path / "b.npz", "--cond", str(tmp_path / "a.npz"), "--seeds", "0-3")
    assert np.array_equal(again["x"], by_file["x"])
    np.save(tmp_path / "coarse.npy", data["coarse"])
    row = ";".join(",".join(map(repr, row)) for row in by_file["params"][:3].tolist())
    words = ["--cond", f"params={row}", "--cond", f"coarse={tmp_path / 'coarse.npy'}", "--seeds", "0-3"]
    assert np.array_equal(sampled(run, tmp_path / "c.npz", *words)["x"], by_file["x"])
    # trained without conditions too
    assert sampled(run, tmp_path / "d.npz", "--seeds", "0-3").keys() == {"x", "seeds"}


@pytest.mark.slow
def test_scores_reports_and_previews_have_conditions(run: Path, tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith("held_out")]
    more = ["preview_images=128", "score_images=128", "held_out_images=128", "--out", str(tmp_path / "run")]
    assert main(["train", str(run.parent / "waves.npz"), *words, *more]) == 0
    assert list((tmp_path / "run" / "previews").iterdir())
    assert main(["evaluate", str(tmp_path / "run"), "--n", "10", "--sets", "1", "--steps", "2"]) == 0
    assert "held-out item at its place" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_likelihoods_and_solvers_have_conditions(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["likelihood", str(run), "--n", "2", "--steps", "2", "--probes", "1"]) == 0
    words = ["--nfe", "3", "--solvers", "heun", "--steps", "edm", "--seeds", "0-1", "--reference-steps", "8"]
    capsys.readouterr()
    assert main(["solvers", str(run), "--cond", "params=2,1", *words, "--json", str(tmp_path / "a.json")]) == 0
    assert "--cond params=2,1 --solver" in " ".join(capsys.readouterr().out.split())
    assert main(["solvers", str(run), *words, "--json", str(tmp_path / "b.json")]) == 0
    errors = [json.loads((tmp_path / name).read_text())["rows"][0]["rms"] for name in ("a.json", "b.json")]
    assert errors[0] != errors[1]
    assert main(["solvers", "ring", "--cond", "params=2,1", *words]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cond", "params=1"], "--cond: params: expected 2 numbers, in training"),
        (["--cond", "params=1,nan"], "--cond: params: expected 2 numbers"),
        (["--cond", "parms=1,2"], "--cond: the model has no condition 'parms'; did you mean 'params'?"),
        (["--cond", "params=1,2", "--cond", "params=1,2"], "--cond: 'params' is given twice"),
        (["--cond", "params"], "--cond: expected NAME=VALUE or the name of an .npz file, got 'params'"),
        (["--cond", "no.npz"], "--cond: there is no file no.npz"),
        (["--cond", "coarse=no.npy"], "--cond: coarse: there is no file no.npy"),
        (["--cond", "bad.npz"], "--cond: bad.npz: coarse: expected rows of an image of 1×4"),
        (["--cond", "nan.npz"], "--cond: nan.npz: params: row 1 is not finite"),
        (["--cond", "other.npz"], "--cond: the model has no condition 'height'"),
        (["--class", "a"], "--class: the model was trained without classes"),
    ],
)
def test_mistakes_are_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words, message
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("bad.npz", coarse=np.zeros((2, 1, 5)))
    np.savez("nan.npz", params=np.array([[1.0, 2.0], [np.nan, 1.0]]))
    np.savez("other.npz", height=np.zeros(3))
    assert main(["sample", str(run), "--out", "x.npz", *words]) == 2
    error = capsys.readouterr().err
    assert message in " ".join(error.split())
    assert not (tmp_path / "x.npz").exists()


def test_values_beyond_the_data_are_warned_of(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sampled(run, tmp_path / "x.npz", "--cond", "params=9,1", "--seeds", "0-1")
    assert "params: 9 goes beyond 1" in " ".join(capsys.readouterr().err.split())


def test_a_missing_condition_is_named_with_its_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = waves(40)
    np.savez(tmp_path / "waves.npz", x=data["x"], params=data["params"])
    train = ["train", str(tmp_path / "waves.npz"), *TINY, "--out", str(tmp_path / "run")]
    assert main(train) == 0
    assert "--cond params=" in " ".join(capsys.readouterr().out.split())
    assert main(["sample", str(tmp_path / "run"), "--out", str(tmp_path / "x.npz")]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "--cond: the model requires 'params', 2 numbers, in training 1" in error
    # a run goes on with the same conditions alone
    np.savez(tmp_path / "waves.npz", x=data["x"], params=data["params"] + 1)
    assert main(["train", "--resume", str(tmp_path / "run"), "images=256"]) == 2
    assert "data: have changed since this run began" in " ".join(capsys.readouterr().err.split())
    # data without the condition do not fit the model
    np.savez(tmp_path / "plain.npz", x=data["x"])
    assert main(["likelihood", str(tmp_path / "run"), str(tmp_path / "plain.npz")]) == 2
    assert "the model has the condition 'params', 2 numbers" in " ".join(capsys.readouterr().err.split())
    assert main([*train[:-1], str(tmp_path / "free"), "conditional=false"]) == 0
    assert not ds.load(tmp_path / "free").conditioning


def test_pairs_of_pictures_and_several_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("sharp", "blurred"):
        (tmp_path / folder).mkdir()
    several = RNG.integers(0, 2, (24, 3))
    for k in range(24):
        pixels = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "sharp" / f"{k}.png")
        Image.fromarray(pixels[::2, ::2]).save(tmp_path / "blurred" / f"{k}.png")
    labels = [[f"{k}.png", row.tolist()] for k, row in enumerate(several)]
    index = {"labels": labels, "class_names": ["cat", "dog", "hat"]}
    (tmp_path / "sharp" / "dataset.json").write_text(json.dumps(index))
    words = [f"data.conditions={tmp_path / 'blurred'}", *TINY, "--out", str(tmp_path / "run")]
    assert main(["train", str(tmp_path / "sharp"), *words]) == 0
    assert set(ds.load(tmp_path / "run").conditioning) == {"labels", "blurred"}
    given = ["--cond", "labels=cat,hat;dog", "--cond", f"blurred={tmp_path / 'blurred'}", "--seeds", "0-1"]
    x = sampled(tmp_path / "run", tmp_path / "x.npz", *given)
    assert x["labels"].tolist() == [[1, 0, 1], [0, 1, 0]]
    assert np.array_equal(x["blurred"][0, 0], np.asarray(Image.open(tmp_path / "blurred" / "0.png")))
    one = ["--cond", "labels=0,0,1", "--cond", f"blurred={tmp_path / 'blurred' / '3.png'}", "--seeds", "0-1"]
    assert main(["sample", str(tmp_path / "run"), "--steps", "2", "--out", str(tmp_path / "out"), *one]) == 0
    table = (tmp_path / "out" / "conditions.csv").read_text().splitlines()
    assert table == ["file,labels0,labels1,labels2", "000000.png,0.0,0.0,1.0", "000001.png,0.0,0.0,1.0"]
    capsys.readouterr()
    assert main(["train", str(tmp_path / "sharp"), *words[:-1], str(tmp_path / "moved"), "augment=edm"]) == 2
    assert "augment: would move the samples but not the condition 'blurred'" in " ".join(
        capsys.readouterr().err.split()
    )
