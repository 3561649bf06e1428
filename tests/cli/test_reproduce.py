"""`diffspace reproduce`: its report, resumption, and what it says of a wrong request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from diffspace.cli.app import main
from diffspace.reproduction.store import FILE


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table3"], "PART: 'table3' is unknown; did you mean 'table2'"),
        (["--quick", "--full"], "--quick: cannot be combined with --full"),
        (["--quick", "--out", "{there}"], "exists already; add --overwrite"),
        (["--quick", "--out", "{other}"], "of another kind: scale"),
    ],
)
def test_wrong_requests(tmp_path, capsys, words, said):
    for name, file, text in (
        ("there", "own.txt", "mine"),
        (
            "other",
            FILE,
            '{"format": "diffspace reproduce 1", "facts": {"scale": 1}, "seconds": [1.0, 1.0], "measured": {}}',
        ),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
    folders = {name: str(tmp_path / name) for name in ("there", "other")}
    assert main(["reproduce", *(word.format(**folders) for word in words)]) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1


@pytest.mark.slow
def test_a_quick_run_that_was_killed_gives_the_same_report(tmp_path):
    parts = ["tuning", "article"]
    assert main(["reproduce", *parts, "--quick", "--out", str(tmp_path / "whole")]) == 0

    command = [sys.executable, "-m", "diffspace", "reproduce", *parts, "--quick", "--out", str(tmp_path / "killed")]
    for least in (2, 5):
        with subprocess.Popen(
            command, env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
        ) as run:
            path = tmp_path / "killed" / FILE
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline and not (
                path.is_file() and len(json.loads(path.read_text())["measured"]) >= least
            ):
                time.sleep(0.2)
            run.send_signal(signal.SIGKILL)
    assert subprocess.run(command, check=False).returncode == 0
    one, other = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "killed"))
    assert one == other
    files = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {"index.html", "reproduce.md", "claims.csv", "images", "tuning.csv"} <= files


@pytest.mark.slow
def test_a_quick_run_of_everything(tmp_path):
    out = tmp_path / "all"
    assert main(["reproduce", "--quick", "--out", str(out)]) == 0
    found = json.loads((out / "results.json").read_text())
    assert set(found["results"]) == {"table2", "figure2", "figure4", "tuning", "augmentation", "article"}
    verdicts = {claim["verdict"] for claim in found["claims"]}
    assert verdicts <= {"shown", "not shown", "cannot tell"}
    page = (out / "index.html").read_text()
    assert all(claim["verdict"] in page for claim in found["claims"])
