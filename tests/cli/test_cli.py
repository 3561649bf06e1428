"""The commands as a person runs them: what they leave on disk, what they print, and their one-line errors."""

import dataclasses
import json
import math
import re
import warnings

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.text import Text

import diffspace as ds
from diffspace.cli.app import main
from diffspace.cli.console import Stages, err, out, progress_bar, table
from diffspace.cli.drawing import Drawing
from diffspace.cli.options import parse_seeds
from diffspace.cli.runs import plan_run, with_classes_of
from diffspace.data import DataSet, InMemory
from diffspace.train import Processes


def error_of(capsys, *arguments):
    """The one line that a mistaken command prints; the exit code is 2 and nothing else is said."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("diffspace: ")
    return lines[0]


def test_train_writes_a_whole_run(digits_run):
    names = {path.name for path in digits_run.iterdir()}
    assert names == {"recipe.yaml", "config.json", "model.safetensors", "checkpoints", "log.jsonl", "run.lock"}
    model = ds.load(digits_run)
    assert model.class_names == tuple("0123456789")
    assert model.sample_shape == (1, 8, 8)
    assert {name: part["count"] for name, part in model.notes.pop("fingerprint").items()} == {
        "training": 1438,
        "held-out": 359,
    }
    assert model.notes == {"data": "digits", "images": 512, "steps": 8}


def test_sigma_data_is_that_of_the_data_and_the_noise_goes_with_it(digits_run, points_run):
    from diffspace.data import load_data
    from diffspace.inspection import inspect

    training, _ = load_data("digits").split()
    measured = inspect(training).proposals.sigma_data.value
    assert ds.load(digits_run).denoiser.preconditioning.sigma_data == pytest.approx(measured, rel=5e-3)
    noise = yaml.safe_load((digits_run / "recipe.yaml").read_text())["noise"]
    assert noise["P_mean"] == pytest.approx(-1.2 + math.log(measured / 0.5), abs=5e-3)
    assert noise["P_std"] == 1.2
    proposed = inspect(load_data("swissroll", n=500).split()[0]).proposals
    noise = yaml.safe_load((points_run / "recipe.yaml").read_text())["noise"]
    assert (noise["P_mean"], noise["P_std"]) == pytest.approx((proposed.P_mean.value, proposed.P_std.value), rel=5e-3)


def test_a_folder_that_is_written_anew_holds_one_run(digits_run, tmp_path):
    out = tmp_path / "many"
    options = ["sample", str(digits_run), "--steps", "2", "--out", str(out)]
    assert main([*options, "--seeds", "0-3,1000", "--subdirs"]) == 0
    (out / "notes.txt").write_text("mine")
    assert main([*options, "--seeds", "1-2", "--overwrite"]) == 0
    assert sorted(p.name for p in out.rglob("*") if p.is_file()) == [
        "000001.png",
        "000002.png",
        "labels.json",
        "notes.txt",
        "samples.json",
    ]


def test_an_interrupted_folder_has_the_labels_of_its_pictures(digits_run, tmp_path, monkeypatch):
    out = tmp_path / "many"
    draw = Drawing.draw

    def interrupted(drawing, number, progress):
        if number:
            raise KeyboardInterrupt
        return draw(drawing, number, progress)

    monkeypatch.setattr(Drawing, "draw", interrupted)
    options = ["--seeds", "0-5", "--batch", "2", "--class", "3", "--steps", "2"]
    assert main(["sample", str(digits_run), *options, "--out", str(out)]) == 130
    assert json.loads((out / "labels.json").read_text()) == {"000000.png": "3", "000001.png": "3"}


def test_a_model_goes_on_being_trained(digits_run, tmp_path, capsys):
    options = ["images=128", "batch_size=64", "--transfer", str(digits_run)]
    assert main(["train", "digits", *options, "--out", str(tmp_path / "more")]) == 0
    old, new = (yaml.safe_load((f / "recipe.yaml").read_text()) for f in (digits_run, tmp_path / "more"))
    assert new["network"] == old["network"]
    assert new["preconditioning"] == old["preconditioning"]
    assert "--transfer: the model makes samples of 1×8×8, the data are of 2" in error_of(
        capsys, "train", "two-moons", "--transfer", digits_run, "--out", tmp_path / "x"
    )
    assert not (tmp_path / "x").exists()


def test_a_model_that_may_know_what_is_held_out_is_told(digits_run, tmp_path):
    for holdout, known in ((300, True), (359, False)):
        told: list[str] = []
        plan = plan_run("digits", ["images=128", f"data.holdout={holdout}"], None, str(digits_run))
        plan.start(tmp_path / str(holdout), Processes(torch.device("cpu")), told.append).close()
        assert any("--transfer: the model was trained on another part of these data" in text for text in told) == known


def test_a_transfer_to_other_classes_says_that_they_go_by_number(tmp_path, capsys):
    save_classes(tmp_path / "model", ("cat", "dog"))
    options = ["images=32", "batch_size=32", "--transfer", str(tmp_path / "model"), "--out", str(tmp_path / "run")]
    assert main(["train", "two-moons", "data.n=64", *options]) == 0
    assert "go by their numbers: cat, dog, … and upper, lower, …" in " ".join(capsys.readouterr().err.split())


def test_half_precision_is_near_single(digits_run, tmp_path):
    # images of the digits run are far from converged: what counts is that the same ones are made
    arrays = []
    for precision in ("float32", "bfloat16"):
        out = str(tmp_path / f"{precision}.npz")
        assert main(["sample", str(digits_run), "--steps", "6", "--precision", precision, "--out", out]) == 0
        with np.load(out) as loaded:
            arrays.append(loaded["x"].astype(float))
    difference = np.abs(arrays[0] - arrays[1]).mean()
    assert 0 < difference < 0.1 * np.abs(arrays[0] - arrays[0].mean(0)).mean()


def test_grid_array_and_folder_hold_the_same_samples(digits_run, tmp_path):
    options = ["sample", str(digits_run), "--seeds", "3-5,9", "--steps", "4", "--class", "7,2"]
    assert main([*options, "--out", str(tmp_path / "x.npz"), "--batch", "3"]) == 0
    assert main([*options, "--out", str(tmp_path / "singles")]) == 0
    assert main([*options, "--out", str(tmp_path / "grid.png"), "--columns", "4"]) == 0

    model = ds.load(digits_run)
    cond = {"labels": torch.tensor([7, 2, 7, 2])}
    expected = model.decode(ds.sample(model, seeds=[3, 4, 5, 9], steps=ds.EDMSteps(4), cond=cond).x)
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["seeds"].tolist() == [3, 4, 5, 9]
        assert arrays["labels"].tolist() == [7, 2, 7, 2]
        assert arrays["class_names"].tolist() == list("0123456789")
        # 1e-5 through a network may move a value across a half
        assert np.abs(arrays["x"].astype(int) - expected.numpy().astype(int)).max() <= 1
        stored = arrays["x"]
    assert main([*options, "--out", str(tmp_path / "many"), "--subdirs", "--seeds", "999-1000", "--batch", "1"]) == 0
    assert sorted(str(path.relative_to(tmp_path / "many")) for path in (tmp_path / "many").rglob("*.png")) == [
        "000000/000999.png",
        "001000/001000.png",
    ]
    assert json.loads((tmp_path / "many" / "labels.json").read_text()) == {
        "000000/000999.png": "7",
        "001000/001000.png": "2",
    }
    names = sorted(path.name for path in (tmp_path / "singles").iterdir())
    assert names == ["000003.png", "000004.png", "000005.png", "000009.png", "labels.json", "samples.json"]
    with Image.open(tmp_path / "singles" / "000009.png") as picture:
        single = np.asarray(picture)
    assert np.abs(single.astype(int) - np.round(stored[3, 0] * (255 / 16)).astype(int)).max() <= 16
    assert json.loads((tmp_path / "singles" / "labels.json").read_text())["000004.png"] == "2"
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.width > 4 * 8


def test_every_option_of_the_sampler_reaches_it(points_run, tmp_path):
    def run(name, *options):
        assert main(["sample", str(points_run), "--seeds", "0-9", "--out", str(tmp_path / name), *options]) == 0
        with np.load(tmp_path / name) as arrays:
            return torch.from_numpy(arrays["x"])

    model = ds.load(points_run)

    def expected(**options):
        return model.decode(ds.sample(model, seeds=range(10), **options).x)

    cases = [
        (["--steps", "7"], {"steps": ds.EDMSteps(7)}),
        (
            ["--steps", "7", "--rho", "3", "--sigma-min", "0.01", "--sigma-max", "20"],
            {"steps": ds.EDMSteps(7, 0.01, 20.0, rho=3.0)},
        ),
        (["--solver", "euler", "--steps", "5"], {"steps": ds.EDMSteps(5), "solver": ds.Euler()}),
        (
            ["--solver", "unipc:k=2,variant=bh1", "--disc", "beta:alpha=0.5", "--steps", "5"],
            {"steps": ds.BetaSteps(5, alpha=0.5), "solver": ds.UniPC(2, "bh1")},
        ),
        (["--solver", "midpoint", "--steps", "5"], {"steps": ds.EDMSteps(5), "solver": ds.Heun(0.5)}),
        (["--alpha", "0.7", "--steps", "5"], {"steps": ds.EDMSteps(5), "solver": ds.Heun(0.7)}),
        (["--disc", "ve", "--steps", "5", "--sigma-max", "50"], {"steps": ds.VESteps(5, sigma_max=50.0)}),
        (["--disc", "iddpm", "--steps", "5", "--M", "100", "--j0", "2"], {"steps": ds.IDDPMSteps(5, M=100, j0=2)}),
        (["--steps", "loglinear:num_steps=5"], {"steps": ds.LogLinearSteps(5)}),
        (
            ["--disc", "vp", "--beta-d", "18", "--steps", "5", "--process", "vp"],
            {"steps": ds.VPSteps(5, beta_d=18.0), "process": ds.Process(ds.VPSchedule(18.0))},
        ),
        (  # as in NVlabs/edm: s = 1, and the β of the range
            ["--steps", "5", "--sigma-max", "60", "--schedule", "vp"],
            {
                "steps": ds.EDMSteps(5, sigma_max=60.0),
                "process": ds.Process(ds.VPSchedule.spanning(0.002, 60.0), ds.NoScaling()),
            },
        ),
        (
            ["--process", "cosine", "--scaling", "none", "--steps", "5"],
            {"steps": ds.EDMSteps(5), "process": ds.Process(ds.CosineSchedule(), ds.NoScaling())},
        ),
        (
            ["--steps", "5", "--S-churn", "2", "--S-min", "0.1", "--S-max", "10", "--S-noise", "1.01"],
            {"steps": ds.EDMSteps(5), "churn": ds.Churn(2, 0.1, 10, 1.01)},
        ),
    ]  # fmt: skip
    none = run("none.npz", "--steps", "5", "--S-churn", "0")
    torch.testing.assert_close(none, expected(steps=ds.EDMSteps(5)), rtol=1e-4, atol=1e-4)
    ends = []
    for k, (options, objects) in enumerate(cases):
        end = run(f"{k}.npz", *options)
        torch.testing.assert_close(end, expected(**objects), rtol=1e-4, atol=1e-4)
        ends.append(end)
    for a in range(len(ends)):
        for b in range(a):
            assert float((ends[a] - ends[b]).abs().max()) > 1e-3, (cases[a][0], cases[b][0])


def test_solvers_in_sigma_need_no_process_and_take_none():
    from diffspace.cli.sampler_options import build_sampler

    assert build_sampler({"solver": "ab:k=4"}).solver == ds.AdamsBashforth(4)
    assert build_sampler({"solver": "afs:solver=(ab:k=4)"}).process == ds.Process()
    assert build_sampler({"steps": "5"}, default=ds.Sampler(solver=ds.UniPC())).solver == ds.UniPC()
    for solver in ("sde", "sde:stages=2", "rk4", "afs"):
        assert build_sampler({"solver": solver, "process": "vp"}).process == ds.Process(ds.VPSchedule())
    for solver in ("ab:k=4", "afs:solver=(ab:k=4)", "euler-ancestral", "pc", "dopri5"):
        with pytest.raises(ValueError, match="--process, --schedule, --scaling: have no effect on"):
            build_sampler({"solver": solver, "process": "vp"})


def test_evaluate_writes_scores(digits_run, capsys):
    assert main(["evaluate", str(digits_run), "--n", "40", "--sets", "1", "--steps", "2", "--no-report"]) == 0
    scores = json.loads((digits_run / "scores.json").read_text())
    assert scores["seeds"] == "0-39"
    assert scores["recognised"]["held_out"]["value"] > 0.97
    assert "Fréchet distance" in capsys.readouterr().out


@pytest.mark.parametrize("run", ["points_run", pytest.param("digits_run", marks=pytest.mark.slow)])
def test_evaluate_writes_a_report_that_stands_alone(run, request):
    folder = request.getfixturevalue(run)
    assert main(["evaluate", str(folder), "--n", "50", "--sets", "1", "--steps", "4"]) == 0
    recognised = json.loads((folder / "scores.json").read_text())["recognised"]
    assert (recognised is None) == (run == "points_run")  # which have no classes
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert report.count("data:image/png;base64,") >= 5
    assert "http://" not in report
    assert "https://" not in report


def test_inspect_prints_the_proposals(capsys):
    assert main(["inspect", "digits"]) == 0
    printed = capsys.readouterr().out
    for name in ("sigma_data", "sigma_min", "sigma_max", "P_mean", "P_std", "1797", "10 classes"):
        assert name in printed


def test_train_does_not_warn_of_its_own_choice(tmp_path, capsys):
    np.save(tmp_path / "waves.npy", np.sin(np.arange(64) * np.linspace(0.1, 0.4, 200)[:, None])[:, None])
    words = [str(tmp_path / "waves.npy"), "images=64", "held_out_images=0", "network.kind=mlp"]
    assert main(["inspect", words[0]]) == 0
    assert "but P_mean = -1.2, P_std = 1.2: the paper's" in capsys.readouterr().out
    assert main(["train", *words, "--out", str(tmp_path / "run")]) == 0
    assert "the data suggest" not in capsys.readouterr().err
    assert main(["train", *words, "noise.P_mean=2", "--out", str(tmp_path / "other")]) == 0
    assert "warning: P_mean = 2, but the data suggest" in capsys.readouterr().err


def test_dry_run_prints_a_recipe_that_trains(tmp_path, capsys):
    assert main(["train", "two-moons", "data.n=300", "images=300", "--dry-run"]) == 0
    (tmp_path / "r.yaml").write_text(capsys.readouterr().out)
    assert main(["train", "--recipe", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "run")]) == 0
    written, printed = (yaml.safe_load((tmp_path / name).read_text()) for name in ("run/recipe.yaml", "r.yaml"))
    assert written == printed


def test_a_run_goes_on(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", "two-moons", "data.n=300", "images=300", "--out", str(folder)]) == 0
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("images: 300\n", "images: 900\n"))
    assert main(["train", "--resume", str(folder), "patience_images=0"]) == 0
    assert ds.load(folder).notes["images"] >= 900


def test_epochs_are_turned_into_images(capsys):
    assert main(["train", "two-moons", "data.n=500", "epochs=3", "--dry-run"]) == 0
    assert "images: 1200 " in capsys.readouterr().out  # a fifth of 500 is held out


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [3]), ("0-2", [0, 1, 2]), ("0-1,7,9-9", [0, 1, 7, 9]), (" 1 - 2 , 4", [1, 2, 4])]
)
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "3-1", "1,,2", "-1"])
def test_bad_seeds(text):
    with pytest.raises(ValueError, match="--seeds"):
        parse_seeds(text)


def save_classes(folder, names, counts=(), label_dim=None):
    """An untrained model of points with these classes."""
    network = ds.networks.MLP((2,), width=8, depth=1, label_dim=label_dim or len(names))
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(0.5))
    ds.Model(denoiser, ds.Transform(), names, {}, counts).save(folder)


def classes_of(folder, *options, seeds="0-7"):
    """The names of the classes of samples."""
    out = folder / "x.npz"
    assert (
        main(["sample", str(folder), "--steps", "1", "--seeds", seeds, "--out", str(out), "--overwrite", *options]) == 0
    )
    with np.load(out) as arrays:
        names = arrays["class_names"] if "class_names" in arrays else range(99)
        return [names[k] for k in arrays["labels"]]


class TestClasses:
    def test_names_that_are_numbers_are_names(self, tmp_path, capsys):
        save_classes(tmp_path, tuple(sorted(map(str, range(1, 13)))))
        assert classes_of(tmp_path, "--class", "1,2,12")[:3] == ["1", "2", "12"]
        assert classes_of(tmp_path, "--class", "#0,#1,2")[:3] == ["1", "10", "2"]
        message = error_of(capsys, "sample", tmp_path, "--class", "0,1,2")
        assert "--class: '0' is unknown; #0 to #11 are numbers; did you mean '10'? known: 1, 10, 11," in message
        assert "--class: '#12' is unknown" in error_of(capsys, "sample", tmp_path, "--class", "#12")

    def test_a_name_may_have_commas(self, tmp_path):
        save_classes(tmp_path, ("cat", "crane, bird", "crane, machine", "#1"))
        chosen = ["--class", "crane, machine", "--class", "cat,#1", "--class", "crane, bird"]
        assert classes_of(tmp_path, *chosen)[:5] == ["crane, machine", "cat", "#1", "crane, bird", "crane, machine"]

    def test_classes_without_data_are_refused_by_name_and_not_drawn(self, tmp_path, capsys):
        save_classes(tmp_path, ("a", "b", "c"), (30, 0, 10))
        assert set(classes_of(tmp_path, seeds="0-99")) == {"a", "c"}
        proportional = classes_of(tmp_path, "--class-proportions", seeds="0-199")
        assert proportional.count("b") == 0
        assert abs(proportional.count("a") - 150) < 4 * 6.2  # four standard deviations
        for chosen in ("b", "#1", "a,b"):
            message = error_of(capsys, "sample", tmp_path, "--class", chosen)
            assert "labels: the training had no data of the class 'b'; known: a, c" in message
        both = error_of(capsys, "sample", tmp_path, "--class", "a", "--class-proportions")
        assert "--class-proportions: has no effect with --class" in both

    def test_a_model_whose_classes_have_no_names_is_asked_by_number(self, tmp_path, capsys):
        save_classes(tmp_path, (), label_dim=3)
        assert "has 3 classes without names; choose by number, such as '#0'" in error_of(capsys, "sample", tmp_path)
        assert classes_of(tmp_path, "--class", "#2,#0")[:3] == [2, 0, 2]

    def test_the_classes_of_data_go_by_name(self, tmp_path):
        save_classes(tmp_path, ("cat", "dog", "owl"))
        model, values = ds.load(tmp_path), torch.zeros(3, 2)
        data = DataSet("x", InMemory(values), ds.Transform(), torch.tensor([0, 1, 0]), ("owl", "cat"))
        assert with_classes_of(model, data).labels.tolist() == [2, 0, 2]
        with pytest.raises(ValueError, match="data: the model does not have the class 'owls'; did you mean 'owl'"):
            with_classes_of(model, dataclasses.replace(data, class_names=("owls", "cat")))
        save_classes(tmp_path, ("0", "1"))
        assert with_classes_of(ds.load(tmp_path), data).labels.tolist() == [0, 1, 0]


def test_names_of_others_send_no_command_to_the_terminal(tmp_path, capsys):
    name = "a\x1b]0;x\x07\x9b\u202e"
    np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(size=(40, 2)))
    assert main(["inspect", str(tmp_path / f"{name}.npy")]) == 0
    assert main(["inspect", str(tmp_path / f"{name}.np")]) == 2
    for console in (out, err):
        console.print(Text(f"{name}\udcff", style="bold"))
        console.print(table(("x", "y"), [(name, Text(name))]))
        with progress_bar("images") as bar:
            Stages(bar)(name)
    captured = capsys.readouterr()
    for text in captured:
        assert text.isprintable() or set(text) - set(filter(str.isprintable, text)) == {"\n"}
        assert r"a\x1b]0;x\x9b\u202e" in text.replace(r"\x07", "")  # which rich leaves out


def test_inspect_takes_options_as_train_spells_them(capsys):
    assert main(["inspect", "swissroll", "data.n=300"]) == 0
    assert "swissroll: 300 samples" in capsys.readouterr().out
    assert main(["inspect", "swissroll", "n=300", "holdout=100"]) == 0
    assert "without the 100 held-out samples:\nswissroll: 200 samples" in capsys.readouterr().out


def test_progress_in_a_pipe_is_a_line_from_time_to_time(capsys, monkeypatch):
    monkeypatch.setattr("diffspace.cli.console._SILENCE", 0.0)
    with progress_bar("images") as bar:
        task = bar.add_task("training", total=2000, info="")
        bar.update(task, completed=1500, info="loss 1.5")
    with progress_bar("images", shown=False) as bar:
        bar.update(bar.add_task("hidden", total=1, info=""), completed=1)
    assert capsys.readouterr().err.splitlines() == ["training: 1,500 of 2,000 images, loss 1.5"]
    monkeypatch.setattr("diffspace.cli.console._SILENCE", 30.0)
    with progress_bar("images") as bar:
        bar.update(bar.add_task("quick", total=1, info=""), completed=1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lr=0.1", "lr: there is no such key; did you mean 'learning_rate'?"),
        ("batch=64", "batch: there is no such key; did you mean 'batch_size'?"),
        ("noise.p_mean=0", "noise.p_mean: 'lognormal' has no such option; did you mean 'P_mean'?"),
        ("betas=0.9,0.99", "betas: expected a list of 2 (a number each), got '0.9,0.99'; write [0.9,0.99]"),
        ("network.foo=1", "network.foo: no network has such an option; known: attn_resolutions"),
        ("network.channel_mult=1,2", "network.channel_mult: expected a list (an integer each), got '1,2'; write [1,2]"),
    ],
)
def test_a_wrong_key_is_reported_before_data_are_read(word, message, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/x.png").write_bytes(b"no image")
    words = ["network.kind=ddpmpp"] if word.startswith("network.channel") else []
    assert main(["train", str(tmp_path / "images"), word, *words, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


class TestMistakes:
    def test_commands_and_options(self, capsys):
        assert "smaple" in error_of(capsys, "smaple")
        assert "--stepps" in error_of(capsys, "sample", "x", "--stepps", "3")
        assert "steps.kind: 'abc' is unknown" in error_of(capsys, "sample", "x", "--steps", "abc")

    def test_data(self, capsys, tmp_path):
        assert "no_such_folder" in error_of(capsys, "train", tmp_path / "no_such_folder")
        assert "did you mean 'digits'" in error_of(capsys, "inspect", "digts")
        (tmp_path / "empty").mkdir()
        assert "empty" in error_of(capsys, "train", tmp_path / "empty")
        np.save(tmp_path / "bad.npy", np.array([[1.0, np.nan], [2.0, 3.0]]))
        assert "bad.npy" in error_of(capsys, "inspect", tmp_path / "bad.npy")

    def test_a_truncated_image_is_named_or_skipped_as_chosen(self, capsys, tmp_path):
        rng = np.random.default_rng(0)
        for k in range(6):
            Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(tmp_path / f"{k}.png")
        whole = (tmp_path / "3.png").read_bytes()
        (tmp_path / "3.png").write_bytes(whole[: len(whole) - 30])
        assert "3.png" in error_of(capsys, "inspect", tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            assert main(["inspect", str(tmp_path), "on_error=skip"]) == 0
        told = capsys.readouterr()
        assert "5 samples" in told.out
        assert re.search(r"^warning: .*3\.png$", told.err, re.MULTILINE)

    def test_recipes(self, capsys, tmp_path):
        out = tmp_path / "run"
        assert "did you mean 'batch_size'" in error_of(capsys, "train", "digits", "batchsize=3", "--out", out)
        assert "did you mean 'model_channels'" in error_of(capsys, "train", "digits", "network.model_chanels=3")
        assert "sigma_data" in error_of(capsys, "train", "digits", "preconditioning.sigma_data=-1", "--out", out)
        assert "epochs, images" in error_of(capsys, "train", "digits", "epochs=3", "images=5", "--out", out)
        assert not out.exists()

    def test_a_run_that_exists_is_left_alone(self, capsys, digits_run):
        def content():
            return {path: path.read_bytes() for path in digits_run.rglob("*") if path.is_file()}

        before = content()
        assert "exists already" in error_of(capsys, "train", "digits", "images=10", "--out", digits_run)
        assert before == content()

    def test_models(self, capsys, tmp_path):
        assert "no folder" in error_of(capsys, "sample", tmp_path / "none")
        assert "config.json" in error_of(capsys, "sample", tmp_path)
        assert "recipe.yaml" in error_of(capsys, "evaluate", tmp_path)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--steps", "0"], "num_steps: expected an integer from 1 to 100000, got 0"),
            (["--rho", "3", "--disc", "vp"], "rho"),
            (["--alpha", "0.5", "--solver", "euler"], "alpha"),
            (["--alpha", "0.5", "--solver", "heun:alpha=0.7"], "'heun:alpha=0.7' has alpha, which"),
            (["--solver", "unipc:k=7"], "k: expected an integer from 1 to 3, got 7"),
            (["--solver", "unipc:k"], "kind:option=value"),
            (["--beta-d", "3"], "--beta-d: has no effect"),
            (["--steps", "edm", "--disc", "vp"], "--steps, --disc: expected one of the two"),
            (["--sampler", "x", "--rho", "3"], "has no sampler 'x'"),
            (["--S-min", "3"], "--S-churn"),
            (["--solver", "ab:k=4", "--process", "vp"], "have no effect on ab:k=4, which works in σ"),
            (["--solver", "dpmpp2m", "--scaling", "vp"], "have no effect on dpmpp2m, which works in σ"),
            (["--S-churn", "0", "--S-noise", "1.1"], "--S-min, --S-max, --S-noise: have no effect without --S-churn"),
            (["--class", "11"], "--class: '11'"),
            (["--seeds", "5-1"], "runs backward"),
            (["--sigma-min", "90"], "sigma_min"),
            (["--batch", "0"], "--batch: expected an integer of at least 1, got 0"),
            (["--subdirs"], "--subdirs: has no effect on samples.png"),
            (["--columns", "3", "--out", "x.npz"], "--columns: has no effect on x.npz"),
            (["--precision", "float8"], "--precision: expected 'float32', 'bfloat16' or 'float16', got 'float8'"),
            (["--winograd"], "winograd: has no effect on this network"),
            (["--columns", "0"], "--columns: expected an integer of at least 1, got 0"),
            (["--seeds", "0-3,2", "--out", "many"], "names a seed twice"),
            (["--disc", "edn"], "did you mean 'edm'"),
            (["--out", "x.jpg"], ".jpg"),
            (["--out", "nowhere/x.png"], "no folder"),
            (["--device", "quantum"], "device: 'quantum'"),
        ],
    )
    def test_sampling(self, capsys, digits_run, tmp_path, monkeypatch, options, message):
        monkeypatch.chdir(tmp_path)
        assert message in error_of(capsys, "sample", digits_run, *options)
        assert list(tmp_path.iterdir()) == []

    def test_a_range_outside_the_models_is_an_error_or_clipped(self, capsys, tmp_path):
        folder = tmp_path / "run"
        assert main(["train", "two-moons", "data.n=300", "images=300", "preconditioning=ve", "--out", str(folder)]) == 0
        out = tmp_path / "x.npz"
        assert "model's range" in error_of(capsys, "sample", folder, "--sigma-max", "200", "--out", out)
        assert main(["sample", str(folder), "--sigma-max", "200", "--clip", "--steps", "3", "--out", str(out)]) == 0

    def test_files_are_not_replaced_unless_told(self, capsys, digits_run, tmp_path):
        out = tmp_path / "mine.png"
        out.write_bytes(b"precious")
        options = ["sample", str(digits_run), "--seeds", "0-1", "--steps", "2", "--out", str(out)]
        assert "exists already" in error_of(capsys, *options)
        assert out.read_bytes() == b"precious"
        assert main([*options, "--overwrite"]) == 0
        assert out.read_bytes().startswith(b"\x89PNG")
