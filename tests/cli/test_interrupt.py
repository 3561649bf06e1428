"""Ctrl-C in the middle of training, as the shell sends it."""

import os
import signal
import subprocess
import sys
import time

import pytest

import edmkit as ek


@pytest.mark.skipif(os.name != "posix", reason="signals of a POSIX shell")
def test_ctrl_c_saves_and_the_run_goes_on(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "edmkit", "train"]
    options = ["two-moons", "data.n=500", "images=100000000", "network.width=8", "--out", str(folder)]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = folder / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    assert f"edmkit train --resume {folder}" in printed
    assert "Traceback" not in complaints
    seen = ek.load(folder).notes["images"]
    assert 0 < seen < 100_000_000
    assert {path.name for path in folder.iterdir()} == {
        "recipe.yaml",
        "config.json",
        "model.safetensors",
        "checkpoint.pt",
        "log.jsonl",
    }
