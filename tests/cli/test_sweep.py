"""`diffspace sweep` as a person runs it: scores, times, when each method equals Heun with 35, and going on."""

import csv
import functools
import json

import pytest
from PIL import Image

from diffspace.cli.app import main
from diffspace.metrics import train_classifier

SMALL = ["--seeds", "0-99", "--calibration", "200-207", "--nfe", "3,5", "--reference-steps", "16", "--batch", "64"]
SMALL += ["--solvers", "ab:k=3,heun", "--steps", "edm"]


@pytest.mark.filterwarnings("ignore:6 samples are few to fit")
def test_a_sweep_end_to_end_and_on(points_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    record, table, picture = (tmp_path / f"x.{suffix}" for suffix in ("json", "csv", "png"))
    command = ["sweep", str(points_run), *SMALL, "--json", str(record)]
    methods = "heun,recommended,fitted,ab:k=3@loglinear:sigma_min=0.02"
    assert main([*command, "--samplers", methods, "--csv", str(table), "--out", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "as good as heun at NFE 35, or worse by at most 5%:" in printed
    found = json.loads(record.read_text(encoding="utf-8"))
    costs = {}
    for point in found["points"]:
        costs.setdefault(point["method"], []).append(point["nfe"])
        assert point["seconds"] > 0
        assert point["rms"] > 0
    assert costs["heun"] == [35, 3, 5]
    assert [costs[name] for name in ("recommended", "fitted")] == [[3, 5]] * 2
    errors = {(point["method"], point["nfe"]): point["rms"] for point in found["points"]}
    assert errors["heun", 35] < errors["heun", 5] < errors["heun", 3]
    (results,) = found["equal_quality"]
    assert [one["budget"] for one in results["least"]] == [3, 5, 35]
    for one in results["least"]:
        within = [point for point in found["points"] if point["nfe"] <= one["budget"]]
        best = min(within, key=lambda point: point["quality"]["value"])
        assert (one["name"], one["nfe"]) == (best["method"], best["nfe"])
        assert one["name"] not in [other["name"] for other in one["close"]]
    assert f"NFE ≤ 3: {results['least'][0]['name']}" in printed
    assert {"name": "heun", "nfe": 35} in [
        {"name": m["name"], "nfe": m["shown"]["nfe"]} for m in results["methods"] if m["shown"]
    ]
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [float(row["frechet"]) for row in rows] == [point["quality"]["value"] for point in found["points"]]
    for path in (picture, tmp_path / "x-dark.png"):
        with Image.open(path) as image:
            assert image.width > 1000

    kept = found["points"][:3]  # as if it had been killed, with a mark that a new score would not have
    kept[0]["seconds"] = 12345.0
    record.write_text(json.dumps({**found, "points": kept}), encoding="utf-8")
    assert main([*command, "--samplers", methods]) == 0
    again = json.loads(record.read_text(encoding="utf-8"))
    assert again["points"][0]["seconds"] == 12345.0
    values = [[(p["method"], p["nfe"], p["quality"]) for p in each["points"]] for each in (found, again)]
    assert values[0] == values[1]
    capsys.readouterr()
    assert main([*command, "--samplers", methods, "--seeds", "1-100"]) == 2
    assert "is of another sweep: seeds '0-99' there, '1-100' here" in capsys.readouterr().err


def test_guidance_churn_and_schedulers_of_diffusers(digits_run, tmp_path, capsys, monkeypatch):
    pytest.importorskip("diffusers")
    monkeypatch.setenv("COLUMNS", "150")
    record = tmp_path / "x.json"
    more = ["--guidance", "none,1.5:0.1,5", "--churn", "0,4", "--samplers", "heun,diffusers:EDMEuler", "--score", "kid"]
    options = ["--seeds", "0-39", "--nfe", "3", "--reference-steps", "8", "--json", str(record)]
    for module in ("cli.sweep_run", "metrics.sweep"):
        monkeypatch.setattr(f"diffspace.{module}.TARGET_NFE", 5)
    monkeypatch.setattr(
        "diffspace.metrics.extractors.making.train_classifier", functools.partial(train_classifier, epochs=1)
    )
    assert main(["sweep", str(digits_run), *options, *more]) == 2  # the network was trained without dropping labels
    assert "there is no null condition to guide from" in capsys.readouterr().err
    assert main(["sweep", str(digits_run), *options, *more[2:]]) == 0
    points = json.loads(record.read_text(encoding="utf-8"))["points"]
    assert [(p["method"], p["nfe"], p["churn"], p["rms"] is None) for p in points] == [
        *(("heun", 5, 0.0, False), ("heun", 3, 0.0, False), ("heun", 3, 4.0, True)),
        ("diffusers:EDMEuler", 3, 0.0, False),
    ]
    assert "KID" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samplers", "huen"], "'huen' is unknown; did you mean 'heun'"),
        (["--samplers", "heun,heun"], "--samplers: heun is given twice"),
        (["--samplers", "diffusers:Euler"], "diffusers: 'Euler' is unknown"),
        (["--samplers", "nowhere.json"], "nowhere.json"),
        (["--nfe", "x"], "--nfe: expected numbers of evaluations"),
        (["--guidance", "2,x"], "--guidance: expected W or W:low,high"),
        (["--guidance", "2,2"], "each once, got '2,2'"),
        (["--churn", "a"], "--churn: expected numbers such as 0,20, got 'a'"),
        (["--churn", "-1"], "--churn: expected a number in [0, inf)"),
        (["--seeds", "0-9"], "--seeds: expected at least 40"),
        (["--calibration", "90-99"], "--calibration: expected other seeds than --seeds"),
        (["--score", "fid"], "--score"),
        (["--tolerance", "-1"], "--tolerance: expected a number in [0, inf), got -1"),
        (["--out", "x.jpg"], "--out: expected a name that ends in .png"),
        (["--json", "nowhere/x.json"], "--json: there is no folder nowhere"),
    ],
)
def test_mistakes_are_told_on_one_line(points_run, arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", str(points_run), *SMALL, *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in " ".join(lines[-6:])


def test_what_is_no_sweep_or_no_run_is_told(points_run, tmp_path, capsys):
    other = tmp_path / "x.json"
    other.write_text("{}")
    assert main(["sweep", str(points_run), *SMALL, "--json", str(other)]) == 2
    assert "x.json" in capsys.readouterr().err
    assert other.read_text() == "{}"
    assert main(["sweep", str(tmp_path)]) == 2
    assert "is not the folder of a training run" in capsys.readouterr().err
