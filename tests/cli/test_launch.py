"""What starts several processes, with small ones in the place of `diffspace`."""

import os
import signal
import subprocess
import sys

import pytest

from diffspace.cli import launch

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

LAUNCHER = """
import sys
from diffspace.cli import launch
launch._COMMAND = (sys.executable, "-c", sys.argv[1])
launch.launch(2, [])
"""
WORKER = """
import os, signal, sys, time
from diffspace.cli.launch import complain, follow_launcher
follow_launcher()
rank = int(os.environ["RANK"])
"""


def test_processes_end_when_the_one_that_started_them_is_killed():
    own = WORKER + "if rank: signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('saved', flush=True)))\n"
    command = [sys.executable, "-c", LAUNCHER, own + "print('here', flush=True)\ntime.sleep(60)"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert [process.stdout.readline() for _ in range(2)] == ["here\n", "here\n"]
    process.kill()
    printed, _ = process.communicate(timeout=20)  # which lasts until all have ended
    assert printed == "saved\n"


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("pass", 0, ""),
        ("complain('diffspace: data: is missing'); sys.exit(2)", 2, "diffspace: data: is missing\n"),
        (
            "time.sleep(rank)\n"
            "complain('diffspace: lost the connection to the others' if rank else 'diffspace: mine')\n"
            "sys.exit(2 - rank)",
            2,
            "diffspace: mine\n",
        ),
        ("complain('diffspace: lost the connection to the others'); sys.exit(1)", 1, "diffspace: lost the connection"),
        (
            "if rank: os.kill(os.getpid(), signal.SIGKILL)\n"
            "complain('diffspace: lost the connection to the others'); sys.exit(1)",
            137,
            "diffspace: process 1 of 2 was killed by SIGKILL\n",
        ),
    ],
    ids=["success", "the same mistake", "a mistake of one", "a lost connection", "a killed one"],
)
def test_one_line_and_code_for_all(monkeypatch, capfd, program, code, said):
    monkeypatch.setattr(launch, "_COMMAND", (sys.executable, "-c", WORKER + program))
    assert launch.launch(2, []) == code
    found = capfd.readouterr().err
    assert found.startswith(said)
    assert found.count("\n") == bool(said)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
