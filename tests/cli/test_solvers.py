"""`diffspace solvers` as a person runs it: the table, the choice, the picture, and the command that it hands over."""

import json
import re
import shlex

import pytest
from PIL import Image

import diffspace as ds
from diffspace.cli.app import main
from diffspace.sampling import AdamsBashforth, EDMSteps

SMALL = ["--seeds", "0-7", "--reference-steps", "40", "--nfe", "9,5"]


def test_an_oracle_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out, figures = tmp_path / "ring.png", tmp_path / "ring.json"
    solvers = ["--solvers", "heun,euler,ab:k=3,prediction=x0", "--steps", "edm,loglinear:sigma_min=0.02"]
    assert main(["solvers", "ring", *SMALL, *solvers, "--out", str(out), "--json", str(figures)]) == 0
    captured = capsys.readouterr()
    record = json.loads(figures.read_text(encoding="utf-8"))
    assert record["budgets"] == [5, 9]
    assert (record["samples"], record["reference"]["nfe"]) == (8, 70)
    assert len(record["rows"]) == 3 * 2 * 2
    assert {row["nfe"] for row in record["rows"] if row["solver"] == "heun"} == {5, 9}
    for choice in record["recommended"]:
        least = min(
            (row["rms"], row["solver"], row["steps"]) for row in record["rows"] if row["nfe"] <= choice["budget"]
        )
        assert choice["rms"] <= 1.05 * least[0]
        comma = "," if ":" in choice["steps"] else ":"
        steps = f"{choice['steps']}{comma}num_steps={choice['num_steps']}"
        assert choice["command"] == f"--solver {choice['solver']} --steps {steps}"
        assert choice["command"] in captured.out
        assert choice["reason"] in captured.out
    assert re.search(r"about \d+ (s|min)\b", captured.err)
    assert "12 runs, 84 evaluations of 8 samples: about " in captured.err
    assert ", if they are as fast as the 70 of the reference" in captured.err
    with Image.open(out) as picture:
        assert picture.width > 600


def test_a_reference_too_coarse_to_tell_is_a_warning(capsys):
    arguments = ["solvers", "ring", "--seeds", "0-7", "--solvers", "heun", "--steps", "edm"]
    assert main([*arguments, "--nfe", "15", "--reference-steps", "8"]) == 0
    assert "than the best solver at NFE 15 seems: raise --reference-steps to tell" in capsys.readouterr().err
    assert main([*arguments, "--nfe", "5", "--reference-steps", "60"]) == 0
    assert "--reference-steps" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("steps", "smooths"), [("loglinear:sigma_min=0.03", True), ("loglinear:sigma_min=0.005", False)]
)
def test_steps_that_smooth_are_told(steps, smooths, capsys, tmp_path, monkeypatch):
    """The data of the ring have a standard deviation of 0.71, of which a hundredth is 0.0071."""
    monkeypatch.setenv("COLUMNS", "300")
    words = ["--nfe", "8", "--solvers", "ab", "--steps", steps, "--reference-steps", "40"]
    assert main(["solvers", "ring", *words, "--json", str(tmp_path / "x.json")]) == 0
    told = capsys.readouterr().err
    assert ("at NFE 8 the last evaluation is at σ up to 0.03, and the samples are its D" in told) == smooths
    figures = json.loads((tmp_path / "x.json").read_text())
    assert (figures["samples"], figures["seeds"]) == (256, "0-255")  # small samples: more of them


def test_the_command_that_is_recommended_runs(points_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    figures = tmp_path / "roll.json"
    arguments = ["--solvers", "ab:k=3,euler", "--steps", "edm:rho=5,sigma_min=0.01", "--json", str(figures)]
    assert main(["solvers", str(points_run), *SMALL, "--batch", "3", *arguments]) == 0
    choice = json.loads(figures.read_text(encoding="utf-8"))["recommended"][-1]
    words = shlex.split(choice["command"])
    assert words[:3] == ["diffspace", "sample", str(points_run)]
    capsys.readouterr()
    assert main([*words[1:], "--seeds", "0-3", "--out", str(tmp_path / "x.npz")]) == 0
    first = ds.load(points_run).sampling_range[1]
    assert f"{choice['num_steps']} steps, NFE {choice['nfe']}, σ {first:g} … 0.01 → 0" in capsys.readouterr().out


def test_the_printed_command_has_the_classes_of_what_was_measured(digits_run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    words = ["--seeds", "0-1", "--nfe", "3", "--solvers", "euler", "--steps", "edm", "--reference-steps", "8"]
    assert main(["solvers", str(digits_run), *words, "--class", "3", "--class", "1,2"]) == 0
    assert f"diffspace sample {digits_run} --class 3 --class 1,2 --solver euler" in capsys.readouterr().out


def test_samplers_that_were_found_take_part(points_run, capsys, monkeypatch):
    from diffspace.sampler_files import save_sampler
    from diffspace.sampling import GivenSteps, Sampler
    from diffspace.sampling.steps import steps_for

    monkeypatch.setenv("COLUMNS", "300")
    levels = tuple(steps_for(ds.load(points_run), EDMSteps(5)).sigmas().tolist())
    save_sampler(Sampler(GivenSteps(levels), AdamsBashforth(2)), points_run, "quick")
    assert main(["solvers", str(points_run), *SMALL, "--solvers", "heun", "--steps", "edm"]) == 0
    assert f"diffspace sample {points_run} --sampler quick" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rings"], "there is no folder rings"),
        (["ring", "--nfe", "5,x"], "--nfe: expected numbers of evaluations such as 5,8,10, got '5,x'"),
        (["ring", "--nfe", "0"], "got '0'"),
        (["ring", "--seeds", "3-1"], "--seeds: the range"),
        (["ring", "--solvers", "huen"], "'huen' is unknown; did you mean 'heun'"),
        (["ring", "--solvers", "heun,"], "solver.kind: ''"),
        (["ring", "--steps", "edm:rho=-1"], "rho: expected a number in (0, inf), got -1"),
        (["ring", "--steps", "18"], "the number of steps follows from --nfe"),
        (["ring", "--class", "3"], "--class: has no effect on ring"),
        (["ring", "--reference-steps", "7"], "expected an even number of at least 8 steps, got 7"),
        (["ring", "--batch", "0"], "--batch: expected an integer of at least 1, got 0"),
        (["ring", "--out", "x.jpg"], "--out: expected a name that ends in .png, got x.jpg"),
        (["ring", "--json", "nowhere/x.json"], "--json: there is no folder nowhere"),
        (["ring", "--solvers", "heun,heun"], "heun, edm is given twice"),
        (["oracle:nowhere"], "data: 'nowhere' does not exist"),
        (["ring", "--fit", "--fit-seeds", "4294967290-4294967295"], "the last of those that judge: expected"),
        (["ring", "--fit-evaluations", "5000"], "--fit-evaluations: has no effect without --fit"),
        (["ring", "--fit", "--fit-evaluations", "0"], "--fit-evaluations: expected an integer of at least 1, got 0"),
        (["ring", "--fit", "--fit-seeds", "0-7", "--seeds", "30-40"], "--fit-seeds: these and the 32 that follow"),
    ],
)
def test_mistakes_are_told_on_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["solvers", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert lines[-1].startswith("diffspace: ")


def test_nothing_is_overwritten_unless_told(tmp_path, capsys):
    out = tmp_path / "ring.json"
    out.write_text("mine")
    assert main(["solvers", "ring", *SMALL, "--json", str(out)]) == 2
    assert "exists already; add --overwrite to replace it" in capsys.readouterr().err
    assert out.read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--solver", "heun:alpha=0.5", "--alpha", "0.5"], "has alpha, which is also given as an option"),
        (["--disc", "edm:rho=5", "--rho", "5"], "has rho, which is also given as an option"),
        (["--solver", "ab:k=0"], "k: expected an integer from 1 to"),
        (["--solver", "heun:k=3"], "'heun' has no such option"),
    ],
)
def test_options_in_the_word_of_a_solver(points_run, options, message, capsys):
    assert main(["sample", str(points_run), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.filterwarnings("default::UserWarning")
def test_few_seeds_to_fit_to_are_told_on_one_line(capsys):
    words = ["solvers", "ring", "--nfe", "4", "--fit", "--fit-seeds", "100-107", "--seeds", "0-3", "--solvers", "euler"]
    assert main([*words, "--steps", "edm", "--reference-steps", "16"]) == 0
    told = capsys.readouterr().err
    assert "warning: 8 samples are few to fit a solver to; expected at least 24\n" in told
    assert " on 32 other seeds" in told


@pytest.mark.filterwarnings("ignore:the error is")
def test_the_cost_of_a_fit_is_told_beforehand(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    words = [
        "solvers",
        "ring",
        "--nfe",
        "3,4",
        "--fit",
        "--fit-seeds",
        "100-131",
        "--seeds",
        "0-3",
        "--solvers",
        "euler",
    ]
    assert main([*words, "--steps", "edm", "--reference-steps", "40", "--fit-evaluations", "9000"]) == 0
    told = capsys.readouterr().err
    paths = (32 + 128) * 70  # 40, 20 and 10 steps
    assert f"fit: {paths:,} evaluations of a sample for the exact paths of 32 seeds and the ends of 128 others" in told
    assert "then at most about 18,000 for NFE 3, 4\n" in told
    assert re.search(r"fit: about \d+ (s|min)\b.* if these are as fast as the paths\n", told)
