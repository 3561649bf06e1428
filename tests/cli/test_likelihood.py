"""`diffspace likelihood`: its figures are those of the library, and its mistakes are named."""

import re

import numpy as np
import pytest
import torch

import diffspace as ds
from diffspace.cli.app import main
from diffspace.data import load_data
from diffspace.likelihood import Hutchinson, bits_per_dim, log_likelihood
from diffspace.sampling import Sampler


def figures(capsys, *arguments):
    """The rows of figures that are printed, and the line below them."""
    capsys.readouterr()
    assert main(["likelihood", *map(str, arguments)]) == 0
    head, *rows, facts = capsys.readouterr().out.strip().splitlines()
    assert "± over samples" in head
    return [[float(v) if v != "unknown" else None for v in re.split(r"\s{2,}", row.strip())[1:]] for row in rows], facts


def steps(n):
    return ds.EDMSteps(n, terminal="sigma_min")


def test_points_are_measured_in_nats_of_what_is_stored(points_run, capsys):
    ((mean, over, estimator, of_steps),), facts = figures(capsys, points_run, "--n", 20, "--steps", 8)
    model, held_out = ds.load(points_run), load_data("swissroll", n=500).split()[1]
    raw = held_out.raw(torch.arange(20) * len(held_out) // 20)
    nats = {
        n: log_likelihood(model, model.transform.forward(raw), sampler=Sampler(steps(n), ds.Heun(1 / 2))).log_prob
        for n in (4, 8)
    }
    expected = nats[8] + model.transform.log_volume((2,))
    assert mean == pytest.approx(float(expected.mean()), abs=1e-4)
    assert over == pytest.approx(float(expected.std()) / 20**0.5, abs=1e-4)
    assert estimator == 0
    assert of_steps == pytest.approx(abs(float((nats[4] - nats[8])[:16].mean())) / 3, abs=1e-4)
    low, high = model.sampling_range
    assert facts == (
        f"swissroll: 20 samples of 2 dimensions, exact trace, 8 steps, NFE 16, σ {low:g} … {high:g}, prior N(0, σ²)"
    )


def test_images_are_measured_in_bits_of_their_classes(digits_run, capsys):
    options = ("--n", 6, "--steps", 3, "--batch", 4, "--first-seed", 5, "--solver", "heun")
    ((mean, over, estimator, _),), facts = figures(capsys, digits_run, *options)
    model, held_out = ds.load(digits_run), load_data("digits").split()[1]
    chosen = torch.arange(6) * len(held_out) // 6
    labels = {"labels": held_out.labels[chosen]}
    common = {"seeds": range(5, 11), "trace": Hutchinson(2), "sampler": Sampler(steps(3), ds.Heun())}
    expected = bits_per_dim(model, held_out.raw(chosen), cond=labels, **common)
    assert mean == pytest.approx(expected.mean, abs=1e-4)
    assert over == pytest.approx(expected.mean_error, abs=1e-4)
    assert estimator == pytest.approx(expected.estimator_error, abs=1e-4)
    assert "2 probes, 3 steps, NFE 6" in facts
    assert facts.endswith("1 draw")
    _, facts = figures(capsys, digits_run, "digits", "holdout=10", "--n", 400, "--steps", 1)
    assert facts.startswith("digits: 10 samples of 64 dimensions, 2 probes")


def test_draws_with_the_exact_trace_give_the_tighter_bound(digits_run, capsys):
    options = ("--n", 2, "--steps", 4, "--draws", 2, "--exact")
    (bits, weighted), facts = figures(capsys, digits_run, *options)
    assert weighted[0] < bits[0]
    assert bits[2] > 0
    assert weighted[2] is None
    assert facts.endswith("2 draws")
    ((_, over, estimator, of_steps),), facts = figures(capsys, digits_run, "--n", 1, "--steps", 1, "--probes", 1)
    assert over is None
    assert estimator is None
    assert of_steps is None  # of one step there is no half
    assert "1 probe," in facts


def test_mistakes_are_named(digits_run, points_run, tmp_path, capsys):
    for arguments, message in (
        ((digits_run, "swissroll"), "data: samples are of 2, the model's of 1×8×8"),
        ((tmp_path,), "is not the folder of a training run"),
        ((points_run, "--draws", 2), "--draws: has no effect"),
        ((points_run, "--n", 0), "--n: expected an integer of at least 1, got 0"),
        ((points_run, "--probes", 0), "--probes: expected an integer of at least 1, got 0"),
        ((points_run, "--batch", 0), "--batch: expected an integer of at least 1, got 0"),
        ((points_run, "--probes", 2, "--exact"), "--probes: has no effect with --exact"),
        ((points_run, "--first-seed", -1), "--first-seed: expected an integer from 0 to 4294967295, got -1"),
        ((points_run, "--sigma-max", 0.001), " is not below sigma_max = 0.001"),
        ((points_run, "--steps", 0), "num_steps: expected an integer from 1 to 100000, got 0"),
        ((points_run, "swissroll", "a.b=1"), "data.a: swissroll has no such option"),
        ((points_run, "swissroll", "size=3"), "size"),
        ((points_run, "--solver", "magic"), "magic"),
    ):
        capsys.readouterr()
        assert main(["likelihood", *map(str, arguments)]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert message in lines[0]


def test_samples_that_were_trained_on_are_counted(points_run, capsys):
    options = ("--n", "4", "--steps", "2")
    assert main(["likelihood", str(points_run), "swissroll", "n=500", "holdout=250", *options]) == 0
    assert "warning: data: 150 of the 250 samples were trained on" in capsys.readouterr().err
    assert main(["likelihood", str(points_run), "swissroll", "n=500", "holdout=90", *options]) == 0
    assert "warning" not in capsys.readouterr().err


def test_data_that_have_changed_since_the_training_are_told(tmp_path, capsys):
    run, values = str(tmp_path / "run"), torch.randn(80, 2).numpy()
    np.save(tmp_path / "x.npy", values)
    small = ["images=200", "network.width=8", "batch_size=20"]
    assert main(["train", str(tmp_path / "x.npy"), *small, "--out", run]) == 0
    commands = (
        ["evaluate", run, "--n", "8", "--sets", "1", "--steps", "2", "--no-report"],
        ["likelihood", run, "--n", "4", "--steps", "2"],
    )
    capsys.readouterr()
    assert [main(command) for command in commands] == [0, 0]
    assert "changed" not in capsys.readouterr().err
    np.save(tmp_path / "x.npy", values[:-3])
    for command in commands:
        assert main(command) == 0
        told = capsys.readouterr().err
        assert "warning: " in told
        assert "the data have changed since the training: the " in told
        assert " samples, " in told
    assert main(["train", "--resume", run, "images=400"]) == 2
    assert "data: have changed since this run began: the " in capsys.readouterr().err


def test_values_in_other_units_are_refused(digits_run, points_run, tmp_path, capsys):
    np.save(tmp_path / "unit.npy", np.random.default_rng(0).random((40, 1, 8, 8)).astype(np.float32))
    assert main(["likelihood", str(digits_run), str(tmp_path / "unit.npy"), "--n", "4", "--steps", "2"]) == 2
    assert "unit.npy has fractions; expected whole numbers, as in the data of the model" in capsys.readouterr().err
    data, some = ds.data.load_data("digits"), torch.arange(60)
    given = {
        "x": data.raw(some).numpy(),
        "labels": data.labels[some].numpy(),
        "class_names": np.array(data.class_names),
    }
    np.savez(tmp_path / "digits.npz", **given)  # of uint8 up to 255, by their type
    assert main(["likelihood", str(digits_run), str(tmp_path / "digits.npz"), "--n", "4", "--steps", "2"]) == 0
    assert main(["likelihood", str(points_run), "two-moons", "--n", "4", "--steps", "2"]) == 0
