"""`diffspace figures`: what it writes, and what it says of a wrong request."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from diffspace.cli.app import main
from diffspace.figures.article import ENTRIES
from diffspace.process import Formula, Process
from diffspace.studies import flow_lines, three_modes


def test_a_process_of_ones_own_is_drawn_with_its_numbers(tmp_path):
    out = tmp_path / "f"
    own = ["--s", "1/(1+t)", "--t-max", "2", "--format", "svg", "--out", str(out)]
    assert main(["figures", "strange", "--sigma", "4 t^2", *own]) == 0
    names = {file.name for file in out.iterdir()}
    assert names == {
        "index.html",
        "strange-light.svg",
        "strange-dark.svg",
        "strange-lines.csv",
        "strange-coefficients.csv",
    }
    with (out / "strange-lines.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    process = Process(sigma=Formula("4 t^2"), s=Formula("1/(1+t)"))
    lines = flow_lines(three_modes(), process, 2.0)
    assert [float(row["x_7"]) for row in rows] == lines.x[:, 7].tolist()
    assert "strange-lines.csv" in (out / "index.html").read_text(encoding="utf-8")
    before = (out / "strange-light.svg").read_bytes()
    assert main(["figures", "strange", "--sigma", "4t²", *own]) == 2
    assert main(["figures", "strange", "--sigma", "4t²", *own, "--overwrite"]) == 0
    assert (out / "strange-light.svg").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strang"], "NAME: 'strang' is unknown; did you mean 'strange'"),
        (["schedules", "--sigma", "t"], "--sigma: has no effect on schedules; it has on strange"),
        (["--s", "t"], "--s: has no effect without --sigma"),
        (["--sigma", "__import__('os')"], "--sigma: unexpected '_' at character 1"),
        (["--sigma", "t - 1"], "sigma: expected a positive number at every t up to 1"),
        (["--sigma", "t", "--t-max", "-1"], "--t-max: expected a number in (0, inf), got -1"),
        (["--sigma-data", "0.5,x"], "--sigma-data: expected numbers such as 0.5,2, got '0.5,x'"),
        (["--format", "jpg"], "--format: 'jpg' is unknown; did you mean 'png'"),
    ],
)
def test_a_wrong_request_is_one_line(tmp_path, capsys, words, message):
    assert main(["figures", *words, "--out", str(tmp_path / "f")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "f").exists()


def test_all_figures_are_listed(capsys):
    assert main(["figures", "--list"]) == 0
    assert {entry.name for entry in ENTRIES} <= {line.split()[0] for line in capsys.readouterr().out.splitlines()}


@pytest.mark.slow
def test_all_figures_are_drawn_in_both_themes_with_their_numbers(tmp_path):
    assert main(["figures", "--out", str(tmp_path / "f"), "--format", "svg", "--still"]) == 0
    page = (tmp_path / "f" / "index.html").read_text(encoding="utf-8")
    for entry in ENTRIES:
        assert f'id="{entry.name}"' in page
        light, dark = ((tmp_path / "f" / f"{entry.name}-{theme}.svg").read_text() for theme in ("light", "dark"))
        assert light != dark
        tables = list((tmp_path / "f").glob(f"{entry.name}*.csv"))
        assert tables
        for table in tables:
            with table.open(encoding="utf-8") as file:
                rows = list(csv.reader(file))
            assert len(rows) > 1
            assert {len(row) for row in rows} == {len(rows[0])}


def test_the_guide_shows_every_figure():
    text = (Path(__file__).parents[2] / "docs" / "figures-list.md").read_text(encoding="utf-8")
    for entry in ENTRIES:
        assert f"images/figures/{entry.name}.png" in text
        assert f"`{entry.name}`" in text
