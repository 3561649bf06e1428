"""`diffspace evaluate`: the same scores from any number of processes, also after a kill."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import diffspace as ds
from diffspace.cli.app import main
from diffspace.cli.drawing import Drawing

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
    assert scores["sampling"]["steps"]["num_steps"] == 3
    assert scores["sampling"]["guidance"] is None


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
