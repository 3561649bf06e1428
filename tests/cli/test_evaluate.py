"""`diffspace evaluate`: the same scores from any number of processes, also after a kill."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

import diffspace as ds
from diffspace.cli.app import main
from diffspace.cli.drawing import Drawing
from diffspace.cli.scores.reading import read_data
from diffspace.cli.scores.real import RealData
from diffspace.cli.scores.subject import open_subject
from diffspace.metrics import FeatureStatistics, frechet_distance

SMALL = ["--n", "40", "--sets", "3", "--steps", "3", "--batch", "16", "--no-report"]


def scores_of(run, *words):
    assert main(["evaluate", str(run), *SMALL, *map(str, words)]) == 0
    assert not list(run.glob(".*"))
    return (run / "scores.json").read_bytes()


def stop_at(monkeypatch, number):
    """Interrupt the command when it draws this batch."""
    draw = Drawing.draw

    def stopping(self, k, progress=None):
        if k == number:
            raise KeyboardInterrupt
        return draw(self, k, progress)

    monkeypatch.setattr(Drawing, "draw", stopping)


@pytest.fixture(scope="module")
def alone(points_run):
    return scores_of(points_run)


def test_what_was_asked_for_is_written_down(alone):
    scores = json.loads(alone)
    assert scores["seeds"] == "0-119"
    assert scores["request"]["steps"]["num_steps"] == 3
    assert scores["request"]["guidance"] is None


def test_an_interrupted_evaluation_goes_on_to_the_same_scores(points_run, alone, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        stop_at(patched, 5)
        assert main(["evaluate", str(points_run), *SMALL]) == 130
        assert (points_run / ".scores.parts" / "samples" / "batches").stat().st_size == 9 * 5
    drawn = []
    draw = Drawing.draw
    monkeypatch.setattr(Drawing, "draw", lambda self, k, progress=None: drawn.append(k) or draw(self, k, progress))
    assert scores_of(points_run) == alone
    assert drawn == [5, 6, 7]


def test_an_interrupted_evaluation_never_mixes_two_requests(points_run, alone, monkeypatch):
    with monkeypatch.context() as patched:
        stop_at(patched, 5)
        assert main(["evaluate", str(points_run), *SMALL, "--solver", "euler"]) == 130
    assert scores_of(points_run) == alone


def test_samples_are_kept_where_that_is_asked_for(points_run, alone, tmp_path):
    kept = tmp_path / "kept.npz"
    assert scores_of(points_run, "--keep", kept) == alone
    with np.load(kept) as arrays:
        assert arrays["seeds"].tolist() == list(range(120))
        model = ds.load(points_run)
        expected = model.decode(ds.sample(model, seeds=range(16), sampler=ds.Sampler(ds.EDMSteps(3))).x)
        np.testing.assert_array_equal(arrays["x"][:16], expected.numpy())


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="starts processes as POSIX does")
def test_two_processes_score_as_one(points_run, alone):
    assert scores_of(points_run, "--processes", "2", "--device", "cpu") == alone


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_two_processes_that_are_stopped_go_on_to_the_scores_of_one(points_run, number):
    words = ["--n", "400", "--sets", "3", "--steps", "80", "--batch", "8", "--no-report"]
    assert main(["evaluate", str(points_run), *words]) == 0
    alone = (points_run / "scores.json").read_bytes()
    (points_run / "scores.json").unlink()
    command = [sys.executable, "-m", "diffspace", "evaluate", str(points_run), *words, "--device", "cpu"]
    process = subprocess.Popen([*command, "--processes", "2"], stderr=subprocess.PIPE, start_new_session=True)
    batches = points_run / ".scores.parts" / "samples" / "batches"
    deadline = time.monotonic() + 240
    while not (batches.is_file() and batches.stat().st_size > 50):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, number)
    process.communicate(timeout=120)
    assert not (points_run / "scores.json").exists()
    assert batches.is_file()
    assert main(["evaluate", str(points_run), *words, "--processes", "2", "--device", "cpu"]) == 0
    assert (points_run / "scores.json").read_bytes() == alone


ONE = ["--n", "60", "--sets", "1", "--features", "identity", "--no-report"]


def values(words, out):
    """The scores of the samples by name, as evaluate writes them into a folder."""
    assert main(["evaluate", *map(str, words), *ONE, "--out", str(out)]) == 0
    return {row["score"]: row["samples"]["value"] for row in json.loads((out / "scores.json").read_text())["scores"]}


@pytest.fixture(scope="module")
def kept(digits_run, tmp_path_factory):
    """Samples in every form, and their scores when they were drawn."""
    folder = tmp_path_factory.mktemp("kept")
    drawn = values([digits_run, "--steps", "2", "--keep", folder / "png"], folder)
    shutil.make_archive(str(folder / "png"), "zip", folder / "png")
    x = read_data("", str(folder / "png"), (1, 8, 8), ds.load(digits_run).transform).raw().numpy()
    np.save(folder / "x.npy", x)
    np.savez(folder / "x.npz", x=x, labels=np.arange(60) % 10)
    np.savez(folder / "real.npz", images=x[:, 0].astype(np.float64))  # in another layout and type
    np.save(folder / "last.npy", x.transpose(0, 2, 3, 1))
    return folder, drawn


def test_pictures_score_as_when_they_were_drawn(digits_run, kept, tmp_path):
    folder, drawn = kept
    assert values([digits_run, "--samples", folder / "png"], tmp_path) == drawn


def test_copies_are_looked_for_in_the_data_of_the_run(digits_run, tmp_path):
    training, held_out = ds.data.load_data("digits").split()
    np.save(tmp_path / "copies.npy", training.raw()[:60].numpy())
    np.save(tmp_path / "other.npy", held_out.raw().numpy())
    words = ["--samples", tmp_path / "copies.npy", "--against", tmp_path / "other.npy"]
    values([digits_run, *words], tmp_path / "scores")
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert len(scores["memorisation"]["copies"]) == 60
    assert scores["memorisation"]["train_n"] == len(training)
    assert any("of the data that the model was trained on" in note for note in scores["notes"])


@pytest.mark.parametrize("name", ["png", "png.zip", "x.npz", "x.npy", "real.npz", "last.npy"])
def test_samples_are_the_same_in_every_form(digits_run, kept, name):
    model = ds.load(digits_run)
    read = read_data("--samples", str(kept[0] / name), model.sample_shape, model.transform)
    cond = RealData(*ds.data.load_data("digits").split()).cond(model, 60)
    expected = ds.sample(model, seeds=range(60), cond=cond, sampler=ds.Sampler(ds.EDMSteps(2)))
    assert torch.equal(read.raw(), model.decode(expected.x))


def test_samples_are_compared_with_data_without_a_model(kept, tmp_path):
    folder, _ = kept
    found = values(["--samples", folder / "x.npz", "--against", "digits"], tmp_path)
    training, held_out = ds.data.load_data("digits").split()
    with np.load(folder / "x.npz") as arrays:
        x = held_out.transform.forward(torch.from_numpy(arrays["x"])).flatten(1)
    a, b = (FeatureStatistics.of(each) for each in (x, held_out.batch().flatten(1)))
    assert found["frechet"] == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert len(training) + len(held_out) == 1797


def test_statistics_are_compared_with_samples_alone_or_beside_real_data(digits_run, kept, tmp_path, capsys):
    folder, drawn = kept
    held_out = ds.load(digits_run).transform.forward(ds.data.load_data("digits").split()[1].raw())
    statistics = FeatureStatistics.of(held_out.flatten(1))
    np.savez(tmp_path / "ref.npz", mu=statistics.mean.numpy(), sigma=statistics.covariance.numpy())
    beside = values([digits_run, "--samples", folder / "x.npz", "--against", tmp_path / "ref.npz"], tmp_path / "a")
    assert beside == {"frechet": pytest.approx(drawn["frechet"], rel=1e-9)}
    told = capsys.readouterr()
    assert "statistics of an unknown number of items" in " ".join(told.out.split())
    assert "60 items do not span the 64 features of identity-64: covariances are singular" in " ".join(told.err.split())
    # pixels are in the units of all models of pixels; those of other arrays are not known without one
    pixels = np.random.default_rng(0).integers(0, 256, (64, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    alone = values(["--samples", tmp_path / "pixels.npy", "--against", tmp_path / "ref.npz"], tmp_path / "b")
    chosen = ds.data.load_data(tmp_path / "pixels.npy").sample_numbers(60)
    own = FeatureStatistics.of(torch.from_numpy(pixels)[chosen].flatten(1) / 127.5 - 1)
    assert alone == {"frechet": pytest.approx(frechet_distance(own, statistics), rel=1e-6)}
    assert main(["evaluate", "--samples", str(folder / "real.npz"), "--against", str(tmp_path / "ref.npz")]) == 2
    assert "in which units" in capsys.readouterr().err


def test_a_model_of_any_folder_is_compared_with_data(digits_run, tmp_path):
    ds.load(digits_run).save(tmp_path / "model")
    words = [tmp_path / "model", "--steps", "2", "--against", "digits"]
    assert values(words, tmp_path / "a")["frechet"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "MODEL, --samples: expected a model or samples to score, got neither"),
        (["--samples", "x.npy"], "--against: is missing"),
        (["MODEL", "--samples", "x.npy", "--guidance", "2"], "--guidance: has no effect with --samples"),
        (["MODEL", "--samples", "x.npy", "--S-churn", "2"], "--S-churn: has no effect with --samples"),
        (["MODEL", "--n", "100000"], "real items to compare with; use --sets for more samples"),
        (["MODEL", "--overwrite"], "--overwrite: has no effect without --keep"),
        (["MODEL", "--guide", "MODEL"], "--guide: has no effect without --guidance"),
        (["MODEL", "--weights", "x.pth"], "--weights: expected exactly one of --features inception"),
        (["MODEL", "--features", "incepton"], "did you mean 'inception'"),
        (["MODEL", "--samples", "one.npy"], "--samples: one.npy has 1 sample; expected at least 2"),
        (["MODEL", "--samples", "empty"], "empty: "),
        (["MODEL", "--samples", "small.npy"], "--samples: small.npy has items of 1×7×7; expected 1×8×8"),
        (["MODEL", "--samples", "colour"], "--samples: colour has items of 1×9×9; expected 1×8×8"),
        (["MODEL", "--samples", "half.npy"], "--samples: half.npy has fractions; expected whole numbers"),
        (
            ["MODEL", "--samples", "far.npy"],
            "--samples: far.npy: raw: expected values in the transform's bounds [0, 16]",
        ),
        (["MODEL", "--samples", "nan.npy"], "nan.npy: 64 of "),
        (["MODEL", "--samples", "cut.npy"], "cut.npy: cannot be read"),
        (["MODEL", "--samples", "cut.zip"], "cut.zip: cannot be read as a ZIP archive"),
        (["MODEL", "--samples", "typo"], "'typo' does not exist"),
        (["MODEL", "--samples", "x.npy", "--n", "70"], "--n: 70, but --samples has 64"),
        (["MODEL", "--against", "statistics.npz", "--n", "9"], "--features: is missing; name what made the 5 features"),
        (["--samples", "x.npy", "--against", "statistics.npz", "--features", "pca"], "pca comes from real data"),
        (["--samples", "x.npy", "--against", "statistics.npz", "--features", "identity"], "statistics of 5 features"),
        (["--samples", "x.npy", "--against", "cut.npz"], "cut.npz: "),
    ],
)
def test_mistakes_are_one_line(digits_run, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    whole = np.random.default_rng(0).integers(0, 17, (64, 1, 8, 8), dtype=np.uint8)
    arrays = {"x": whole, "one": whole[:1], "small": whole[..., :7, :7], "half": whole + 0.5, "far": whole + 1}
    arrays["nan"] = whole + np.where(np.arange(512).reshape(8, 8, 8)[:1] == 3, np.nan, 0.0)
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    np.savez("statistics.npz", mu=np.zeros(5), sigma=np.eye(5))
    content = (tmp_path / "statistics.npz").read_bytes()
    for name, part in (("cut.npz", content[:200]), ("cut.zip", content[:200]), ("cut.npy", b"\x93NUMPY")):
        (tmp_path / name).write_bytes(part)
    (tmp_path / "empty").mkdir()
    (tmp_path / "colour").mkdir()
    for k in range(3):
        Image.new("RGB", (9, 9), (200, 0, k)).save(f"colour/{k}.png")
    assert main(["evaluate", *(str(digits_run) if word == "MODEL" else word for word in words)]) == 2
    said = capsys.readouterr().err
    assert message in said.replace("\n", " ")
    assert sum(line.startswith("diffspace: ") for line in said.splitlines()) == 1
    assert not list(tmp_path.glob("scores*"))


def test_the_features_choose_among_the_statistics_of_edm2(tmp_path):
    sets = {name: {"mu": np.full(2, float(k)), "sigma": np.eye(2)} for k, name in enumerate(("fid", "fd_dinov2"))}
    (tmp_path / "img512.pkl").write_bytes(pickle.dumps({"num_images": 9, **sets}))
    np.save(tmp_path / "x.npy", np.zeros((4, 3, 8, 8), np.uint8))

    def statistics(*features):
        given = (None, str(tmp_path / "x.npy"), str(tmp_path / "img512.pkl"), features)
        return open_subject(*given, torch.device("cpu"), print).statistics

    assert [statistics(word).mean[0] for word in ("inception", "dinov2")] == [0, 1]
    with pytest.raises(ValueError, match=r"img512.pkl: .*--features: inception or dinov2 choose among statistics"):
        statistics()


def test_held_out_items_that_were_trained_on_are_left_out(tmp_path, capsys):
    run = tmp_path / "run"
    small = ["images=64", "batch_size=32", "network.kind=mlp", "network.width=8", "data.holdout=50"]
    assert main(["train", "digits", *small, "--out", str(run)]) == 0
    training = ds.train.make_data_recipe({"source": "digits", "holdout": 50}).load()[0]
    near = training.raw()[:40].clone()
    near[:, 0, 0, 0] = 1 - near[:, 0, 0, 0].clamp_max(1)
    np.save(tmp_path / "near.npy", near.numpy())
    words = ["--samples", tmp_path / "near.npy", "--against", "digits", *ONE[2:], "--n", "40", "--out", tmp_path / "a"]
    assert main(["evaluate", str(run), *map(str, words)]) == 0
    told = capsys.readouterr()
    assert "held-out items were trained on and are left out" in told.err
    assert "too close: 100.0%" in " ".join(told.out.split())


def test_data_of_one_class_are_compared_without_a_classifier(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(200, 2)).astype("f4")
    np.savez(tmp_path / "one.npz", x=x, labels=np.zeros(200, int))
    assert main(["train", str(tmp_path / "one.npz"), "images=64", "batch_size=32", "--out", str(tmp_path / "run")]) == 0
    assert "frechet" in values([tmp_path / "run", "--steps", "2"], tmp_path / "a")
    words = ["evaluate", str(tmp_path / "run"), "--n", "20", "--sets", "1", "--features", "classifier", "--no-report"]
    assert main(words) == 2
    assert "features: a classifier needs at least 2 classes, the training data have 1" in capsys.readouterr().err
