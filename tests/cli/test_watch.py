"""`diffspace watch` on runs in every state, through `main`."""

import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from diffspace.cli import console
from diffspace.cli.app import main
from diffspace.cli.watch_view import plot
from diffspace.figures.curves import Line, Panel

SIGMA = [0.05, 0.3, 2.0]


def record(step):
    return {
        "step": step,
        "images": 64 * step,
        "loss": 30 / step,
        "learning_rate": 1e-3,
        "grad_norm": 5 / step,
        "images_per_second": 512.0,
        "seconds_left": (40 - step) / 8,
        "skipped": 2,
        "loss_by_sigma": {"sigma": SIGMA, "loss": [0.002, 0.1 / step, 0.3], "count": [20, 24, 20]},
    }


def held_out(step):
    held = {"loss": 33 / step, "sigma": SIGMA, "mse": [0.003, 0.1, 0.3], "trivial": [0.35] * 3}
    return {"step": step, "images": 64 * step, "held_out": held}


def make_run(folder, steps=20, extra=""):
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("data: {source: digits}\nimages: 2560\n")
    rows = [record(k) for k in range(1, steps + 1)] + ([held_out(steps)] if steps else [])
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + extra)
    return folder


def printed(capsys, *arguments):
    capsys.readouterr()
    assert main(["watch", *map(str, arguments)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def error_of(capsys, *arguments):
    capsys.readouterr()
    assert main(["watch", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("diffspace: ")
    return line


@pytest.mark.parametrize("torn", ["", '{"step": 21, "images": 13', "\x00\x00"])
def test_a_run_under_way(tmp_path, capsys, torn):
    text = printed(capsys, make_run(tmp_path / "digits", extra=torn), "--once")
    assert "digits" in text
    assert "1,280 of 2,560 images, 512 images/s, 2 s left" in text
    assert "held-out 1.65" in text
    assert "2 steps skipped" in text
    for title in ("loss", "error by σ", "gradient norm", "learning rate", "images/s", "┈ trivial"):
        assert title in text
    assert any(0x2800 < ord(c) < 0x2900 for c in text)
    assert max(map(len, text.splitlines())) <= 80


def test_every_measurement_is_shown_and_no_number_is_cut(tmp_path, capsys):
    folder = make_run(tmp_path / "digits")
    with (folder / "log.jsonl").open("a") as log:
        for name in ("first_measurement", "second_measurement", "third_measurement"):
            log.write(json.dumps({"step": 20, "images": 1280, name: 0.001234}) + "\n")
    text = printed(capsys, folder, "--once")
    for name in ("first_mea", "second_mea", "third_mea"):
        assert text.count(name) == 2  # its value, and its panel
    assert text.count("0.0012") >= 6
    assert text.count("_measurement 0.001234") == 3
    assert max(map(len, text.splitlines())) <= 80


def test_a_run_that_stopped_early_is_over(tmp_path, capsys):
    folder = make_run(tmp_path / "digits")
    (folder / "recipe.yaml").write_text("images: 2560\npatience_images: 640\n")
    assert "left" in printed(capsys, folder, "--once")
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps(held_out(10) | {"images": 1920}) + "\n")
    text = printed(capsys, folder, "--once")
    assert "1,280 of 2,560 images, stopped early" in text


def test_scores_on_the_way_have_errors_and_the_best_model_is_kept(tmp_path, capsys):
    folder = tmp_path / "roll"
    words = ["data.n=500", "images=600", "batch_size=100", "score_images=200", "score=kid", "score_samples=60"]
    words.append("score_features=identity")
    words.append("patience_images=0")
    assert main(["train", "swissroll", *words, "--out", str(folder)]) == 0
    scores = [
        row["score"] for row in map(json.loads, (folder / "log.jsonl").read_text().splitlines()) if "score" in row
    ]
    assert len(scores) == 3
    assert all(list(score) == ["kid", "real", "kid_error", "real_error"] for score in scores)
    assert all(score["kid_error"] > 0 for score in scores)
    assert len({score["real"] for score in scores}) == 1
    assert (folder / "best" / "model.safetensors").is_file()
    last = scores[-1]
    value = f"score kid {last['kid']:.4g} ± {last['kid_error']:.2g} real {last['real']:.4g} ± {last['real_error']:.2g}"
    assert value in " ".join(printed(capsys, folder, "--once").split())


def test_bars_of_errors_are_drawn_within_the_panel():
    line = Line([0.0, 10.0], [1.0, 1.0], errors=[0.0, 0.5])
    rows = [text.plain[7:47] for text in plot(Panel("score", [line]), 48, 12)[1:-1]]
    assert [bool(row[-1].strip("⠀ ")) for row in rows] == [True] * 10  # the whole height, from 0.5 to 1.5
    assert [bool(row[0].strip("⠀ ")) for row in rows].count(True) == 1


@pytest.mark.parametrize("with_recipe", [False, True])
def test_a_run_that_has_written_nothing(tmp_path, capsys, with_recipe):
    if with_recipe:
        (tmp_path / "recipe.yaml").write_text("images: 100\n")
    assert printed(capsys, tmp_path, "--once") == f"{tmp_path.name}  nothing is logged yet\n"
    assert main(["watch", str(tmp_path), "--out", str(tmp_path / "x.png")]) == 0


def test_runs_are_told_apart(tmp_path, capsys):
    for name in ("a", "b"):
        make_run(tmp_path / name / "digits", 40)
    text = printed(capsys, tmp_path / "a" / "digits", tmp_path / "b" / "digits", "--once")
    assert "a/digits" in text
    assert "b/digits" in text
    assert text.count("done") == 2


def test_pictures(tmp_path, capsys):
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second", 40)
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    assert printed(capsys, first, "--out", one).replace("\n", "") == str(one)
    printed(capsys, first, second, "--out", two)
    for path in (one, two):
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 10
    assert "exists already" in error_of(capsys, first, "--out", one)
    printed(capsys, first, "--out", one, "--overwrite")


def test_in_a_pipe_it_prints_once(tmp_path):
    """As a process of its own, on a run that is not over."""
    code = "import sys; from diffspace.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "watch", str(make_run(tmp_path / "digits"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"COLUMNS": "100"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "error by σ" in done.stdout


def test_in_a_terminal_it_follows_the_run_to_its_end(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "digits", 0)
    terminal = Console(force_terminal=True, width=100, height=40, record=True, highlight=False, soft_wrap=True)
    monkeypatch.setattr(console, "out", terminal)

    def write():
        with (folder / "log.jsonl").open("a") as log:
            for step in range(1, 41):
                log.write(json.dumps(record(step)) + "\n")
                log.flush()
                time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    assert main(["watch", str(folder), "--every", "0.1"]) == 0
    writer.join()
    text = terminal.export_text()
    assert "images/s" in text
    assert "2,560 of 2,560 images, done" in text


def test_ctrl_c_ends_it(tmp_path, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(console, "out", Console(force_terminal=True, width=100, height=40))
    monkeypatch.setattr(time, "sleep", interrupt)
    assert main(["watch", str(make_run(tmp_path / "digits"))]) == 0


def test_mistakes_are_named(tmp_path, capsys):
    run, other = make_run(tmp_path / "run"), tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    assert f"{tmp_path / 'none'}: there is no such folder" in error_of(capsys, tmp_path / "none")
    assert "is not the folder of a training run" in error_of(capsys, other)
    assert "--out: " in error_of(capsys, run, "--out", tmp_path / "x.jpg")
    assert "there is no folder" in error_of(capsys, run, "--out", tmp_path / "no" / "x.png")
    assert "--once: has no effect with --out" in error_of(capsys, run, "--once", "--out", tmp_path / "x.png")
    assert "--overwrite: has no effect" in error_of(capsys, run, "--overwrite")
    assert "--every: expected a number in [0.1, 3600], got 0.0" in error_of(capsys, run, "--every", "0")
    assert "is named twice" in error_of(capsys, run, run)
    assert "Missing argument" in error_of(capsys)
    (run / "recipe.yaml").write_text("images: [")
    assert "not valid YAML" in error_of(capsys, run)
